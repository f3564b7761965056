//! A recipe: how to run one server below listend, as `tests/servers/*.yaml` has it.

use super::source::{Source, cache, crates};
use crate::harness::load::{Answer, Question};
use crate::harness::{free_port, servers};
use serde::Deserialize;
use serde_yaml::{Mapping, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where it is from.
    pub from: Source,
    /// What else must be there.
    #[serde(default)]
    pub also: Vec<Source>,
    /// Its listeners, in this order. Their names in the configuration are those of their kinds.
    pub sockets: Vec<Kind>,
    /// Names that the server wants its listeners to have.
    #[serde(default)]
    pub names: BTreeMap<Kind, String>,
    /// It takes one listener; `$SOCKET` is its name.
    #[serde(default)]
    pub one_at_a_time: bool,
    pub ask: Asked,
    /// Files that it needs, by name.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Commands for sh that make what it needs.
    #[serde(default)]
    pub prepare: Option<String>,
    /// What else is in the configuration: listeners and workers.
    #[serde(default)]
    pub beside: BTreeMap<String, Mapping>,
    /// The worker, as in listend.yaml.
    pub worker: Mapping,
    /// Who is lost in a rolling restart, and why, where somebody may be.
    #[serde(default)]
    pub loses: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Tcp,
    Unix,
    Udp,
}

/// What clients ask.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Asked {
    /// `http`, `dns`, `fastcgi` for the ping page, or `tls` for a certificate.
    Known(String),
    /// The answer of a script of FastCGI.
    Script { fastcgi: String, expect: String },
    Text {
        #[serde(default)]
        send: String,
        expect: String,
    },
    /// In hexadecimal digits.
    Bytes {
        send_hex: String,
        expect_hex: String,
    },
}

/// The folder of the recipes.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers")
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> T {
    let at = path.display();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{at}: {error}"));
    // Through JSON: serde_yaml wants a tag for an enumeration.
    let value: serde_json::Value =
        serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{at}: {error}"));
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{at}: {error}"))
}

/// All recipes, by name.
pub fn recipes() -> BTreeMap<String, Recipe> {
    let entries = fs::read_dir(folder().join("recipes")).expect("the recipes");
    let mut all = BTreeMap::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        let some: BTreeMap<String, Recipe> = read(&path);
        for (name, recipe) in some {
            let other = all.insert(name.clone(), recipe);
            assert!(other.is_none(), "{name} is there twice");
        }
    }
    all
}

/// A server that does not work.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Other {
    pub from: Source,
    /// What was tried.
    pub tried: String,
    /// What was seen then.
    pub seen: String,
    /// Why, and what to do.
    pub why: String,
}

/// Those that do not work, by name.
pub fn others() -> BTreeMap<String, Other> {
    read(&folder().join("others.yaml"))
}

impl Recipe {
    /// The version of the server, if it and all that it needs are installed.
    pub fn version(&self) -> Option<String> {
        let all_there = self.also.iter().all(|source| source.version().is_some());
        self.from.version().filter(|_| all_there)
    }

    /// What a listener of this kind is called.
    pub fn name_of(&self, kind: Kind) -> String {
        self.names
            .get(&kind)
            .cloned()
            .unwrap_or_else(|| kind.name().to_owned())
    }

    /// What a client of a listener of this kind asks.
    pub fn question(&self, kind: Kind, places: &Places) -> Question {
        let (send, wanted) = match &self.ask {
            Asked::Known(word) if word == "http" => {
                return Question {
                    pause: PAUSE,
                    ..Question::http()
                };
            }
            Asked::Known(word) if word == "dns" => dns(kind != Kind::Udp),
            Asked::Known(word) if word == "fastcgi" => {
                (servers::fastcgi("/ping"), b"pong".to_vec())
            }
            // A server says hello with its version, and shows its certificate: a handshake record.
            Asked::Known(word) if word == "tls" => (bytes(CLIENT_HELLO), vec![0x16, 3, 3]),
            Asked::Known(word) => panic!("nobody knows {word}"),
            Asked::Script { fastcgi, expect } => {
                (servers::fastcgi(fastcgi), expect.clone().into_bytes())
            }
            Asked::Text { send, expect } => {
                (places.fill(send).into_bytes(), expect.clone().into_bytes())
            }
            Asked::Bytes {
                send_hex,
                expect_hex,
            } => (bytes(send_hex), bytes(expect_hex)),
        };
        let answer = match kind {
            Kind::Udp => Answer::Datagram(wanted),
            Kind::Tcp | Kind::Unix => Answer::Bytes(wanted),
        };
        Question {
            send,
            answer,
            pause: PAUSE,
        }
    }

    /// A key of the worker, as text.
    pub fn key(&self, name: &str) -> Option<String> {
        let text = serde_yaml::to_string(self.worker.get(name)?).expect("YAML");
        Some(text.trim().to_owned())
    }

