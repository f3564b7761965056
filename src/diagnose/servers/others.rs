//! Servers of which one line tells whether they take the listeners.

use super::file::Reader;
use super::server::Server;
use crate::report::{Kind, Problem};
use std::path::{Path, PathBuf};

/// What dpkg knows of every package (dpkg(1)).
const DPKG: &str = "/var/lib/dpkg/status";
/// The first release of Caddy that takes a descriptor (`bind fd/3`).
const CADDY_TAKES: (u32, u32) = (2, 9);
/// Where distributions have the modules of Apache.
const APACHE_MODULES: [&str; 4] = [
    "/usr/lib/apache2/modules",
    "/usr/lib64/httpd/modules",
    "/usr/lib/httpd/modules",
    "/usr/libexec/apache2",
];

/// Servers that are told the number of a descriptor.
pub(super) fn number(server: &Server, usage: &str) -> Vec<Problem> {
    // A file may have it.
    let is_file = |word: &String| {
        let endings = [".ini", ".json", ".py", ".toml", ".xml", ".yaml", ".yml"];
        endings.iter().any(|ending| word.ends_with(ending))
    };
    let says_fd = |word: &String| word == "--fd" || word.contains("fd://");
    let has_it = server
        .words
        .iter()
        .any(|word| is_file(word) || says_fd(word));
    let Some(listener) = server
        .first_listener()
        .filter(|_| !has_it && !server.tells_a_number())
    else {
        return Vec::new();
    };
    let message = format!(
        "{} does not get the listener `{listener}`: its command has no number of a descriptor",
        server.name()
    );
    let usage = usage.replace("web", listener);
    vec![server.configuration(message, format!("add `{usage}` to the command"))]
}

pub(super) fn gunicorn(server: &Server) -> Vec<Problem> {
    let mut advice = Vec::new();
    if server.has(&["--reuse-port"]) {
        let message = "gunicorn does not take its listeners with `--reuse-port`".to_owned();
        advice.push(server.configuration(message, "delete `--reuse-port`"));
    }
    let Some(bind) = server.option(&["--bind", "-b"]) else {
        return advice;
    };
    if server.worker.listeners.is_empty() {
        return advice;
    }
    let message = format!(
        "gunicorn ignores `--bind {bind}`: it takes the listeners of the worker, which LISTEN_FDS \
         announces"
    );
    advice.push(server.configuration(message, "delete it, or add a listener with that address"));
    advice
}

pub(super) fn lighttpd(server: &Server) -> Vec<Problem> {
    let path = PathBuf::from(
        server
            .option(&["-f"])
            .unwrap_or("/etc/lighttpd/lighttpd.conf"),
    );
    let option = "server.systemd-socket-activation";
    let (mut takes, mut user) = (false, None);
    let mut files = vec![path.clone()];
    let mut reader = Reader::new(server.files);
    let mut of = 0;
    while let Some(file) = files.get(of).cloned() {
        of += 1;
        let text = reader.text(&file).unwrap_or_default();
        for line in text.lines().map(str::trim) {
            takes |= line.starts_with(option) && !line.contains("disable");
            if let Some(value) = line.strip_prefix("server.username") {
                let value = value.split('"').nth(1).map(str::to_owned);
                user = value.or(user);
            }
            let Some(name) = line.strip_prefix("include ") else {
                continue;
            };
            let folder = path.parent().unwrap_or(Path::new("/"));
            let found = reader.matching(&folder.join(name.trim().trim_matches('"')));
            // Each once: they may include each other.
            let new: Vec<PathBuf> = found
                .into_iter()
                .filter(|file| !files.contains(file))
                .collect();
            files.extend(new);
        }
    }
    let mut advice = Vec::new();
    if !takes && !reader.incomplete && !server.worker.listeners.is_empty() {
        let message = format!(
            "lighttpd does not take the listeners of the worker: {} does not have `{option}`",
            path.display()
        );
        let hint = format!("write `{option} = \"enable\"` in it");
        advice.push(server.configuration(message, hint));
    }
    if let Some(user) = user {
        let instead = "delete `server.username` and `server.groupname`";
        advice.extend(server.cannot_become(&user, "it ends at once", instead));
    }
    advice
}

pub(super) fn apache(server: &Server) -> Vec<Problem> {
    let folders = APACHE_MODULES.map(|folder| server.files.entries(Path::new(folder)));
    let folders: Vec<&Vec<PathBuf>> = folders.iter().flatten().collect();
    let mut modules = folders.iter().flat_map(|folder| folder.iter());
    let has_it = modules.any(|path| path.ends_with("mod_systemd.so"));
    if folders.is_empty() || has_it {
        return Vec::new();
    }
    let message =
        "the Apache that is installed cannot take a listener: it has no mod_systemd".to_owned();
    let hint = "Debian's packages are built without it; that of Fedora and RHEL (httpd) has it";
    vec![server.problem(Kind::ServerSupport, message, hint)]
}

