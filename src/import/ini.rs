//! Files of sections and keys: units of systemd, circus.ini, supervisord.conf.

/// A section and its assignments, in order.
#[derive(Debug, Default, Clone)]
pub(super) struct Section {
    pub name: String,
    pub keys: Vec<(String, String)>,
}

impl Section {
    /// The last value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.keys.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }
}

/// The sections of a unit file: a line that ends in a backslash continues in the next.
pub(super) fn unit(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut pending = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        // A comment may stand between the lines of a value.
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(start) = trimmed.strip_suffix('\\') {
            pending.push_str(start);
            pending.push(' ');
            continue;
        }
        let whole = format!("{pending}{trimmed}");
        pending.clear();
        take(&mut sections, whole.trim());
    }
    take(&mut sections, pending.trim());
    sections
}

fn take(sections: &mut Vec<Section>, line: &str) {
    if let Some(name) = line
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        sections.push(Section {
            name: name.to_owned(),
            keys: Vec::new(),
        });
    } else if let (Some(section), Some((key, value))) = (sections.last_mut(), line.split_once('='))
    {
        let pair = (key.trim().to_owned(), value.trim().to_owned());
        section.keys.push(pair);
    }
}

/// The sections of a file as Python's configparser reads it: indented lines continue a value, and one of these
/// characters behind a blank begins a comment. `key` is what the program makes of the name of a key.
pub(super) fn python(text: &str, comments: &[char], key: fn(&str) -> String) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let ends = line.match_indices(comments).map(|(at, _)| &line[..at]);
        let end = ends.into_iter().find(|start| start.ends_with([' ', '\t']));
        let line = end.unwrap_or(line).trim_end();
        if line.starts_with([' ', '\t']) {
            let last = sections
                .last_mut()
                .and_then(|section| section.keys.last_mut());
            if let Some((_, value)) = last {
                value.push(' ');
                value.push_str(line.trim());
            }
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            sections.push(Section {
                name: name.trim().to_owned(),
                keys: Vec::new(),
            });
        } else if let Some(section) = sections.last_mut() {
            let at = line.find(['=', ':']).unwrap_or(line.len());
            let value = line.get(at + 1..).unwrap_or_default().trim();
            let pair = (key(line[..at].trim()), value.to_owned());
            section.keys.push(pair);
        }
    }
    sections
}
