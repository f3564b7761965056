//! Places in files, and the lines of text at them.

use super::words::escaped;
use serde::{Deserialize, Serialize};

/// The number of a file in [`Sources`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct FileId(pub u16);

/// A stretch of one line of one file. Lines and columns count from 1, columns in characters.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Place {
    /// The file of the place.
    pub file: FileId,
    /// The line, from 1.
    pub line: u32,
    /// The character within the line, from 1.
    pub column: u32,
    /// The number of characters that the caret underlines; at least 1.
    pub length: u32,
}

/// The texts that places point into, kept until the last message has been printed.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<Source>,
}

#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: String,
    /// The byte offset of each line: a file with 10,000 errors is not searched 10,000 times.
    line_starts: Vec<usize>,
}

impl Sources {
    /// Adds a file under the name to show in messages. At most 65,535 files are kept apart; the
    /// places of any beyond would show the last.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> FileId {
        let id = u16::try_from(self.files.len()).unwrap_or(u16::MAX);
        let text: String = text.into();
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        self.files.push(Source {
            name: name.into(),
            text,
            line_starts,
        });
        FileId(id)
    }

    /// The name of a file, as messages show it.
    pub fn name(&self, file: FileId) -> &str {
        self.files
            .get(usize::from(file.0))
            .map_or("?", |source| source.name.as_str())
    }

    /// The names of all files, by [`FileId`].
    pub fn names(&self) -> Vec<String> {
        self.files
            .iter()
            .map(|source| source.name.clone())
            .collect()
    }

    /// The whole text of a file.
    pub fn text(&self, file: FileId) -> &str {
        self.files
            .get(usize::from(file.0))
            .map_or("", |source| source.text.as_str())
    }

    /// The line a place is on, without its line end.
    pub fn line(&self, place: Place) -> Option<&str> {
        let source = self.files.get(usize::from(place.file.0))?;
        let index = usize::try_from(place.line).ok()?.checked_sub(1)?;
        let start = *source.line_starts.get(index)?;
        source.text.get(start..)?.lines().next()
    }

    /// `file:line:column`, as editors understand it.
    pub fn position(&self, place: Place) -> String {
        let name = escaped(self.name(place.file));
        format!("{name}:{}:{}", place.line, place.column)
    }
}
