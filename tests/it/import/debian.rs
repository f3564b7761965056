//! The units and the snippets of Debian packages: each is translated and checked, and goes to systemd and
//! back. What is lost is counted in `docs/import.md`.
//!
//! The packages are only unpacked, below a temporary directory; nothing of them is installed or executed.

use super::{accepted, run};
use crate::export::{round_trip, settles, verify};
use crate::harness::{TempDir, require_tool, skip};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages that have socket units, files for xinetd, or lines for inetd.conf.
const PACKAGES: &str = "
    acpid atftpd avahi-daemon clamav-daemon cloud-init cockpit-ws containernetworking-plugins
    cups-bsd cups-daemon dbus-system-bus-common dbus-user-session dirmngr dmeventd
    dovecot-core efingerd erlang-base fcgiwrap fingerd gcr gnome-keyring gophernicus gpg-agent
    gpsd inetutils-talkd inetutils-telnetd leafnode libvirt-daemon-system lirc lldpad lvm2
    micro-httpd mpd multipath-tools nix-setup-systemd nullidentd oidentd open-iscsi
    openssh-server packagekit pcscd pgbouncer pipewire pipewire-pulse podman proftpd-core
    pulseaudio rpcbind rsh-redone-server rsh-server sane-utils spice-vdagent sssd-common
    sssd-kcm systemd systemd-coredump systemd-journal-remote talkd tang tang-xinetd tinysshd
    udev uuid-runtime uwsgi-core xinetd xpra
";

/// With fewer the table would say little.
const ENOUGH: usize = 60;

/// What was found in a package: files, and comments of what was not translated.
#[derive(Default)]
struct Found {
    units: usize,
    snippets: usize,
    lost: Vec<String>,
}

#[test]
fn what_debian_packages_have_is_translated_and_what_is_lost_is_counted() {
    let (Some(apt), Some(dpkg)) = (require_tool("apt-get"), require_tool("dpkg-deb")) else {
        return;
    };
    let dir = TempDir::new();
    let files = downloaded(&apt, dir.path());
    if files.len() < ENOUGH {
        return skip(&format!(
            "only {} of the packages can be downloaded here",
            files.len()
        ));
    }
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for file in &files {
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.expect("UTF-8").split('_').next().unwrap_or_default();
        let folder = dir.path().join(name);
        let (root, scripts) = (folder.join("root"), folder.join("control"));
        fs::create_dir(&folder).expect("it is ours");
        for (option, to) in [("-x", &root), ("-e", &scripts)] {
            let done = Command::new(&dpkg).arg(option).arg(file).arg(to).status();
            assert!(done.expect("dpkg-deb runs").success(), "{}", file.display());
        }
        found.insert(name.to_owned(), translate(&root, &scripts));
        fs::remove_dir_all(&folder).expect("it is ours");
    }
    let with = found.values().filter(|one| one.units + one.snippets > 0);
    let with = with.count();
    assert!(with >= ENOUGH, "{with} of {} have some", found.len());
    if std::env::var_os("LISTEND_WRITE_DOCS").is_some() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/import.md");
        let text = fs::read_to_string(&page).expect("docs/import.md");
        fs::write(page, written(&text, &found)).expect("docs/import.md");
    }
}

/// The packages, as files in this directory.
fn downloaded(apt: &Path, dir: &Path) -> Vec<PathBuf> {
    // One that is unknown would keep the others from being downloaded.
    let known = Command::new("apt-cache").arg("pkgnames").output();
    let known = known.map(|output| output.stdout).unwrap_or_default();
    let known = String::from_utf8_lossy(&known).into_owned();
    let known: BTreeSet<&str> = known.lines().collect();
    let wanted = PACKAGES
        .split_whitespace()
        .filter(|name| known.contains(name));
    let mut download = Command::new(apt);
    // As the user that runs this, who owns the directory.
    download.args(["-o", "APT::Sandbox::User=root", "-qq", "download"]);
    let done = download.args(wanted).current_dir(dir).output();
    if !done.is_ok_and(|output| output.status.success()) {
        return Vec::new();
    }
    let files = fs::read_dir(dir).expect("it is ours").flatten();
    let files = files.map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|end| end == "deb"))
        .collect();
    files.sort();
    files
}

