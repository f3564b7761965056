//! Prints the status of a daemon: `listend status`.

mod answer;
mod watch;

use super::args::Status as Arguments;
use super::client::{Client, Wait};
use super::exit::Exit;
use std::mem::ManuallyDrop;

/// Asks and prints.
pub fn status(arguments: &Arguments) -> Exit {
    let client = Client::connect(arguments.control.control.as_deref(), Wait::Patiently);
    match client {
        Ok(client) if arguments.watch => watch::watch(client, arguments),
        Ok(mut client) => match answer::ask(&mut client, arguments) {
            Ok(answer) => {
                // To free its pieces one by one takes milliseconds, and the process ends.
                let answer = ManuallyDrop::new(answer);
                answer::show(&mut client, &answer, arguments)
            }
            Err(failure) => failure.tell(None),
        },
        Err(failure) => failure.tell(None),
    }
}
