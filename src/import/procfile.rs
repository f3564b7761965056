//! A Procfile, and the `PORT` of its processes.

use super::document::{Document, Entry, forwarded, literal};

/// The first `PORT`, and how far apart those of two process types are (foreman).
const FIRST_PORT: usize = 5000;
const STEP: usize = 100;

pub(super) fn import(text: &str) -> Document {
    let mut document = Document::default();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, command)) = line.split_once(':') else {
            document.note(line, "it is no NAME: COMMAND");
            continue;
        };
        let mut worker = Entry::new(name.trim());
        // Its variables are the shell's.
        let script = format!("exec {}", command.trim());
        worker.set(
            "command",
            ["/bin/sh", "-c", &literal(&script)]
                .map(str::to_owned)
                .to_vec(),
        );
        if command.contains("$PORT") || command.contains("${PORT") || name.trim() == "web" {
            let port = FIRST_PORT + STEP * document.workers.len();
            let mut listener = Entry::new(name.trim());
            listener.set("address", format!("127.0.0.1:{port}"));
            forwarded(&mut worker, &listener);
            document.listeners.push(listener);
        }
        document.workers.push(worker);
    }
    document
}
