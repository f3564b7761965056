//! A recipe: how to run one server below listend, as `tests/servers/*.yaml` has it.

use crate::harness::load::{Answer, Question};
use crate::harness::{free_port, servers};
use serde::Deserialize;
use serde_yaml::{Mapping, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
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
    /// The worker, as in listend.yaml.
    pub worker: Mapping,
    /// How it gets its sockets, where the worker does not show it.
    #[serde(default)]
    pub dialect: Option<String>,
    /// Who is lost in a rolling restart, and why, where somebody may be.
    #[serde(default)]
    pub loses: Option<String>,
}

/// Where a server is from.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A package that is installed.
    Debian(String),
    /// A package that cannot be installed beside others, and is unpacked.
    Unpacked(String),
    Pypi(String),
    Npm(String),
    /// A program of tests/servers/rust.
    Crate(String),
    /// The sample worker.
    Listend(String),
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
    /// `http`, `dns` or `fastcgi`.
    Known(String),
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

/// Where scripts/server-setup puts what it installs.
pub fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let home = || variable("HOME").unwrap_or_else(|| "/root".into());
    let base = || variable("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"));
    let ours = variable("LISTEND_CACHE").unwrap_or_else(|| base().join("listend"));
    ours.join("servers")
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

/// Those that take no socket: why, by name.
pub fn others() -> BTreeMap<String, String> {
    read(&folder().join("others.yaml"))
}

impl Source {
    /// How the page calls it.
    pub fn words(&self) -> String {
        match self {
            Source::Debian(name) | Source::Unpacked(name) => format!("Debian {name}"),
            Source::Pypi(name) => format!("PyPI {name}"),
            Source::Npm(name) => format!("npm {name}"),
            Source::Crate(name) => format!("crate {name}"),
            Source::Listend(name) => format!("listend {name}"),
        }
    }

    /// The version that is installed, if one is.
    pub fn version(&self) -> Option<String> {
        match self {
            Source::Debian(name) => {
                let words = [
                    "-W",
                    "-f",
                    "${db:Status-Status} ${source:Upstream-Version}",
                    name,
                ];
                let text = output("dpkg-query", &words)?;
                text.strip_prefix("installed ").map(str::to_owned)
            }
            Source::Unpacked(name) => {
                let path = cache().join("unpacked").join(name).join("version");
                Some(fs::read_to_string(path).ok()?.trim().to_owned())
            }
            Source::Pypi(name) => {
                let script = format!("import importlib.metadata as m; print(m.version('{name}'))");
                output(cache().join("venv/bin/python").to_str()?, &["-c", &script])
            }
            Source::Npm(name) => {
                let path = cache()
                    .join("npm/node_modules")
                    .join(name)
                    .join("package.json");
                let text = fs::read_to_string(path).ok()?;
                let package: serde_json::Value = serde_json::from_str(&text).ok()?;
                package["version"].as_str().map(str::to_owned)
            }
            Source::Crate(name) => {
                let lock = fs::read_to_string(folder().join("rust/Cargo.lock")).ok()?;
                let is_built = cache().join("rust").join(name).exists();
                let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
                is_built.then(|| rest.split('"').next().unwrap_or_default().to_owned())
            }
            Source::Listend(_) => Some(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }
}

/// What a command that succeeds says.
fn output(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
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
    pub fn question(&self, kind: Kind) -> Question {
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
            Asked::Known(word) => panic!("nobody knows {word}"),
            Asked::Text { send, expect } => {
                (send.clone().into_bytes(), expect.clone().into_bytes())
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

    /// How it gets its sockets.
    pub fn dialect(&self) -> String {
        if let Some(dialect) = &self.dialect {
            return dialect.clone();
        }
        let handoff = match self.worker.get("handoff") {
            Some(Value::Sequence(all)) => {
                let words: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
                words.join(", ")
            }
            Some(word) => word.as_str().unwrap_or_default().to_owned(),
            None if self
                .key("command")
                .is_some_and(|words| words.contains("{fd:")) =>
            {
                "number".to_owned()
            }
            None => "systemd".to_owned(),
        };
        match self.is_per_connection() {
            true => format!("{handoff}, per connection"),
            false => handoff,
        }
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

/// Enough that a server that starts gets the processor.
const PAUSE: Duration = Duration::from_millis(4);

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
