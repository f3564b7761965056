//! The tarball with the program: its script places what `make install` does, refuses what it cannot do, and
//! takes everything away again.

use super::{INSTALLED, both, files, run};
use crate::harness::package::{self, property};
use crate::harness::{TempDir, container, eventually, listend_path, require_tool};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the script adds, from PREFIX on.
const OWN: &[&str] = &["share/listend/install.sh", "share/listend/installed"];

/// The tarball, unpacked, and the directory in it.
fn unpacked() -> Option<(TempDir, PathBuf)> {
    let package = package::tarball()?;
    let dir = TempDir::new();
    run(Command::new("tar")
        .arg("-xf")
        .arg(package.path())
        .arg("-C")
        .arg(dir.path()));
    let entries = fs::read_dir(dir.path()).expect("list the directory");
    let folders: Vec<PathBuf> = entries.map(|one| one.expect("an entry").path()).collect();
    let [folder] = folders.as_slice() else {
        panic!("not one directory: {folders:?}");
    };
    let name = folder.file_name().and_then(|name| name.to_str());
    let version = env!("CARGO_PKG_VERSION");
    let wanted = format!("listend-{version}-{}-linux-gnu", std::env::consts::ARCH);
    assert_eq!(name, Some(wanted.as_str()));
    let folder = folder.clone();
    Some((dir, folder))
}

/// The script, with places below another root.
fn script(folder: &Path, root: &Path, words: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.arg(folder.join("install.sh")).args(words);
    command.env("DESTDIR", root).output().expect("start sh")
}

#[track_caller]
fn works(output: &Output) -> String {
    assert!(output.status.success(), "{}", both(output));
    both(output)
}

#[track_caller]
fn refuses(output: &Output, why: &str) {
    let said = both(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(why), "{said}");
}

#[test]
fn the_script_places_what_make_installs_and_takes_it_away_but_for_the_configuration() {
    let Some((_dir, folder)) = unpacked() else {
        return;
    };
    let beside: Vec<String> = files(&folder).into_iter().collect();
    for wanted in [
        "CHANGELOG.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "install.sh",
        "requires",
    ] {
        assert!(
            beside.iter().any(|path| path == wanted),
            "{wanted}: {beside:#?}"
        );
    }
    let root = TempDir::new();
    works(&script(&folder, root.path(), &[]));
    let placed = files(root.path());
    let code = placed
        .iter()
        .filter_map(|path| path.strip_prefix("usr/local/"));
    let code: Vec<&str> = code.filter(|path| !path.contains("share/doc/")).collect();
    let mut wanted = [INSTALLED, OWN].concat();
    wanted.sort_unstable();
    assert_eq!(code, wanted);
    assert!(placed.contains("usr/local/share/doc/listend/examples/full.yaml"));
    let config = root.path().join("etc/listend/listend.yaml");
    fs::write(&config, "listeners: {}\n").expect("write");

    // Another version: what that does not have any more goes.
    let list = root.path().join("usr/local/share/listend/installed");
    let gone = "usr/local/share/listend/old/file";
    fs::create_dir_all(root.path().join(gone).parent().expect("a directory")).expect("mkdir");
    fs::write(root.path().join(gone), "").expect("write");
    let known = fs::read_to_string(&list).expect("read");
    fs::write(&list, format!("/{gone}\n{known}")).expect("write");
    works(&script(&folder, root.path(), &[]));
    assert!(!root.path().join(gone).exists());
    assert_eq!(files(root.path()), placed);
    assert_eq!(
        fs::read_to_string(&config).expect("read"),
        "listeners: {}\n"
    );

    // By the script that was placed, without the tarball.
    let own = root.path().join("usr/local/share/listend");
    works(&script(&own, root.path(), &["--uninstall"]));
    let left: Vec<String> = files(root.path()).into_iter().collect();
    assert_eq!(
        left,
        ["etc/listend/conf.d/README", "etc/listend/listend.yaml"]
    );
    refuses(
        &script(&folder, root.path(), &["--uninstall"]),
        "has not installed listend here",
    );
}

