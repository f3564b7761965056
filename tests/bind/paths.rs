//! Long paths, folders for others, locks and links.

use crate::fixture::*;
use listend::config::{Endpoint, UnixKind};
use listend::diagnose::{Machine, explain};
use listend::listener::{BindStep, Bound, Note, Obstacle, Outcome, Purpose, bind_all};
use listend::plan::{Access, Plan};
use listend::report::Kind;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::Mode;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const KINDS: [UnixKind; 3] = [UnixKind::Stream, UnixKind::Datagram, UnixKind::SeqPacket];

fn raw_type(kind: UnixKind) -> Type {
    match kind {
        UnixKind::Stream => Type::STREAM,
        UnixKind::Datagram => Type::DGRAM,
        UnixKind::SeqPacket => Type::SEQPACKET,
    }
}

/// A client of a path of any length.
fn connect(kind: UnixKind, path: &Path) -> std::io::Result<Socket> {
    let folder = std::fs::File::open(path.parent().unwrap())?;
    let name = path.file_name().unwrap().to_str().unwrap();
    let short = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    let socket = Socket::new(Domain::UNIX, raw_type(kind), None)?;
    socket.connect(&SockAddr::unix(short)?)?;
    Ok(socket)
}

fn with_links(endpoint: Endpoint, links: &[PathBuf]) -> Plan {
    let mut plan = single(endpoint);
    plan.listeners[0].symlinks = links.to_vec();
    plan
}

fn clean(bound: &Bound) {
    let left: Vec<_> = bound.remove_paths();
    assert!(left.is_empty(), "{left:?}");
}

/// The lock of a path as another listend would hold it.
fn lock(path: &Path) -> Flock<OwnedFd> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC;
    let file = open(Path::new(&name), flags, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap()
}

#[test]
fn a_path_longer_than_107_bytes_is_bound_and_keeps_its_name() {
    let folder = Folder::new();
    let path = folder.join(&"d".repeat(120)).join("e".repeat(80)).join("s");
    for kind in KINDS {
        let access = Access {
            mode: 0o640,
            ..ACCESS
        };
        let plan = plan(&[&[unix(kind, &path)]], access);
        let tried = bind_all(&plan, Purpose::Try, HashMap::new());
        assert_eq!(tried.errors, []);
        assert!(folder.names().is_empty());

        let outcome = bound(&plan);
        let socket = first(&outcome);
        assert_eq!(socket.address.path(), Some(path.as_path()));
        assert_eq!(mode(&path), 0o640);
        assert!(UnixStream::connect(&path).is_err(), "too long for std");
        connect(kind, &path).unwrap();
        // What a worker sees.
        let name = SockRef::from(&socket.fd).local_addr().unwrap();
        let name = name.as_pathname().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("/proc/self/fd/"), "{name}");
        assert!(name.ends_with("/s"), "{name}");

        // Bound, and served: nobody else gets it.
        let again = keep(&plan);
        assert_eq!(only_error(&again).obstacle, Some(Obstacle::LiveServer));

        // Left behind, it is replaced.
        let before = std::fs::metadata(&path).unwrap().ino();
        drop(outcome);
        let tried = bind_all(&plan, Purpose::Try, HashMap::new());
        assert_eq!(tried.errors, []);
        assert!(matches!(
            tried.notes[..],
            [Note::StaleWouldBeReplaced { .. }]
        ));
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
        let outcome = bound(&plan);
        assert!(matches!(outcome.notes[..], [Note::StaleReplaced { .. }]));
        connect(kind, &path).unwrap();
        clean(&outcome.bound);
        assert!(!path.exists());
        std::fs::remove_dir_all(folder.join(&"d".repeat(120))).unwrap();
    }
}

#[test]
fn a_name_that_is_too_long_by_itself_is_an_error() {
    let folder = Folder::new();
    let plan = single(stream(&folder.join(&"n".repeat(120))));
    let outcome = keep(&plan);
    let error = only_error(&outcome);
    assert_eq!(error.errno, nix::libc::ENAMETOOLONG);
    assert!(folder.names().is_empty());
}

