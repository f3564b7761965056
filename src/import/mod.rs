//! Configurations of other supervisors as YAML of listend.
//!
//! Each format is read by a file of its own into a document: entries with keys, and a comment for each
//! thing that has no equivalent. The YAML that comes of it is read as `listend check` would, and what that
//! refuses becomes a comment with its message, so that no import is refused. Nothing is executed, and no
//! file is opened: the caller has the texts.

mod circus;
mod compose;
mod document;
mod inetd;
mod ini;
mod pm2;
mod procfile;
mod sandbox;
mod supervisord;
mod systemd;
mod systemd_keys;
mod systemd_socket;
mod unit;
mod values;

pub use unit::{Unit, template_of};

use crate::config;

/// A format that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Units of systemd.
    Systemd,
    /// inetd.conf.
    Inetd,
    /// xinetd.conf and the files of /etc/xinetd.d.
    Xinetd,
    /// circus.ini.
    Circus,
    /// supervisord.conf.
    Supervisord,
    /// A Procfile.
    Procfile,
    /// compose.yaml.
    Compose,
    /// ecosystem.config.json.
    Pm2,
}

/// The words for each format.
pub const FORMATS: &[(&str, Format)] = &[
    ("systemd", Format::Systemd),
    ("inetd", Format::Inetd),
    ("xinetd", Format::Xinetd),
    ("circus", Format::Circus),
    ("supervisord", Format::Supervisord),
    ("procfile", Format::Procfile),
    ("compose", Format::Compose),
    ("pm2", Format::Pm2),
];

/// The format of a file, by its name and, where that is used by several, its content.
pub fn format_of(path: &str, text: &str) -> Option<Format> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let lower = name.to_ascii_lowercase();
    let has = |start: &str| {
        text.lines()
            .any(|line| line.trim_start().starts_with(start))
    };
    match lower.rsplit_once('.').map_or("", |(_, end)| end) {
        "socket" | "service" => return Some(Format::Systemd),
        "json" => return Some(Format::Pm2),
        "yaml" | "yml" if has("services:") => return Some(Format::Compose),
        _ => {}
    }
    if lower.starts_with("procfile") {
        Some(Format::Procfile)
    } else if lower.starts_with("inetd") {
        Some(Format::Inetd)
    } else if has("[watcher:") || has("[circus]") {
        Some(Format::Circus)
    } else if has("[program:") || has("[fcgi-program:") || has("[supervisord]") {
        Some(Format::Supervisord)
    } else if folder.ends_with("xinetd.d")
        || lower.starts_with("xinetd")
        || has("service ") && text.contains('{')
    {
        Some(Format::Xinetd)
    } else {
        None
    }
}

/// The names of the units that belong to this one, of those that are there: the service of a socket unit,
/// the socket units of a service. An instance of a template is there with its template.
pub fn counterparts(unit: &Unit, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let is_there = |name: &str| {
        is_there(name) || template_of(name).is_some_and(|template| is_there(&template))
    };
    let mut names = if unit.name.ends_with(".socket") {
        vec![systemd_socket::service_of(unit)]
    } else {
        systemd::sockets_of(unit, is_there)
    };
    // `app@%i.service` in a template is the template.
    for name in names.iter_mut().filter(|name| name.contains("@%")) {
        *name = template_of(name).unwrap_or_default();
    }
    names.retain(|name| is_there(name));
    names
}

/// The YAML for these files, which `listend check` accepts.
///
/// # Errors
///
/// Why a file cannot be read as this format.
pub fn import(format: Format, units: &[Unit]) -> Result<String, String> {
    let all: String = units
        .iter()
        .flat_map(|unit| [unit.text.as_str(), "\n"])
        .collect();
    let mut document = match format {
        Format::Systemd => systemd::import(units),
        Format::Inetd => inetd::inetd(&all),
        Format::Xinetd => inetd::xinetd(&all),
        Format::Circus => circus::import(&all),
        Format::Supervisord => supervisord::import(&all),
        Format::Procfile => procfile::import(&all),
        Format::Compose => compose::import(&tree(units, config::yaml_tree)?),
        Format::Pm2 => {
            let json =
                |_: &str, text: &str| serde_json::from_str(text).map_err(|error| error.to_string());
            pm2::import(&tree(units, json)?)
        }
    };
    if document.is_empty() {
        let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
        let names = names.join(", ");
        document
            .notes
            .push(format!("{names}: no listener or worker is defined"));
    }
    Ok(document.into_yaml())
}

/// The only file, as a tree.
fn tree(
    units: &[Unit],
    parse: impl Fn(&str, &str) -> Result<serde_json::Value, String>,
) -> Result<serde_json::Value, String> {
    let [unit] = units else {
        return Err("give one file of this format at a time".to_owned());
    };
    parse(&unit.name, &unit.text).map_err(|error| format!("{}: {error}", unit.name))
}

#[cfg(test)]
mod tests;
