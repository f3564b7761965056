//! php-fpm: `listen` of the pools against the listeners.
//!
//! php-fpm takes an inherited socket for a pool with the same address. An inherited one that no pool has it
//! closes at its start, and removes the path of it. When it stops it removes the paths of all, by the names
//! that it was told: one that leads nowhere protects the path that clients use.

use super::file::Reader;
use super::server::{Address, Server};
use crate::report::Problem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// No file includes another one deeper.
const DEEPEST: usize = 4;

pub(super) fn advise(server: &Server) -> Vec<Problem> {
    let Some(path) = main_file(server) else {
        return Vec::new();
    };
    let mut reader = Reader::new(server.files);
    let mut found = FpmSettings::default();
    found.file(&path, 0, &mut reader);
    let mut advice = Vec::new();
    let sockets = server.sockets();
    let told = names(server);
    for pool in &found.pools {
        let Pool { name, listen, at } = pool;
        let taken = addresses(listen);
        if taken.is_empty()
            || told.contains(listen)
            || taken
                .iter()
                .any(|one| sockets.iter().any(|(_, two)| two == one))
        {
            continue;
        }
        let near = sockets.iter().find(|(_, other)| {
            other.port().is_some() && taken.iter().any(|one| one.port() == other.port())
        });
        let message = format!(
            "none of its listeners has the address of pool `{name}`, `listen = {listen}` ({at}), so \
             php-fpm binds that itself, and clients are refused whenever it restarts"
        );
        let hint = match near {
            Some((listener, other)) => format!(
                "php-fpm takes a socket of exactly the same address, and `{listener}` is {other}: \
                 write the same in both"
            ),
            None => "add a listener for it to the worker".to_owned(),
        };
        advice.push(server.configuration(message, hint));
    }
    if let Some(user) = &found.user {
        let ends = "the processes of its pools end at once, again and again";
        let instead = "`capabilities: [CAP_KILL, CAP_SETGID, CAP_SETUID]` in the sandbox";
        advice.extend(server.cannot_become(user, ends, instead));
    }
    if found.pools.is_empty() || reader.incomplete {
        return advice;
    }
    let of_pools: Vec<Address> = found
        .pools
        .iter()
        .flat_map(|pool| addresses(&pool.listen))
        .collect();
    let is_clear = found
        .pools
        .iter()
        .all(|pool| !addresses(&pool.listen).is_empty());
    for (listener, address) in sockets.iter().filter(|_| is_clear && told.is_empty()) {
        if of_pools.contains(address) {
            if let Address::Path(path) = address {
                advice.push(removed(server, listener, path));
            }
            continue;
        }
        let (what, text) = match address {
            Address::Path(path) => ("removes the path of", path.clone()),
            Address::Inet(inet) | Address::Datagram(inet) => ("closes", inet.to_string()),
        };
        let message = format!(
            "php-fpm {what} the listener `{listener}` at its start: no pool in {} has \
             `listen = {text}`",
            path.display()
        );
        advice.push(server.configuration(message, format!("write `listen = {text}` in a pool")));
    }
    let drains = found
        .control_timeout
        .is_some_and(|time| !time.trim_matches('0').is_empty());
    if !drains {
        let message = format!(
            "php-fpm cuts the requests that it serves when it stops: {} has no \
             `process_control_timeout`",
            path.display()
        );
        let hint = "write `process_control_timeout = 20s` under [global], less than `stop_timeout`";
        advice.push(server.configuration(message, hint));
    }
    advice
}

/// The names in FPM_SOCKETS, where the worker's `environment` has it.
fn names(server: &Server) -> Vec<String> {
    let environment = server.worker.environment.iter();
    let text = environment.filter(|(name, _)| name == "FPM_SOCKETS");
    let text = text.map(|(_, value)| value.to_string()).collect::<String>();
    let entries = text.split(',').filter_map(|entry| entry.split_once('='));
    entries.map(|(name, _)| name.to_owned()).collect()
}

fn removed(server: &Server, listener: &str, path: &str) -> Problem {
    let message = format!(
        "php-fpm removes {path} of the listener `{listener}` when it stops; listend restores it, and \
         clients that connect in between are refused"
    );
    let hint = format!(
        "give php-fpm a name that it cannot remove: `listen = /nonexistent/{listener}.sock` in the pool, \
         and in the worker `handoff: none` and `environment: {{FPM_SOCKETS: \
         '/nonexistent/{listener}.sock={{fd:{listener}}}'}}`"
    );
    server.configuration(message, hint)
}

/// The file of `-y`; otherwise where Debian has that of the program's version.
fn main_file(server: &Server) -> Option<PathBuf> {
    if let Some(file) = server.option(&["-y", "--fpm-config"]) {
        return (file.starts_with('/') && !file.contains('{')).then(|| file.into());
    }
    let (_, program) = server
        .words
        .first()?
        .rsplit_once('/')
        .unwrap_or(("", server.words.first()?));
    let version = program
        .strip_prefix("php-fpm")
        .filter(|version| !version.is_empty())?;
    Some(format!("/etc/php/{version}/fpm/php-fpm.conf").into())
}

struct Pool {
    name: String,
    listen: String,
    /// File and line.
    at: String,
}

#[derive(Default)]
struct FpmSettings {
    section: String,
    pools: Vec<Pool>,
    control_timeout: Option<String>,
    /// Whom the processes of a pool run as.
    user: Option<String>,
}

impl FpmSettings {
    fn file(&mut self, path: &Path, depth: usize, reader: &mut Reader) {
        if depth > DEEPEST {
            return reader.incomplete = true;
        }
        for (line, text) in (1..).zip(reader.text(path).unwrap_or_default().lines()) {
            let text = text.trim();
            if let Some(section) = text.strip_prefix('[') {
                section.trim_end_matches(']').clone_into(&mut self.section);
                continue;
            }
            let Some((key, value)) = text.split_once('=').filter(|_| !text.starts_with(';')) else {
                continue;
            };
            let value = value.split_once(" ;").map_or(value, |(value, _)| value);
            let value = value.trim().trim_matches(['"', '\'']);
            match key.trim() {
                "include" => {
                    // What is relative starts from a folder that is compiled in.
                    reader.incomplete |= !value.starts_with('/');
                    for file in reader.matching(Path::new(value)) {
                        self.file(&file, depth + 1, reader);
                    }
                }
                "listen" if self.section != "global" => self.pools.push(Pool {
                    listen: value.replace("$pool", &self.section),
                    name: self.section.clone(),
                    at: format!("{}:{line}", path.display()),
                }),
                "user" if self.section != "global" && value != "root" => {
                    self.user = Some(value.to_owned())
                }
                "process_control_timeout" => self.control_timeout = Some(value.to_owned()),
                _ => {}
            }
        }
    }
}

/// The addresses that a `listen` may mean; none if it is a name that has to be looked up.
fn addresses(listen: &str) -> Vec<Address> {
    if listen.contains('/') {
        return vec![Address::Path(listen.to_owned())];
    }
    if let Ok(port) = listen.parse::<u16>() {
        let every: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        return every
            .map(|ip| Address::Inet(SocketAddr::new(ip, port)))
            .into();
    }
    listen.parse().ok().map(Address::Inet).into_iter().collect()
}
