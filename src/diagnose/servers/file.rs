//! Reading files that name further files.

use crate::host::ServerFiles;
use std::path::{Path, PathBuf};

/// No configuration has more files.
const MOST_FILES: usize = 300;

/// Reads the files of one configuration, not without end.
pub(super) struct Reader<'a> {
    files: &'a dyn ServerFiles,
    left: usize,
    /// Whether a file could not be read, so that something may be in there.
    pub incomplete: bool,
}

impl<'a> Reader<'a> {
    pub fn new(files: &'a dyn ServerFiles) -> Reader<'a> {
        Reader {
            files,
            left: MOST_FILES,
            incomplete: false,
        }
    }

    pub fn text(&mut self, path: &Path) -> Option<String> {
        let text = self.left.checked_sub(1).and_then(|left| {
            self.left = left;
            self.files.text(path)
        });
        self.incomplete |= text.is_none();
        text
    }

    /// The files that a pattern means (glob(7)), of which only the last part may have stars. Without one
    /// it is the file itself.
    pub fn matching(&mut self, pattern: &Path) -> Vec<PathBuf> {
        let is_pattern = |part: &str| part.contains(['*', '?', '[']);
        let text = pattern.to_string_lossy();
        let Some((folder, last)) = text.rsplit_once('/') else {
            return vec![pattern.to_owned()];
        };
        if !is_pattern(&text) {
            return vec![pattern.to_owned()];
        }
        let entries = if is_pattern(folder) || last.contains('[') {
            None
        } else {
            self.files.entries(Path::new(folder))
        };
        self.incomplete |= entries.is_none();
        let mut found = entries.unwrap_or_default();
        found.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| !name.starts_with('.') && fits(last, name))
        });
        found
    }
}

/// Whether a name fits a pattern of stars and question marks.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut of) = (0, 0);
    // Where the last star was, and up to where of the name it reaches.
    let mut star = None;
    while of < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(letter) if *letter == b'?' || *letter == name[of] => {
                at += 1;
                of += 1;
            }
            _ => {
                let Some((before, end)) = star else {
                    return false;
                };
                star = Some((before, end + 1));
                at = before + 1;
                of = end + 1;
            }
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns_fit_names_as_those_of_a_shell() {
        for (pattern, name, fit) in [
            ("*.conf", "www.conf", true),
            ("*.conf", "www.conf.bak", false),
            ("*", "", true),
            ("a*b*c", "axxbyybc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }
}
