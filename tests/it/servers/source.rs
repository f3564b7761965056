//! Where a server is from, and which version of it is installed.

use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

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
    /// A crate that the program of tests/servers/rust is built with.
    Crate(String),
    /// The sample worker.
    Listend(String),
}

/// Where the program with the servers of crates.io is, which this builds if it is not there.
pub fn crates() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("servers/debug")
}

/// Whether that program is there, as its lock file has it.
pub fn are_crates_built() -> bool {
    static BUILT: OnceLock<bool> = OnceLock::new();
    *BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(lock_of_crates().with_extension("toml"))
            .arg("--target-dir")
            .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("servers"))
            .status();
        status.is_ok_and(|status| status.success())
    })
}

fn lock_of_crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/rust/Cargo.lock")
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
            Source::Go(name) => {
                let is_built = cache().join("go/server").exists();
                Source::Debian(name.clone()).version().filter(|_| is_built)
            }
            Source::Crate(name) => {
                let lock = fs::read_to_string(lock_of_crates()).ok()?;
                let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
                let version = rest.split('"').next()?;
                are_crates_built().then(|| version.to_owned())
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
