//! The terminal: taken over, and always given back.

use crossterm::cursor::Show;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Rect, Size};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use std::io::{self, Stdout};
use std::time::Duration;

use super::state::Key;

/// So much of a terminal is drawn on, in columns and lines: what a terminal says of its size is any number up to
/// 65535, and each of its characters takes memory.
const LARGEST: Size = Size::new(1000, 500);

/// The terminal in our hands, until it is dropped.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    area: Rect,
}

impl Screen {
    /// Takes it over.
    ///
    /// # Errors
    ///
    /// Standard output is not a terminal, or it has gone.
    pub fn open() -> io::Result<Screen> {
        let before = std::panic::take_hook();
        // Where a panic ends the process at once nothing is dropped, and what it says would vanish
        // with the screen.
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        enable_raw_mode()?;
        let area = Rect::ZERO;
        let viewport = Viewport::Fixed(area);
        let opened = execute!(io::stdout(), EnterAlternateScreen).and_then(|()| {
            let backend = CrosstermBackend::new(io::stdout());
            Terminal::with_options(backend, TerminalOptions { viewport })
        });
        match opened {
            Ok(terminal) => Ok(Screen { terminal, area }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }
}

impl Screen {
    /// Draws, as large as the terminal is now.
    ///
    /// # Errors
    ///
    /// The terminal has gone.
    pub fn draw(&mut self, what: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        let size = self.terminal.size()?;
        let (width, height) = (size.width, size.height);
        let (width, height) = (width.min(LARGEST.width), height.min(LARGEST.height));
        let area = Rect::new(0, 0, width, height);
        if area != self.area {
            self.terminal.resize(area)?;
            self.area = area;
        }
        self.terminal.draw(what).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Does no harm if it was given back before.
fn give_back() {
    // A terminal that has gone needs nothing back.
    let _gone = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _gone = disable_raw_mode();
}

/// The keys that were pressed and not read yet.
///
/// # Errors
///
/// The terminal has gone.
pub fn keys() -> io::Result<Vec<Key>> {
    let mut keys = Vec::new();
    while event::poll(Duration::ZERO)? {
        match event::read()? {
            // The size is asked for whenever something is drawn, so that a resize needs nothing more.
            Event::Key(pressed) if pressed.kind != KeyEventKind::Release => {
                let control = pressed.modifiers.contains(KeyModifiers::CONTROL);
                keys.extend(key(pressed.code, control));
            }
            // The size is asked for whenever something is drawn.
            _ => {}
        }
    }
    Ok(keys)
}

fn key(code: KeyCode, control: bool) -> Option<Key> {
    match (code, control) {
        (KeyCode::Char('c'), true) => Some(Key::Interrupt),
        (KeyCode::Char(_), true) => None,
        (KeyCode::Char(letter), false) => Some(Key::Letter(letter)),
        (KeyCode::Up, _) => Some(Key::Up),
        (KeyCode::Down, _) => Some(Key::Down),
        (KeyCode::PageUp, _) => Some(Key::PageUp),
        (KeyCode::PageDown, _) => Some(Key::PageDown),
        (KeyCode::Home, _) => Some(Key::Home),
        (KeyCode::End, _) => Some(Key::End),
        (KeyCode::Tab | KeyCode::BackTab, _) => Some(Key::Tab),
        (KeyCode::Esc, _) => Some(Key::Escape),
        (KeyCode::Enter, _) => Some(Key::Enter),
        (KeyCode::Backspace, _) => Some(Key::Backspace),
        _ => None,
    }
}