#[test]
fn created_folders_get_their_owner_and_never_more_rights_than_asked() {
    let folder = Folder::new();
    let us = nix::unistd::geteuid();
    let other = if us.is_root() { 65534 } else { us.as_raw() };
    let group = nix::unistd::getegid();
    let other_group = if us.is_root() { 65534 } else { group.as_raw() };
    let access = Access {
        directory_mode: 0o2750,
        directory_owner: Some(other),
        directory_group: Some(other_group),
        ..ACCESS
    };
    let path = folder.join("a/b/s");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                if let Ok(file) = std::fs::symlink_metadata(folder.join("a")) {
                    // Its owner may do more for a moment than the owner it gets; nobody else.
                    seen |= file.mode() & 0o7777 & !0o700;
                }
            }
            seen
        });
        for _ in 0..100 {
            let outcome = bound(&plan(&[&[stream(&path)]], access));
            for name in ["a", "a/b"] {
                let file = std::fs::symlink_metadata(folder.join(name)).unwrap();
                assert_eq!((file.uid(), file.gid()), (other, other_group), "{name}");
                assert_eq!(file.mode() & 0o7777, 0o2750, "{name}");
            }
            outcome.bound.withdraw();
            assert!(folder.names().is_empty());
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(observer.join().unwrap() & !0o2750, 0);
    });
}

#[test]
fn a_folder_that_cannot_be_given_away_is_an_error_and_does_not_stay() {
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let access = Access {
        directory_owner: Some(0),
        ..ACCESS
    };
    let outcome = keep(&plan(&[&[stream(&folder.join("a/s"))]], access));
    let error = only_error(&outcome);
    assert_eq!(
        (error.step, error.errno),
        (BindStep::SetOwner, nix::libc::EPERM)
    );
    outcome.bound.withdraw();
    assert!(folder.names().is_empty());
}

#[test]
fn a_locked_path_is_left_alone_and_its_holder_named() {
    let folder = Folder::new();
    let path = folder.join("s");
    let theirs = lock(&path);
    for stale in [false, true] {
        if stale {
            leave_stale(&path);
        }
        for purpose in [Purpose::Keep, Purpose::Try] {
            let plan = single(stream(&path));
            let outcome = bind_all(&plan, purpose, HashMap::new());
            let error = only_error(&outcome);
            let Some(Obstacle::Locked { pid }) = error.obstacle else {
                panic!("{error:?}");
            };
            assert!(pid.is_none_or(|pid| pid == std::process::id() as i32));
            assert_eq!(error.errno, nix::libc::EADDRINUSE);
            let problem = explain(error, &plan, &Machine::new());
            assert_eq!(problem.kind, Kind::LiveSocket);
            let words = &problem.message;
            assert!(words.contains("another listend"), "{words}");
            assert!(words.contains("s.lock"), "{words}");
            assert_eq!(path.exists(), stale);
        }
    }
    drop(theirs);
    // What is left of somebody who was killed is in nobody's way.
    let outcome = bound(&single(stream(&path)));
    assert_eq!(mode(&folder.join("s.lock")), 0o600);
    clean(&outcome.bound);
    assert!(folder.names().is_empty());
}

#[test]
fn a_lock_is_held_as_long_as_the_listener() {
    let folder = Folder::new();
    let path = folder.join("s");
    let outcome = bound(&single(stream(&path)));
    std::fs::remove_file(&path).unwrap();
    // Without its path it is still ours to bind again.
    let plan = single(stream(&path));
    assert!(matches!(
        only_error(&keep(&plan)).obstacle,
        Some(Obstacle::Locked { .. })
    ));
    // And what fails does not take the lock away from it.
    assert!(folder.join("s.lock").exists());
    clean(&outcome.bound);
    assert!(folder.names().is_empty());
    bound(&plan).bound.withdraw();
    assert!(folder.names().is_empty());
}

