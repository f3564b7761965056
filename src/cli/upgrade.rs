//! `listend upgrade`.

use super::args::Upgrade;
use super::client::{Client, Failure, Wait};
use super::exit::Exit;
use super::output::print;
use super::resume;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// How long the daemon may take, from the exec on, to answer again.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Told {
    message: Option<String>,
}

/// What `GetInfo` answers.
#[derive(Deserialize)]
struct Info {
    version: String,
}

/// Has the daemon execute another binary in its place, and waits until that answers.
pub fn upgrade(arguments: &Upgrade) -> Exit {
    if arguments.preflight {
        return resume::preflight();
    }
    match ask(arguments) {
        Ok(text) => super::check::finish(print(&text), Exit::Done),
        Err(failure) => failure.tell(None),
    }
}

fn ask(arguments: &Upgrade) -> Result<String, Failure> {
    let path = arguments.control.control.as_deref();
    let mut client = Client::connect(path, Wait::Patiently)?;
    let before: Info = client.ask_service("GetInfo")?;
    let binary = arguments.binary.as_ref().map(std::path::absolute);
    let binary = binary.and_then(Result::ok);
    client.wait(Wait::ForEver)?;
    client.send(
        "Upgrade",
        &json!({ "binary": binary, "now": arguments.now }),
        true,
    )?;
    // It tells that it begins, and what goes wrong. The connection ends where it succeeds.
    let begun = client.next::<Told>()?;
    log::debug!("{}", begun.of.message.unwrap_or_default());
    match client.next::<Told>() {
        Ok(_) | Err(Failure::Broken(..)) => {}
        Err(failure) => return Err(failure),
    }
    // The control socket is never closed: the connection waits there for the next listend.
    let mut client = Client::connect(path, Wait::AtMost(PATIENCE))?;
    let after: Info = client.ask_service("GetInfo")?;
    let (before, after) = (before.version, after.version);
    Ok(format!("listend {before} upgraded to {after}\n"))
}
