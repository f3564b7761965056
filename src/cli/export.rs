//! `listend export systemd`: prints or writes units for a configuration.

use super::args::{Export, ExportFormat};
use super::check::finish;
use super::exit::Exit;
use super::load;
use super::output::{print, print_report};
use crate::export::{self, Unit};
use crate::report::reason;
use crate::shell::logging::Sink;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Prints the units, or writes them into a directory.
pub fn export(arguments: &Export, sink: Sink) -> Exit {
    let loaded = load::read_files(&arguments.config.path());
    if !loaded.report.is_ok() {
        print_report(&loaded.report, &loaded.sources, sink);
        return Exit::Configuration;
    }
    let units = match arguments.format {
        ExportFormat::Systemd => export::systemd(&loaded.config),
    };
    match &arguments.directory {
        None => {
            let text = units
                .iter()
                .map(|unit| format!("# --- {} ---\n{}\n", unit.name, unit.text()));
            finish(print(&text.collect::<String>()), Exit::Done)
        }
        Some(directory) => match write(directory, &units) {
            Ok(written) => finish(print(&written), Exit::Done),
            Err((path, error)) => {
                log::error!("cannot write {path}: {}", reason(&error));
                Exit::Refused
            }
        },
    }
}

/// Writes each into a file of its own, and none over another. The names, a line each.
fn write(directory: &Path, units: &[Unit]) -> Result<String, (String, io::Error)> {
    let at = |path: &Path| path.display().to_string();
    fs::create_dir_all(directory).map_err(|error| (at(directory), error))?;
    let paths = units.iter().map(|unit| directory.join(&unit.name));
    let paths: Vec<_> = paths.collect();
    if let Some(there) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err((
            at(there),
            io::Error::new(io::ErrorKind::AlreadyExists, "it exists"),
        ));
    }
    let mut written = String::new();
    for (unit, path) in units.iter().zip(&paths) {
        let file = File::create_new(path);
        let done = file.and_then(|mut file| file.write_all(unit.text().as_bytes()));
        done.map_err(|error| (at(path), error))?;
        written.push_str(&format!("{}\n", path.display()));
    }
    Ok(written)
}