fn translate(root: &Path, scripts: &Path) -> Found {
    let mut found = Found::default();
    let mut files = Vec::new();
    for folder in [
        "lib/systemd/system",
        "usr/lib/systemd/system",
        "usr/lib/systemd/user",
    ] {
        let entries = fs::read_dir(root.join(folder))
            .into_iter()
            .flatten()
            .flatten();
        let sockets = entries.map(|entry| entry.path());
        files.extend(sockets.filter(|path| path.extension().is_some_and(|end| end == "socket")));
    }
    files.sort();
    // An alias is the unit that it leads to.
    files.retain(|path| path.is_file() && !path.is_symlink());
    for file in files {
        found.units += 1;
        let yaml = imported(&[&file], &mut found);
        let units = round_trip(&yaml);
        verify(&units, root);
    }
    let xinetd = fs::read_dir(root.join("etc/xinetd.d"))
        .into_iter()
        .flatten()
        .flatten();
    for file in xinetd.map(|entry| entry.path()) {
        found.snippets += 1;
        let yaml = imported(&[&file], &mut found);
        settles(&yaml);
    }
    let lines = inetd_lines(scripts);
    if !lines.is_empty() {
        let file = root.join("inetd.conf");
        fs::create_dir_all(root).expect("it is ours");
        fs::write(&file, lines.join("\n") + "\n").expect("it is ours");
        found.snippets += lines.len();
        let yaml = imported(&[&file], &mut found);
        settles(&yaml);
    }
    found
}

fn imported(files: &[&Path], found: &mut Found) -> String {
    let output = run(files);
    assert!(output.status.success(), "{files:?}: {output:?}");
    let yaml = accepted(&String::from_utf8(output.stdout).expect("UTF-8"));
    let lost = yaml.lines().filter_map(|line| {
        let (_, what) = line.trim_start().split_once("# not translated: ")?;
        Some(what.to_owned())
    });
    found.lost.extend(lost);
    yaml
}

/// The lines that maintainer scripts put into inetd.conf with update-inetd(8).
fn inetd_lines(scripts: &Path) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let files: Vec<PathBuf> = fs::read_dir(scripts)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    for file in files {
        let Ok(text) = fs::read_to_string(file) else {
            continue;
        };
        // In quotes, with blanks or `\t` between the words.
        for quoted in text.split(['"', '\'']) {
            let line = quoted.replace("\\t", "\t").replace("#<off># ", "");
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_one = words.len() >= 6 && ["stream", "dgram"].contains(&words[1]);
            if is_one && !line.contains('$') && !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// The page with the tables of this run.
fn written(text: &str, found: &BTreeMap<String, Found>) -> String {
    let mut packages = String::from(
        "| package | socket units | inetd and xinetd services | not translated |\n|---|---|---|---|\n",
    );
    let mut reasons: BTreeMap<String, (usize, BTreeMap<String, usize>)> = BTreeMap::new();
    for (name, one) in found.iter().filter(|(_, one)| one.units + one.snippets > 0) {
        let row = format!(
            "| {name} | {} | {} | {} |\n",
            one.units,
            one.snippets,
            one.lost.len()
        );
        packages.push_str(&row);
        for lost in &one.lost {
            // `Key=value: why`, or a line of the YAML, `key: value: why`.
            let key = lost.split(['=', ':', ' ']).next().unwrap_or(lost);
            let is_yaml = lost[key.len()..].starts_with(':') && lost.matches(": ").count() > 1;
            let behind = lost.splitn(if is_yaml { 3 } else { 2 }, ": ");
            let why = behind.last().unwrap_or_default();
            let (count, keys) = reasons.entry(why.to_owned()).or_default();
            *count += 1;
            *keys.entry(key.to_owned()).or_default() += 1;
        }
    }
    let mut lost = String::from("| times | what | why |\n|---|---|---|\n");
    let mut rows: Vec<_> = reasons.iter().collect();
    rows.sort_by_key(|(why, (count, _))| (std::cmp::Reverse(*count), why.as_str()));
    for (why, (count, keys)) in rows {
        let keys: Vec<String> = keys.keys().map(|key| format!("`{key}`")).collect();
        let keys = keys.join(", ");
        lost.push_str(&format!("| {count} | {keys} | {why} |\n"));
    }
    let mut out = text.to_owned();
    for (name, table) in [("packages", packages), ("lost", lost)] {
        let begin = format!("<!-- {name} -->\n");
        let at = out.find(&begin).expect("where the table begins") + begin.len();
        let end = at + out[at..].find("<!-- end -->\n").expect("where it ends");
        out.replace_range(at..end, &table);
    }
    out
}
