//! Packages of this checkout, with the program under test in them, and a booted Debian that has
//! one installed.

use super::container::{self, Container};
use super::{DEADLINE, TempDir, listend_path, probe_path, require_tool, skip};
use nix::fcntl::{Flock, FlockArg};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

/// The exit code of `scripts/package-tools` for what this machine cannot do.
const CANNOT: i32 = 75;

/// A package.
pub struct Package {
    path: PathBuf,
}

impl Package {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The `.deb`; if it cannot be made here, the test is skipped.
pub fn deb() -> Option<Package> {
    require_tool("dpkg-deb")?;
    // Compressed less, but otherwise the same.
    has_tool("cargo-deb").then(|| make("deb", "deb", "DEB_FLAGS=--fast"))?
}

/// The `.rpm`; if it cannot be made here, the test is skipped.
pub fn rpm() -> Option<Package> {
    let flags = "RPM_FLAGS=--payload-compress=none";
    has_tool("cargo-generate-rpm").then(|| make("rpm", "rpm", flags))?
}

/// The tarball with the program; if it cannot be made here, the test is skipped.
pub fn tarball() -> Option<Package> {
    for program in ["objdump", "tar"] {
        require_tool(program)?;
    }
    make("tarball", "gz", "--no-print-directory")
}

/// Whether a tool that makes packages is there; to build it would take longer than a test may.
pub fn has_tool(tool: &str) -> bool {
    let mut find = Command::new("sh");
    find.args(["scripts/package-tools", tool, "found"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let found = find.output().expect("start sh");
    let said = String::from_utf8_lossy(&found.stderr).trim().to_owned();
    match found.status.code() {
        Some(0) => true,
        Some(CANNOT) => {
            skip(&said);
            false
        }
        other => panic!("scripts/package-tools: {other:?}: {said}"),
    }
}

/// What `make KIND` makes, a file with this extension.
fn make(kind: &str, extension: &str, flags: &str) -> Option<Package> {
    for program in ["make", "strip"] {
        require_tool(program)?;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("target/packages-of-tests");
    fs::create_dir_all(&folder).expect("create a folder");
    // Tests run at the same time, and the tree from which packages are made is in one place. All
    // take the one that the first has made.
    let lock = fs::File::create(folder.join("lock")).expect("create a file");
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error);
    let _lock = lock.expect("lock a file");
    let path = folder.join(format!("listend.{kind}"));
    let made = fs::metadata(&path).and_then(|package| package.modified());
    if made.is_ok_and(|made| made > last_change(root)) {
        return Some(Package { path });
    }
    let dir = TempDir::new();
    let mut command = Command::new("make");
    command.args(["--silent", kind, flags]).current_dir(root);
    command.arg(format!("LISTEND={}", listend_path().display()));
    command.arg(format!("PACKAGES={}", dir.path().display()));
    let made = command.output().expect("start make");
    assert!(made.status.success(), "make {kind}: {made:?}");
    let entries = fs::read_dir(dir.path()).expect("list the folder");
    let mut files = entries.map(|entry| entry.expect("an entry").path());
    let file = files.find(|file| file.extension().is_some_and(|is| is == extension));
    let file = file.unwrap_or_else(|| panic!("make {kind} made no package: {made:?}"));
    let unfinished = folder.join("unfinished");
    fs::copy(file, &unfinished).expect("copy the package");
    fs::rename(unfinished, &path).expect("rename the package");
    Some(Package { path })
}

/// When what a package is made of was last changed: the program under test, and all files of the
/// checkout but those from which that is built.
fn last_change(root: &Path) -> SystemTime {
    fn walk(path: &Path, last: &mut SystemTime) {
        let entry = fs::symlink_metadata(path).expect("look at a file of the checkout");
        *last = (*last).max(entry.modified().expect("a time of change"));
        if entry.is_dir() {
            for entry in fs::read_dir(path).expect("list a folder of the checkout") {
                walk(&entry.expect("an entry").path(), last);
            }
        }
    }
    let program = fs::metadata(listend_path()).and_then(|program| program.modified());
    let mut last = program.expect("look at the program under test");
    for entry in fs::read_dir(root).expect("list the checkout") {
        let entry = entry.expect("an entry");
        if ![".git", "benches", "src", "target", "tests"]
            .iter()
            .any(|name| entry.file_name() == *name)
        {
            walk(&entry.path(), &mut last);
        }
    }
    last
}

/// A booted Debian in which the package is installed, and a probe at `/opt/probe`.
pub fn installed() -> Option<Container> {
    let package = deb()?;
    let container = container::boot()?;
    install(&container, package.path());
    Some(container)
}

/// Installs a package in a container; what that said.
pub fn install(container: &Container, package: &Path) -> String {
    container.install(probe_path(), "/opt/probe");
    container.install(package, "/opt/listend.deb");
    container.run(["dpkg", "--install", "/opt/listend.deb"])
}

/// A Debian without systemd, in which `make` has installed listend, with the scripts for OpenRC,
/// runit and s6, and a probe at `/opt/probe`.
pub fn installed_without_systemd(start: fn() -> Option<Container>) -> Option<Container> {
    require_tool("make")?;
    let container = start()?;
    container.install(probe_path(), "/opt/probe");
    let targets = ["install", "install-openrc", "install-runit", "install-s6"];
    let mut make = Command::new("make");
    make.arg("--silent").args(targets).arg("PREFIX=/usr");
    make.arg(format!("LISTEND={}", listend_path().display()));
    make.arg(format!("DESTDIR={}", container.path("").display()));
    let made = make.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let made = made.expect("start make");
    assert!(made.status.success(), "make install: {made:?}");
    Some(container)
}

/// Waits until somebody answers at an address; the answer.
#[track_caller]
pub fn answers(container: &Container, address: &str) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let words = ["/opt/probe", "send", "tcp", address, "?", "5"];
        let output = container.output(words);
        if output.status.success() {
            return String::from_utf8_lossy(&output.stdout).into_owned();
        }
        assert!(
            Instant::now() < deadline,
            "nobody answers at {address}\n{}",
            container.journal("listend*")
        );
        // It may be that nobody listens yet, and then there is nothing to wait for.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One property of a unit, as `systemctl show` has it.
#[track_caller]
pub fn property(container: &Container, unit: &str, name: &str) -> String {
    let said = container.run(["systemctl", "show", "-P", name, unit]);
    said.trim().to_owned()
}
