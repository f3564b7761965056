//! What the adversary uses: programs and files outside of listend.

use super::{exists, run};
use crate::harness::eventually;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// Floods the notify socket and the control socket for as long as it is told: `DIR SECONDS SEED UID`. What it sends is what
/// a process that means no good sends: no whole message, too many, too long, of things that only a worker may say.
pub const FLOOD: &str = r#"
import os, random, socket, sys, time
folder, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
os.setgroups([])
os.setgid(int(sys.argv[4]))
os.setuid(int(sys.argv[4]))
end = time.monotonic() + seconds
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.setblocking(False)
texts = [b"READY=1", b"STOPPING=1", b"RELOADING=1", b"MAINPID=1", b"WATCHDOG=trigger", b"FDSTORE=1\nFDNAME=x",
         b"STATUS=" + b"x" * 4000, b"\0" * 100, b"ERRNO=1", b"EXTEND_TIMEOUT_USEC=18446744073709551615",
         random.randbytes(2000), b"=", b"\n" * 3000, b"X_LISTEND=1"]
calls = [b"\0", b"{", b"{}\0", b"[]\0", random.randbytes(500) + b"\0", b'{"method":"io.listend.Manager.Status"}\0' * 20,
         b'{"method":"io.listend.Manager.Status","more":true,"parameters":{}}\0',
         b'{"method":"io.listend.Manager.Watch","more":true,"parameters":{}}\0',
         b'{"method":"io.listend.Manager.Logs","more":true,"parameters":{"follow":true}}\0',
         b'{"method":"io.listend.Manager.Metrics"}\0' * 5, b'{"method":"' + b"x" * 100000,
         b'{"method":"io.listend.Manager.Stop","parameters":{"worker":7}}\0',
         b'{"method":"io.listend.Manager.Nothing","oneway":true}\0']
null = os.open("/dev/null", os.O_RDONLY)
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, null.to_bytes(4, sys.byteorder))]
held = []
while time.monotonic() < end:
    for _ in range(100):
        try:
            carried = rights if random.random() < .1 else []
            notify.sendmsg([random.choice(texts)], carried, 0, folder + "/control.notify")
        except OSError:
            pass
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(.2)
    try:
        client.connect(folder + "/control.sock")
        client.sendall(random.choice(calls))
        held.append(client)
    except OSError:
        pass
    if len(held) > 60:
        held.pop(random.randrange(len(held))).close()
"#;

/// libfaketime, if it is installed.
pub fn clock_library() -> Option<&'static str> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib64/faketime/libfaketime.so.1",
    ];
    places.into_iter().find(|path| exists(Path::new(path)))
}

/// The process after which libfaketime has named what all share that have it: the first one. Were it one of listend's,
/// the others would lose it with that, and workers would get another variable with each reload.
pub struct Clock(Child);

impl Clock {
    pub fn start(library: &str) -> Clock {
        let mut command = Command::new("sleep");
        let child = command.arg("infinity").env("LD_PRELOAD", library).spawn();
        let clock = Clock(child.expect("start sleep"));
        let shared = format!("/dev/shm/faketime_shm_{}", clock.0.id());
        eventually("libfaketime is there", || exists(Path::new(&shared)));
        clock
    }

    /// What FAKETIME_SHARED is to be for others.
    pub fn name(&self) -> String {
        let pid = self.0.id();
        format!("/faketime_sem_{pid} /faketime_shm_{pid}")
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// The limits of open files of a process: `SOFT:HARD`.
pub fn open_files(pid: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("the process runs");
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let mut numbers = line
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.parse().ok());
    let mut next = || numbers.next().expect("a limit");
    (next(), next())
}

/// Limits the open files of a process.
pub fn limit_open_files(pid: i32, limits: (u64, u64)) {
    let limits = format!("--nofile={}:{}", limits.0, limits.1);
    run(&["prlimit", "--pid", &pid.to_string(), &limits]);
}

/// Writes until the disk is full.
pub fn fill(path: &Path) {
    let block = vec![b'x'; 64 * 1024];
    let mut file = std::fs::File::create(path).expect("create");
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    // What is left below a block.
    while std::io::Write::write_all(&mut file, b"x").is_ok() {}
}

/// How long a fault lasts: the processes meanwhile do what they do about it.
pub fn last(time: Duration) {
    std::thread::sleep(time);
}

/// The file at a path, so that another one there is seen.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}
