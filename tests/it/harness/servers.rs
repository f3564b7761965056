//! Real servers, and the small applications in tests/apps that they run.

use super::skip;
use std::path::{Path, PathBuf};

/// The environment of Python that scripts/test-setup makes.
pub fn environment() -> PathBuf {
    let profile = Path::new(env!("CARGO_BIN_EXE_listend")).parent();
    let target = profile.and_then(Path::parent).expect("target/PROFILE");
    target.join("venv/bin")
}

/// A program of the environment that scripts/test-setup makes, or of this machine; skips without.
pub fn server(name: &str) -> Option<PathBuf> {
    server_that_says(name, "--version")
}

/// The same, for a program that tells its version when it is asked in another way.
pub fn server_that_says(name: &str, version: &str) -> Option<PathBuf> {
    // A shim of a version manager is there even where the program is not, and an environment
    // belongs to an interpreter that not everybody may execute.
    let works = |path: &PathBuf| {
        let run = std::process::Command::new(path).arg(version).output();
        run.is_ok_and(|output| output.status.success())
    };
    // Where servers are, also for those whose PATH has no such folder.
    let system = Path::new("/usr/sbin").join(name);
    let places = [
        Some(environment().join(name)),
        super::tool(name),
        Some(system),
    ];
    let found = places.into_iter().flatten().find(works);
    if found.is_none() {
        skip(&format!("{name} is not installed; see scripts/test-setup"));
    }
    found
}

/// The folder of the small applications.
pub fn apps() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps");
    path.to_str().expect("UTF-8").to_owned()
}

/// The words behind which a worker can mount, and the command of one whose memory does not answer.
pub fn silent(mode: &str) -> Option<([&'static str; 4], String)> {
    if !super::require_root()
        || super::require_tool("python3").is_none()
        || super::require_tool("unshare").is_none()
    {
        return None;
    }
    if !Path::new("/dev/fuse").exists() {
        skip("no /dev/fuse");
        return None;
    }
    let words = ["unshare", "--mount", "--propagation=private", "--"];
    let script = format!("{}/silent.py", apps());
    Some((words, format!("[python3, {script}, {mode}, $DIR/mnt")))
}

/// A request for this script, as the FastCGI specification has it: begin, parameters, no input.
pub fn fastcgi(script: &str) -> Vec<u8> {
    const RESPONDER: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
    let record = |kind: u8, content: &[u8]| {
        let mut record = vec![1, kind, 0, 1, 0, content.len() as u8, 0, 0];
        record.extend(content);
        record
    };
    let parameters = [
        "REQUEST_METHOD=GET".to_owned(),
        "SERVER_PROTOCOL=HTTP/1.0".to_owned(),
        format!("SCRIPT_NAME={script}"),
        format!("SCRIPT_FILENAME={script}"),
    ];
    let pairs = parameters.iter().flat_map(|parameter| {
        let (name, value) = parameter.split_once('=').expect("a pair");
        let mut pair = vec![name.len() as u8, value.len() as u8];
        pair.extend(name.bytes().chain(value.bytes()));
        pair
    });
    let pairs: Vec<u8> = pairs.collect();
    [
        record(1, &RESPONDER),
        record(4, &pairs),
        record(4, &[]),
        record(5, &[]),
    ]
    .concat()
}