    /// Whether it is told the numbers of its descriptors.
    pub fn takes_numbers(&self) -> bool {
        let has = |name| self.key(name).is_some_and(|text| text.contains("{fd"));
        has("command") || has("environment")
    }

    /// Whether there may be no process while nobody asks.
    pub fn is_started_by_clients(&self) -> bool {
        self.key("activation").is_some_and(|word| word != "eager")
    }

    pub fn is_per_connection(&self) -> bool {
        self.key("activation")
            .is_some_and(|word| word == "per-connection")
    }
}

/// Enough that a server that starts gets the processor, and that several are tried at a time.
const PAUSE: Duration = Duration::from_millis(40);

/// Of TLS 1.2, for the name `localhost`, as OpenSSL writes it.
const CLIENT_HELLO: &str = "\
    16030100970100009303038fbda30d3c605405366261677e4ae5bccb8744340551f137a3baa9573126e9 \
    d4000006c02fc02b00ff010000640000000e000c0000096c6f63616c686f7374000b000403000102000a \
    000c000a001d0017001e00190018002300000016000000170000000d002a002804030503060308070808 \
    0809080a080b080408050806040105010601030303010302040205020602";

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Unix => "unix",
            Kind::Udp => "udp",
        }
    }
}

/// The address of `example.test`, and a part of the answer: its record's data.
fn dns(with_length: bool) -> (Vec<u8>, Vec<u8>) {
    let mut query = bytes("1234010000010000000000000765786d61706c6504746573740000010001");
    // example.test
    query[13..20].copy_from_slice(b"example");
    let mut message = Vec::new();
    if with_length {
        message.extend(u16::try_from(query.len()).expect("short").to_be_bytes());
    }
    message.extend(query);
    (message, vec![192, 0, 2, 1])
}

fn bytes(digits: &str) -> Vec<u8> {
    let digits: Vec<char> = digits.chars().filter(|one| !one.is_whitespace()).collect();
    let pair = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
    digits
        .chunks(2)
        .map(|two| pair(two).expect("hexadecimal digits"))
        .collect()
}

/// What stands for what in a recipe, for one run of it.
pub struct Places(Vec<(String, String)>);

impl Places {
    /// As a reader of the page knows them.
    pub fn of_page(recipe: &Recipe) -> Places {
        let socket = recipe.sockets.first().map(|kind| recipe.name_of(*kind));
        let all = [
            ("$UNPACKED/", "/"),
            ("$VENV", "/srv/venv"),
            ("$NPM", "/srv"),
            ("$CACHE/", "/srv/"),
            ("$CRATES/", "/srv/"),
            ("$APPS", "/srv/app"),
            ("$HERE/apps", "/srv/app"),
            ("$DIR", "/srv/server"),
            ("$LISTEND", "/usr/bin/listend"),
            ("$SOCKET", &socket.unwrap_or_default()),
            ("$TCP", "127.0.0.1:8080"),
            ("$PORT", "8080"),
            ("$UNIX", "/run/server.sock"),
        ];
        Places(
            all.map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
        )
    }

    pub fn new(dir: &Path, listend: &Path, socket: &str, unpacked: Option<&str>) -> (Places, u16) {
        let port = free_port();
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let cache = cache();
        let unpacked = cache.join("unpacked").join(unpacked.unwrap_or_default());
        let all = [
            ("$DIR", text(dir)),
            ("$LISTEND", text(listend)),
            ("$SOCKET", socket.to_owned()),
            ("$PORT", port.to_string()),
            ("$TCP", format!("127.0.0.1:{port}")),
            ("$UNIX", text(&dir.join("server.sock"))),
            ("$VENV", text(&cache.join("venv"))),
            ("$NPM", text(&cache.join("npm"))),
            ("$CACHE", text(&cache)),
            ("$CRATES", text(&crates())),
            ("$UNPACKED", text(&unpacked)),
            ("$APPS", servers::apps()),
            ("$HERE", text(&folder())),
        ];
        let all = all.map(|(name, text)| (name.to_owned(), text));
        (Places(all.into()), port)
    }

    /// Fills them in.
    pub fn fill(&self, text: &str) -> String {
        let put = |text: String, (name, value): &(String, String)| text.replace(name, value);
        self.0.iter().fold(text.to_owned(), put)
    }

    /// Fills them in wherever there is text.
    pub fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Sequence(all) => all.iter().map(|one| self.fill_value(one)).collect(),
            Value::Mapping(all) => {
                let pair = |(name, value): (&Value, &Value)| (name.clone(), self.fill_value(value));
                Value::Mapping(all.iter().map(pair).collect())
            }
            _ => value.clone(),
        }
    }
}