#[test]
fn a_lock_file_that_cannot_be_opened_is_an_error() {
    let folder = Folder::new();
    let path = folder.join("s");
    symlink("nowhere", folder.join("s.lock")).unwrap();
    let plan = single(stream(&path));
    let outcome = keep(&plan);
    let error = only_error(&outcome);
    assert_eq!(
        (error.step, error.errno),
        (BindStep::Lock, nix::libc::ELOOP)
    );
    let words = explain(error, &plan, &Machine::new()).message;
    assert!(words.contains("cannot lock"), "{words}");
    assert_eq!(folder.names(), ["s.lock"]);
}

#[test]
fn links_lead_to_the_path_and_are_removed_with_it() {
    let folder = Folder::new();
    let path = folder.join("s");
    let names = ["new", "deep/er", "dangling", "same"];
    let links = names.map(|name| folder.join(name));
    symlink(folder.join("nowhere"), &links[2]).unwrap();
    symlink(&path, &links[3]).unwrap();
    let plan = with_links(stream(&path), &links);

    let tried = bind_all(&plan, Purpose::Try, HashMap::new());
    assert_eq!(tried.errors, []);
    assert!(!links[0].is_symlink() && !folder.join("deep").exists());
    assert!(std::fs::read_link(&links[2]).unwrap().ends_with("nowhere"));

    let outcome = bound(&plan);
    for link in &links {
        assert_eq!(std::fs::read_link(link).unwrap(), path);
        UnixStream::connect(link).unwrap();
    }
    // One that somebody has turned elsewhere is theirs now.
    std::fs::remove_file(&links[0]).unwrap();
    symlink("elsewhere", &links[0]).unwrap();
    clean(&outcome.bound);
    assert!(links[0].is_symlink());
    let mut names = folder.names();
    names.sort();
    assert_eq!(names, ["deep", "new"]);
    std::fs::remove_file(&links[0]).unwrap();
    std::fs::remove_dir(folder.join("deep")).unwrap();
    bound(&plan).bound.withdraw();
    assert!(folder.names().is_empty());
}

#[test]
fn what_is_at_the_place_of_a_link_and_is_of_use_is_left_alone() {
    let folder = Folder::new();
    let path = folder.join("s");
    std::fs::write(folder.join("file"), "").unwrap();
    symlink("file", folder.join("link")).unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    for name in ["file", "link", "folder"] {
        let links = [folder.join("first"), folder.join(name)];
        let plan = with_links(stream(&path), &links);
        for purpose in [Purpose::Try, Purpose::Keep] {
            let outcome = bind_all(&plan, purpose, HashMap::new());
            let error = only_error(&outcome);
            assert_eq!(
                (error.step, error.errno),
                (BindStep::Symlink, nix::libc::EEXIST)
            );
            assert_eq!(error.path.as_deref(), Some(links[1].as_path()));
            let words = explain(error, &plan, &Machine::new()).message;
            assert!(words.contains("symbolic link"), "{words}");
            assert!(words.contains(name), "{words}");
            let mut names = folder.names();
            names.sort();
            assert_eq!(names, ["file", "folder", "link"]);
        }
    }
}

#[test]
fn what_is_to_stay_stays_without_its_lock() {
    let folder = Folder::new();
    let path = folder.join("s");
    let mut plan = with_links(stream(&path), &[folder.join("link")]);
    plan.listeners[0].remove_on_stop = false;
    let tried = bind_all(&plan, Purpose::Try, HashMap::new());
    assert_eq!(tried.errors, []);
    assert!(folder.names().is_empty());

    let outcome = bound(&plan);
    clean(&outcome.bound);
    drop(outcome);
    let mut names = folder.names();
    names.sort();
    assert_eq!(names, ["link", "s"]);
    // A start that failed takes everything back all the same.
    let Outcome { bound, errors, .. } = keep(&plan);
    assert_eq!(errors, []);
    bound.withdraw();
    assert!(folder.names().is_empty());
}
