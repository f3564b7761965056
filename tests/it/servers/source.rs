//! Where a server is from, and which version of it is installed.

use serde::Deserialize;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

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
    /// A Debian package that the program of tests/servers/go is built with.
    Go(String),
    /// The sample worker.
    Listend(String),
}

/// Where scripts/server-setup puts what it installs.
pub fn cache() -> PathBuf {
    crate::harness::cache().join("servers")
}

impl Source {
    /// How the page calls it.
    pub fn words(&self) -> String {
        match self {
            Source::Debian(name) | Source::Unpacked(name) | Source::Go(name) => {
                format!("Debian {name}")
            }
            Source::Pypi(name) => format!("PyPI {name}"),
            Source::Npm(name) => format!("npm {name}"),
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
            Source::Go(name) => {
                let is_built = cache().join("go/server").exists();
                Source::Debian(name.clone()).version().filter(|_| is_built)
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
