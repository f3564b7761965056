//! What one connection costs: the system calls of the daemon, and of the child before its program.

use crate::harness::app;
use crate::harness::{
    Daemon, World, children, client, eventually, kill, require_tool, settled, skip, state,
};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

/// Serves so many clients one after the other, and has all system calls of the daemon and of the processes
/// of its connections written down: pid and call in each line.
fn traced(world: &World, daemon: &Daemon, clients: usize) -> String {
    let address = daemon.address("web");
    let serve = || {
        let stream = client::tcp(address).expect("connect");
        client::hear(&stream, "hello\n");
        client::sees_the_end(&stream);
        eventually("it is reaped", || children(daemon.pid()).is_empty());
        settled(daemon.pid());
    };
    // What is done once.
    serve();
    let trace = world.path("trace");
    let mut strace = Command::new("strace")
        .args(["-f", "-q", "-o"])
        .arg(&trace)
        .args(["-p", &daemon.pid().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("start strace");
    eventually("the daemon is traced", || {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
        let tracer = format!("TracerPid:\t{}", strace.id());
        status.expect("it runs").lines().any(|line| line == tracer)
    });
    for _ in 0..clients {
        serve();
    }
    kill(strace.id().cast_signed(), Signal::SIGINT);
    strace.wait().expect("wait for strace");
    eventually("it is let go", || state(daemon.pid()) == Some('S'));
    fs::read_to_string(&trace).expect("the trace")
}

/// How often each call was made by a process, up to an exec.
fn counted(trace: &str, by: impl Fn(&str) -> bool) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    let mut executed = Vec::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else {
            continue;
        };
        // What is resumed was counted when it began.
        let name = call.trim_start().split_once('(').map(|(name, _)| name);
        let Some(name) = name.filter(|name| !name.contains(' ')) else {
            continue;
        };
        if by(pid) && !executed.contains(&pid) {
            *counts.entry(name).or_default() += 1;
        }
        if name == "execve" {
            executed.push(pid);
        }
    }
    counts
}

/// Whether a child can be made without handlers: by a kernel that can, without a sandbox that may forbid it.
fn has_clone3() -> bool {
    let uname = nix::sys::utsname::uname().expect("uname");
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|one: char| !one.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse().ok());
    let version: (Option<u32>, Option<u32>) = (number(), number());
    let status = fs::read_to_string("/proc/self/status").expect("read /proc");
    let is_free = status.lines().any(|line| line == "Seccomp:\t0");
    cfg!(target_arch = "x86_64") && version >= (Some(5), Some(5)) && is_free
}

#[test]
fn a_connection_takes_no_more_system_calls_than_it_needs() {
    const CLIENTS: usize = 8;
    let Some(_strace) = require_tool("strace") else {
        return;
    };
    if !has_clone3() {
        return skip("no clone3(2) with CLONE_CLEAR_SIGHAND");
    }
    let world = World::new();
    let lines = "activation: per-connection\nhandoff: inetd\naccept_rate: none";
    let yaml = app::yaml_at("'127.0.0.1:0'", "[/bin/echo, hello]", lines);
    let daemon = world.run(&yaml);
    let own = daemon.pid().to_string();
    let trace = traced(&world, &daemon, CLIENTS);
    daemon.stop();

    let made = counted(&trace, |pid| pid == own);
    let of = |name: &str| made.get(name).copied().unwrap_or_default();
    // The end of its process, and whether another has ended; whether anybody else is in its group.
    for (name, most) in [
        ("accept4", 1),
        ("clone3", 1),
        ("close", 1),
        ("read", 1),
        ("waitid", 2),
        ("kill", 1),
    ] {
        assert!(of(name) <= most * CLIENTS, "{name}: {made:?}");
    }
    // How often it waits depends on how fast the other processes are. In a debug build std looks at what it
    // closes, and the allocator may have to ask for memory.
    let known = [
        "accept4",
        "clone3",
        "close",
        "read",
        "waitid",
        "kill",
        "epoll_wait",
        "futex",
        "fcntl",
        "brk",
        "clock_gettime",
    ];
    let others: Vec<_> = made.keys().filter(|name| !known.contains(name)).collect();
    assert!(others.is_empty(), "{others:?} in {made:?}");

    let made = counted(&trace, |pid| pid != own);
    let of = |name: &str| made.get(name).copied().unwrap_or_default();
    assert_eq!(of("execve"), CLIENTS, "{made:?}");
    // SIGXFSZ, which listend ignores, and two that posix_spawn(3) ignores in whatever it starts. 0 and 1 are
    // the connection.
    for (name, most) in [
        ("rt_sigaction", 3),
        ("dup3", 2),
        ("openat", 0),
        ("getpid", 0),
    ] {
        assert!(of(name) <= most * CLIENTS, "{name}: {made:?}");
    }
}