#[test]
fn the_script_says_what_it_cannot_do_and_changes_nothing() {
    let Some((_dir, folder)) = unpacked() else {
        return;
    };
    refuses(
        &script(&folder, Path::new("/nowhere"), &["--help"]),
        "unknown argument",
    );
    let root = TempDir::new();
    let unit = root.path().join("usr/lib/systemd/system/listend.service");
    fs::create_dir_all(unit.parent().expect("a directory")).expect("mkdir");
    fs::write(&unit, "").expect("write");
    refuses(
        &script(&folder, root.path(), &[]),
        "a package of this system has installed listend",
    );
    fs::remove_file(&unit).expect("remove");
    let program = root.path().join("usr/local/bin/listend");
    fs::create_dir_all(program.parent().expect("a directory")).expect("mkdir");
    fs::write(&program, "mine").expect("write");
    refuses(
        &script(&folder, root.path(), &[]),
        "this script has not installed it",
    );
    assert_eq!(files(root.path()).len(), 1);
}

#[test]
fn the_oldest_glibc_is_that_of_the_strongest_symbol() {
    if require_tool("objdump").is_none() {
        return;
    }
    let said = run(Command::new("sh")
        .arg("scripts/oldest-glibc")
        .arg(listend_path()));
    let parts: Vec<u32> = said
        .trim()
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    assert!(matches!(parts.as_slice(), [2, 17..=60]), "{said}");
}

#[test]
fn the_bill_of_materials_has_what_is_linked_and_nothing_of_the_tests() {
    if require_tool("make").is_none() || !package::has_tool("cargo-cyclonedx") {
        return;
    }
    let dir = TempDir::new();
    let packages = format!("PACKAGES={}", dir.path().display());
    run(Command::new("make").args(["--silent", "sbom", "SBOM_FLAGS=found", &packages]));
    let file = format!("listend-{}.cdx.json", env!("CARGO_PKG_VERSION"));
    let text = fs::read_to_string(dir.path().join(file)).expect("read");
    let bill: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(bill["metadata"]["component"]["name"], "listend");
    let parts = bill["components"].as_array().expect("a list");
    let has = |name: &str| parts.iter().any(|part| part["name"] == name);
    assert!(
        has("nix") && has("saphyr-parser") && !has("proptest"),
        "{text}"
    );
}

#[test]
fn a_booted_debian_runs_what_the_script_has_installed() {
    let Some((_dir, folder)) = unpacked() else {
        return;
    };
    let Some(container) = container::boot() else {
        return;
    };
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(&folder).arg(container.path("/opt/new"));
    run(&mut copy);
    let install = ["sh", "/opt/new/install.sh"];
    let refused = |why: &str, words: &[&str]| {
        refuses(&container.output(words.iter().copied()), why);
        assert!(!container.path("/usr/local/bin/listend").exists());
    };
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    refused("only root", &[&nobody[..], &install].concat());
    let requires = container.read("/opt/new/requires").expect("a file");
    container.write(
        "/opt/new/requires",
        &requires.replace("machine=", "machine=not-"),
    );
    refused("the program is for not-", &install);
    container.write("/opt/new/requires", &requires.replace("glibc=", "glibc=9"));
    let program = "/opt/new/files/usr/local/bin/listend";
    container.run(["mv", program, "/opt/program"]);
    // What the loader says of a program that needs a later one has the same status.
    container.write(
        program,
        "#!/bin/sh\necho version GLIBC_9 not found >&2\nexit 1\n",
    );
    container.run(["chmod", "755", program]);
    refused("it needs glibc 92", &install);
    container.run(["mv", "/opt/program", program]);
    container.write("/opt/new/requires", &requires);

    let said = container.run(install);
    assert!(said.contains("systemctl enable --now listend"), "{said}");
    container.write(
        "/etc/listend/listend.yaml",
        "listeners: { web: '127.0.0.1:20000' }\n\
         workers: { app: { command: ['{listend}', hello-worker], listeners: [web], user: listend } }\n",
    );
    container.run(["systemctl", "enable", "--now", "listend"]);
    let fetch = ["curl", "-sS", "--fail", "http://127.0.0.1:20000/"];
    container.run(fetch);
    let pid = property(&container, "listend.service", "MainPID");
    // The same again, and as the next version would: the daemon goes on.
    let said = both(&container.output(install));
    assert!(said.contains("upgraded to"), "{said}");
    assert_eq!(property(&container, "listend.service", "MainPID"), pid);
    container.run(fetch);

    container.run(["sh", "/usr/local/share/listend/install.sh", "--uninstall"]);
    assert!(!container.path("/usr/local/bin/listend").exists());
    assert!(container.path("/etc/listend/listend.yaml").exists());
    eventually("nothing of it runs", || {
        !container.output(["pgrep", "listend"]).status.success()
    });
    let unit = container.output(["systemctl", "cat", "listend.service"]);
    assert!(!unit.status.success(), "{}", both(&unit));
}
