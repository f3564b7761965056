//! `listend import`: reads the files of another supervisor and prints YAML.

use super::args::Import;
use super::check::finish;
use super::exit::Exit;
use super::output::print;
use crate::import::{self, FORMATS, Format, Unit};
use crate::report::reason;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Prints the YAML.
pub fn import(arguments: &Import) -> Exit {
    match yaml(arguments) {
        Ok(yaml) => finish(print(&yaml), Exit::Done),
        Err((exit, message)) => {
            log::error!("{message}");
            exit
        }
    }
}

fn yaml(arguments: &Import) -> Result<String, (Exit, String)> {
    let mut files = arguments.files.clone();
    let named = arguments.from.as_deref();
    let named = named.and_then(|from| FORMATS.iter().find(|(word, _)| *word == from));
    let mut format = named.map(|(_, format)| *format);
    let mut units = Vec::new();
    let mut next = 0;
    while let Some(path) = files.get(next).cloned() {
        next += 1;
        let text = text(&path).map_err(|error| (Exit::Usage, error))?;
        let shown = path.display().to_string();
        let found = named.map(|(_, format)| *format);
        let found = found
            .or_else(|| import::format_of(&shown, &text))
            .ok_or_else(|| {
                let words: Vec<&str> = FORMATS.iter().map(|(word, _)| *word).collect();
                let hint = if shown.ends_with(".js") || shown.ends_with(".cjs") {
                    "; it is a program: write what it exports to a .json file".to_owned()
                } else {
                    format!("; name it with --from: {}", words.join(", "))
                };
                (Exit::Usage, format!("{shown}: unknown format{hint}"))
            })?;
        if *format.get_or_insert(found) != found {
            return Err((
                Exit::Usage,
                format!("{shown}: another format than the files before it"),
            ));
        }
        let name = path.file_name().unwrap_or_default();
        let unit = Unit {
            name: name.to_string_lossy().into_owned(),
            text,
            drop_ins: drop_ins(&path),
        };
        if found == Format::Systemd {
            // What belongs to it stands beside it.
            let is_there = |name: &str| path.with_file_name(name).is_file();
            for name in import::counterparts(&unit, is_there) {
                let other = path.with_file_name(name);
                if !files.contains(&other) {
                    files.push(other);
                }
            }
        }
        units.push(unit);
    }
    // Without a file the parser of arguments has refused.
    let format = format.unwrap_or(Format::Systemd);
    import::import(format, &units).map_err(|message| (Exit::Configuration, message))
}

/// The path of the template of which this unit is an instance.
fn template(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    import::template_of(name).map(|template| path.with_file_name(template))
}

/// The text of a file, or of its template: an instance has no file of its own.
fn text(path: &Path) -> Result<String, String> {
    let template = template(path).filter(|template| !path.exists() && template.is_file());
    let path = template.as_deref().unwrap_or(path);
    read(path).map_err(|error| match error.kind() {
        io::ErrorKind::IsADirectory => {
            format!("{} is a directory: name the files in it", path.display())
        }
        _ => format!("cannot read {}: {}", path.display(), reason(&error)),
    })
}

/// The drop-ins in the directories beside the unit, in the order of their names. Those of an instance
/// replace those of its template that have the same name.
fn drop_ins(path: &Path) -> Vec<String> {
    let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for unit in template(path).iter().map(PathBuf::as_path).chain([path]) {
        let mut folder = unit.as_os_str().to_owned();
        folder.push(".d");
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let entries = entries.map(|entry| (entry.file_name(), entry.path()));
        found.extend(entries.filter(|(_, path)| path.extension() == Some(OsStr::new("conf"))));
    }
    found.values().filter_map(|path| read(path).ok()).collect()
}

/// The text of a file, without the byte order mark that editors of Windows put at its beginning: systemd,
/// for one, skips it.
fn read(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    Ok(String::from_utf8_lossy(bytes).into_owned())
}
