//! `listend top`: the status live, and keys to act.

mod draw;
mod live;
mod rows;
mod screen;
mod state;
mod style;
#[cfg(test)]
mod tests;

use super::args::Top as Arguments;
use super::client::{Client, Wait};
use super::exit::Exit;
use super::output::{complain, hint};
use super::socket::default_path;
use crate::control::Status;
use crate::report::reason;
use crate::shell::logging::wants_colour;
use live::Live;
use screen::Screen;
use serde_json::json;
use state::TopState;
use std::io::{self, IsTerminal};
use style::Theme;

/// Shows until it is ended.
pub fn top(arguments: &Arguments) -> Exit {
    if let Err(why) = terminal() {
        complain(why);
        hint("`listend status` needs none");
        return Exit::Refused;
    }
    let control = arguments
        .control
        .control
        .clone()
        .or_else(|| default_path().ok());
    // What is wrong from the start is said as every other verb says it.
    let first = Client::connect(control.as_deref(), Wait::Patiently)
        .and_then(|mut client| client.ask::<Status>("Status", &json!({})));
    let status = match first {
        Ok(status) => status,
        Err(failure) => return failure.tell(None),
    };
    let daemon = control.as_ref().map(|path| path.display().to_string());
    let top = TopState::new(daemon.unwrap_or_default(), status);
    let theme = Theme {
        colour: wants_colour(),
        unicode: speaks_utf8(),
    };
    let ended =
        Screen::open().and_then(|mut screen| Live::new(control, top).run(&mut screen, theme));
    match ended {
        Ok(None) => Exit::Done,
        // As a shell has it for a program that a signal ended.
        Ok(Some(signal)) => Exit::Code(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
        Err(error) => {
            complain(&format!("the terminal failed: {}", reason(&error)));
            Exit::Internal
        }
    }
}

/// Whether there is a terminal on which a cursor can be moved.
fn terminal() -> Result<(), &'static str> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err("top needs a terminal for input and output");
    }
    match std::env::var_os("TERM") {
        None => Err("top cannot move the cursor of this terminal: TERM is not set"),
        Some(term) if term == "dumb" || term.is_empty() => {
            Err("top cannot move the cursor of this terminal: TERM is `dumb`")
        }
        Some(_) => Ok(()),
    }
}

/// Whether characters beyond ASCII are shown, by the first of the variables that is set (locale(7)).
fn speaks_utf8() -> bool {
    let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let first = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(set);
    let value = first.and_then(|name| std::env::var(name).ok());
    value.is_some_and(|value| {
        let value = value.to_lowercase();
        value.contains("utf-8") || value.contains("utf8")
    })
}
