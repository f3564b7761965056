//! nginx and Angie: `listen` against the listeners.
//!
//! nginx takes an inherited socket for a `listen` with the very same address; one that no `listen` has it
//! closes, and a `listen` that nobody passes it binds itself.

use super::file::Reader;
use super::server::{Address, Server};
use crate::report::Problem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The port of a `listen` without one.
const HTTP_PORT: u16 = 80;
/// No file includes another one deeper.
const DEEPEST: usize = 10;

pub(super) fn advise(server: &Server) -> Vec<Problem> {
    let Some(path) = main_file(server) else {
        return Vec::new();
    };
    let mut reader = Reader::new(server.files);
    let mut found = Found {
        folder: path.parent().map_or_else(PathBuf::new, Path::to_owned),
        blocks: Vec::new(),
        listens: Vec::new(),
        unclear: false,
        user: None,
    };
    found.file(&path, 0, &mut reader);
    if found.listens.is_empty() {
        return Vec::new();
    }
    let complete = !reader.incomplete && !found.unclear;
    let mut advice = compare(server, &found.listens, &path, complete);
    if complete {
        let user = found.user.as_deref().unwrap_or("another user");
        let instead = format!("`user root;` in {}", path.display());
        advice.extend(server.cannot_become(user, "it ends at once", &instead));
    }
    advice
}

/// The file of `-c`; otherwise where packages have it.
fn main_file(server: &Server) -> Option<PathBuf> {
    let default = match server.name() {
        "angie" => "/etc/angie/angie.conf",
        _ => "/etc/nginx/nginx.conf",
    };
    let Some(file) = server.option(&["-c"]) else {
        // With another prefix, it is another file, and what is compiled in is not known.
        return server.option(&["-p"]).is_none().then(|| default.into());
    };
    let path = match server.option(&["-p"]) {
        Some(prefix) => Path::new(prefix).join(file),
        None => PathBuf::from(file),
    };
    (path.is_absolute() && !file.contains('{')).then_some(path)
}

fn compare(server: &Server, listens: &[Listen], path: &Path, complete: bool) -> Vec<Problem> {
    let name = server.name();
    let sockets = server.sockets();
    let mut advice = Vec::new();
    let mut said: Vec<&Address> = Vec::new();
    for listen in listens {
        let Listen {
            address,
            at,
            reuseport,
            ..
        } = listen;
        if *reuseport {
            let message = format!(
                "`reuseport` of `listen {}` ({at}) makes {name} open sockets of its own beside the \
                 listener; the connections that the kernel gives to them are lost when it ends",
                listen.text
            );
            advice.push(server.configuration(message, "delete `reuseport`"));
        }
        let is_passed = |address: &Address| sockets.iter().any(|(_, one)| one == address);
        // nginx binds the wildcard address only, if there is a `listen` for that as well.
        let is_covered = address.wildcard().is_some_and(|every| {
            every != *address && listens.iter().any(|one| one.address == every)
        });
        if is_passed(address) || is_covered || said.contains(&address) {
            continue;
        }
        said.push(address);
        let near = sockets.iter().find(|(_, one)| {
            one.port().is_some()
                && one.port() == address.port()
                && !listens.iter().any(|l| l.address == *one)
        });
        let message = format!(
            "none of its listeners has the address {address} of `listen {}` ({at}), so {name} binds that \
             itself, and clients are refused whenever it restarts",
            listen.text
        );
        let hint = match near {
            Some((listener, other)) => format!(
                "{name} takes a socket of exactly the same address, and `{listener}` is {other}: write \
                 the same in both"
            ),
            None => format!("add a listener for {address} to the worker"),
        };
        advice.push(server.configuration(message, hint));
    }
    for (listener, address) in sockets.iter().filter(|_| complete) {
        if listens.iter().any(|listen| listen.address == *address) {
            continue;
        }
        let message = format!(
            "{name} closes the listener `{listener}`: no `listen` in {} has the address {address}",
            path.display()
        );
        let udp = match address {
            Address::Datagram(_) => " udp",
            Address::Inet(_) | Address::Path(_) => "",
        };
        advice.push(server.configuration(message, format!("write `listen {address}{udp};`")));
    }
    advice
}

struct Listen {
    address: Address,
    /// The address as it is written.
    text: String,
    /// File and line.
    at: String,
    reuseport: bool,
}

struct Found {
    /// The folder that includes start from.
    folder: PathBuf,
    /// The names of the blocks around, and whether a `listen` was in them.
    blocks: Vec<(String, bool)>,
    listens: Vec<Listen>,
    /// Whether an address was not understood.
    unclear: bool,
    /// Whom the processes that serve run as.
    user: Option<String>,
}

