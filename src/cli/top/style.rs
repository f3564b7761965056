//! How things look, by how they are and by what the terminal can show.

use ratatui::style::{Color, Modifier, Style};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Colours are wanted.
    pub colour: bool,
    /// Characters beyond ASCII are understood.
    pub unicode: bool,
}

/// How a thing is, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Nothing to say.
    Plain,
    /// As it should be.
    Good,
    /// On its way.
    Doubtful,
    /// Somebody should look.
    Bad,
}

impl Look {
    /// Without colours, what is bad is bold.
    pub fn style(self, mood: Mood) -> Style {
        match (mood, self.colour) {
            (Mood::Plain, _) => Style::new(),
            (Mood::Good, true) => Style::new().fg(Color::Green),
            (Mood::Doubtful, true) => Style::new().fg(Color::Yellow),
            (Mood::Bad, true) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            (Mood::Bad, false) => Style::new().add_modifier(Modifier::BOLD),
            (Mood::Good | Mood::Doubtful, false) => Style::new(),
        }
    }
}