pub(super) fn caddy(server: &Server) -> Vec<Problem> {
    let Some((major, minor)) = caddy_of_dpkg(server).filter(|release| *release < CADDY_TAKES)
    else {
        return Vec::new();
    };
    let (from_major, from_minor) = CADDY_TAKES;
    let message = format!(
        "the Caddy that is installed cannot take a listener: it is version {major}.{minor}, and `bind \
         fd/3` came with {from_major}.{from_minor}"
    );
    let hint = "install a later version, such as from Caddy's own repository of packages";
    vec![server.problem(Kind::ServerSupport, message, hint)]
}

/// The release of Debian's package, if that has the program.
fn caddy_of_dpkg(server: &Server) -> Option<(u32, u32)> {
    let is_packaged = matches!(server.words.first()?.as_str(), "caddy" | "/usr/bin/caddy");
    let text = server.files.text(Path::new(DPKG)).filter(|_| is_packaged)?;
    let mut packages = text.split("\n\n");
    let of_caddy = packages.find(|package| {
        package.starts_with("Package: caddy\n")
            && package.contains("\nStatus: install ok installed")
    })?;
    let mut lines = of_caddy.lines();
    let version = lines.find_map(|line| line.strip_prefix("Version: "))?;
    let version = version
        .split_once(':')
        .map_or(version, |(_, version)| version);
    let mut numbers = version.split(['.', '-', '~', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn haproxy(server: &Server) -> Vec<Problem> {
    let Some(path) = server.option(&["-f"]) else {
        return Vec::new();
    };
    let Some(text) = server.files.text(Path::new(path)) else {
        return Vec::new();
    };
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    let mut advice = Vec::new();
    if let Some(listener) = server.first_listener()
        && !lines.clone().any(|line| line.contains("fd@"))
        // A second `-f` may have it.
        && server.words.iter().filter(|word| word.as_str() == "-f").count() == 1
    {
        let message =
            format!("haproxy does not get the listener `{listener}`: {path} has no `bind fd@`");
        let hint = format!(
            "write `bind fd@${{FD}}` in it, and `environment: {{FD: \"{{fd:{listener}}}\"}}` in the worker"
        );
        advice.push(server.configuration(message, hint));
    }
    // A user of a `userlist` has a password behind the name.
    let user = lines.clone().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["user" | "uid", user] => Some(user),
            _ => None,
        }
    });
    if let Some(user) = user {
        let instead = format!("delete `user` and `group` in {path}");
        advice.extend(server.cannot_become(user, "it ends at once", &instead));
    }
    let is_master =
        server.has(&["-W", "-Ws"]) || lines.any(|line| line.starts_with("master-worker"));
    if !is_master {
        let message =
            "a reload would end haproxy: without `-W` or `-Ws` it does not handle SIGUSR2"
                .to_owned();
        advice.push(server.configuration(message, "add `-Ws` to the command"));
    }
    advice
}

/// Without a `bind` of the same address and without the flag, puma closes what it is given. With the flag
/// alone, it binds its default address as well.
pub(super) fn puma(server: &Server) -> Vec<Problem> {
    if server.has(&["--bind", "-b"]) || server.worker.listeners.is_empty() {
        return Vec::new();
    }
    let flag = "--bind-to-activated-sockets";
    let flag = server.has(&[flag]).then(|| server.option(&[flag]));
    if flag == Some(Some("only")) {
        return Vec::new();
    }
    let file = match (server.option(&["-C", "--config"]), server.folder()) {
        (Some("-"), _) => None,
        (Some(file), None) if !file.starts_with('/') => return Vec::new(),
        (Some(file), folder) => Some(Path::new(folder.unwrap_or("/")).join(file)),
        (None, Some(folder)) => Some(Path::new(folder).join("config/puma.rb")),
        (None, None) => None,
    };
    let text = file
        .and_then(|file| server.files.text(&file))
        .unwrap_or_default();
    if text.contains("bind") || (flag.is_some() && text.contains("port")) {
        return Vec::new();
    }
    let message = match flag {
        Some(_) => "puma binds 0.0.0.0:9292 as well, which its successor finds in use",
        None => "puma closes the listeners of the worker, and binds 0.0.0.0:9292 itself",
    };
    let hint = "write `--bind-to-activated-sockets only` in the command";
    vec![server.configuration(message.to_owned(), hint)]
}