impl Found {
    fn file(&mut self, path: &Path, depth: usize, reader: &mut Reader) {
        if depth > DEEPEST {
            return reader.incomplete = true;
        }
        let Some(text) = reader.text(path) else {
            return;
        };
        let mut words: Vec<String> = Vec::new();
        let mut first = 0;
        for (line, token) in tokens(&text) {
            match token {
                Token::Word(word) => {
                    if words.is_empty() {
                        first = line;
                    }
                    words.push(word);
                }
                Token::Open => {
                    let name = words.drain(..).next().unwrap_or_default();
                    self.blocks.push((name, false));
                }
                Token::Close => {
                    self.close(path, line);
                    words.clear();
                }
                Token::End => {
                    self.directive(
                        &words,
                        &format!("{}:{first}", path.display()),
                        depth,
                        reader,
                    );
                    words.clear();
                }
            }
        }
    }

    /// A server of `http` without a `listen` is at port 80.
    fn close(&mut self, path: &Path, line: usize) {
        let closed = self.blocks.pop();
        let is_http = self.blocks.last().is_some_and(|(name, _)| name == "http");
        if is_http && closed.is_some_and(|(name, listens)| name == "server" && !listens) {
            self.listens.push(Listen {
                address: Address::Inet((Ipv4Addr::UNSPECIFIED, HTTP_PORT).into()),
                text: format!("*:{HTTP_PORT}"),
                at: format!(
                    "the default of the server that ends at {}:{line}",
                    path.display()
                ),
                reuseport: false,
            });
        }
    }

    fn directive(&mut self, words: &[String], at: &str, depth: usize, reader: &mut Reader) {
        match words {
            [name, file] if name == "include" => {
                for file in reader.matching(&self.folder.join(file)) {
                    self.file(&file, depth + 1, reader);
                }
            }
            [name, user, ..] if name == "user" && self.blocks.is_empty() => {
                self.user = Some(user.clone());
            }
            [name, address, options @ ..] if name == "listen" => {
                if let Some((_, has_listen)) = self.blocks.last_mut() {
                    *has_listen = true;
                }
                let is = |word: &str| options.iter().any(|option| option == word);
                let is_udp = is("udp") || is("quic");
                let addresses = parse(address, is_udp);
                self.unclear |= addresses.is_empty();
                self.listens
                    .extend(addresses.into_iter().map(|parsed| Listen {
                        address: parsed,
                        text: address.clone(),
                        at: at.to_owned(),
                        reuseport: is("reuseport"),
                    }));
            }
            _ => {}
        }
    }
}

/// The addresses of a `listen`; none if it is a name that has to be looked up.
fn parse(text: &str, is_udp: bool) -> Vec<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        return vec![Address::Path(path.to_owned())];
    }
    let is_number =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let default_port = HTTP_PORT.to_string();
    let (host, ports) = if text.starts_with('[') {
        match text.rsplit_once("]:") {
            Some((host, port)) => (host.trim_start_matches('['), port),
            None => (text.trim_matches(['[', ']']), default_port.as_str()),
        }
    } else if is_number(text) {
        ("*", text)
    } else {
        text.split_once(':').unwrap_or((text, &default_port))
    };
    let hosts: Vec<IpAddr> = match host {
        "*" => vec![Ipv4Addr::UNSPECIFIED.into()],
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        _ => host.parse().ok().into_iter().collect(),
    };
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    let (Ok(low), Ok(high)) = (low.parse::<u16>(), high.parse::<u16>()) else {
        return Vec::new();
    };
    let address = |ip: IpAddr, port: u16| {
        let address = SocketAddr::new(ip, port);
        if is_udp {
            Address::Datagram(address)
        } else {
            Address::Inet(address)
        }
    };
    let with_ports = hosts.into_iter();
    with_ports
        .flat_map(|ip| (low..=high).map(move |port| address(ip, port)))
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// The text taken apart as nginx does it, each token with its line.
fn tokens(text: &str) -> Vec<(usize, Token)> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut line = 1;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let start = line;
        line += usize::from(letter == '\n');
        if let Some(mark) = quote {
            match letter {
                '\\' => word.get_or_insert_default().extend(letters.next()),
                _ if letter == mark => quote = None,
                _ => word.get_or_insert_default().push(letter),
            }
            continue;
        }
        let token = match letter {
            ';' => Token::End,
            // `${name}` is a part of a word.
            '{' if word.as_ref().is_some_and(|word| word.ends_with('$')) => {
                let word = word.get_or_insert_default();
                word.push('{');
                for inner in letters.by_ref() {
                    word.push(inner);
                    if inner == '}' {
                        break;
                    }
                }
                continue;
            }
            '{' => Token::Open,
            '}' => Token::Close,
            '#' if word.is_none() => {
                while letters.next_if(|letter| *letter != '\n').is_some() {}
                continue;
            }
            '"' | '\'' if word.is_none() => {
                quote = Some(letter);
                word = Some(String::new());
                continue;
            }
            '\\' => {
                word.get_or_insert_default().extend(letters.next());
                continue;
            }
            _ if letter.is_ascii_whitespace() => {
                tokens.extend(word.take().map(|word| (start, Token::Word(word))));
                continue;
            }
            _ => {
                word.get_or_insert_default().push(letter);
                continue;
            }
        };
        tokens.extend(word.take().map(|word| (start, Token::Word(word))));
        tokens.push((start, token));
    }
    tokens
}
