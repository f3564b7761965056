//! Styles by severity, as far as the terminal can show them.

use crate::control::Severity;
use ratatui::style::{Color, Modifier, Style};

/// The abilities of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Colours are wanted.
    pub colour: bool,
    /// Characters beyond ASCII are understood.
    pub unicode: bool,
}

impl Theme {
    /// The style of a severity; without colours, [`Severity::Bad`] is bold.
    pub fn style(self, severity: Severity) -> Style {
        match (severity, self.colour) {
            (Severity::Plain, _) => Style::new(),
            (Severity::Good, true) => Style::new().fg(Color::Green),
            (Severity::Doubtful, true) => Style::new().fg(Color::Yellow),
            (Severity::Bad, true) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            (Severity::Bad, false) => Style::new().add_modifier(Modifier::BOLD),
            (Severity::Good | Severity::Doubtful, false) => Style::new(),
        }
    }
}
