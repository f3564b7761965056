//! Long paths, folders for others, locks and links.

use crate::fixture::*;
use listend::config::{Endpoint, UnixKind};
use listend::diagnose::{Machine, explain};
use listend::listener::{
    BindStep, Note, NoteKind, Obstacle, Outcome, Purpose, SocketTable, bind_all, inspect, repair,
};
use listend::plan::{Access, Plan, SocketKey};
use listend::walk::Why;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::collections::HashMap;
use std::fs::Permissions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
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
    listener(&mut plan, 0).settings_mut().symlinks = links.to_vec();
    plan
}

fn clean(bound: &SocketTable) {
    let left: Vec<_> = bound.remove_paths();
    assert!(left.is_empty(), "{left:?}");
}

/// What appeared and went in a folder while `act` ran.
fn changes_in(folder: &Path, act: impl FnOnce()) -> Vec<String> {
    let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
    let seen = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB;
    watch.add_watch(folder, seen).unwrap();
    act();
    let events = watch.read_events().unwrap_or_default();
    events.iter().map(|event| format!("{event:?}")).collect()
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

        // SocketTable, and served: nobody else gets it.
        let again = keep(&plan);
        assert!(is_live(only_error(&again)));

        // Left behind, it is replaced.
        let before = std::fs::metadata(&path).unwrap().ino();
        drop(outcome);
        let tried = bind_all(&plan, Purpose::Try, HashMap::new());
        assert_eq!(tried.errors, []);
        let kinds = |notes: &[Note]| {
            notes
                .iter()
                .map(|note| note.kind.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(&tried.notes), [NoteKind::StaleWouldBeReplaced]);
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
        let outcome = bound(&plan);
        assert_eq!(kinds(&outcome.notes), [NoteKind::StaleReplaced]);
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
    // Also where the mode is the one that it is born with.
    let born = Access {
        directory_mode: 0o700,
        ..access
    };
    let outcome = bound(&plan(&[&[stream(&path)]], born));
    let file = std::fs::symlink_metadata(folder.join("a")).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o7777), (other, 0o700));
    outcome.bound.withdraw();
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
fn a_file_beside_the_path_that_looks_like_a_lock_is_left_alone() {
    let folder = Folder::new();
    // As PostgreSQL names its own.
    let path = folder.join(".s.PGSQL.5432");
    let lock = folder.join(".s.PGSQL.5432.lock");
    std::fs::write(&lock, "4711\n").unwrap();
    let before = std::fs::metadata(&lock).unwrap();
    for stale in [false, true] {
        for purpose in [Purpose::Try, Purpose::Keep] {
            if stale {
                leave_stale(&path);
            }
            let outcome = bind_all(&single(stream(&path)), purpose, HashMap::new());
            assert_eq!(outcome.errors, []);
            clean(&outcome.bound);
            drop(outcome);
            let _stale = std::fs::remove_file(&path);
            let now = std::fs::metadata(&lock).unwrap();
            assert_eq!((now.ino(), now.mtime()), (before.ino(), before.mtime()));
            assert_eq!(std::fs::read(&lock).unwrap(), b"4711\n");
        }
    }
    assert_eq!(folder.names(), [".s.PGSQL.5432.lock"]);
}

#[test]
fn trying_makes_and_removes_nothing_that_can_be_seen() {
    let folder = Folder::new();
    let path = folder.join("s");
    let links = [folder.join("link")];
    let attempt = |path: &Path| {
        let plan = with_links(stream(path), &links);
        let mut errors = Vec::new();
        let changes = changes_in(&folder.path, || {
            errors = bind_all(&plan, Purpose::Try, HashMap::new()).errors;
        });
        assert!(changes.is_empty(), "{changes:?}");
        errors
    };
    assert_eq!(attempt(&path), []);
    assert_eq!(attempt(&folder.join("a/b/s")), []);
    for folders in ["", "a/b/"] {
        let path = folder.join(&format!("{folders}fifo"));
        let fifo = single(Endpoint::Fifo { path });
        let changes = changes_in(&folder.path, || {
            let tried = bind_all(&fifo, Purpose::Try, HashMap::new());
            assert_eq!(tried.errors, []);
        });
        assert!(changes.is_empty(), "{changes:?}");
    }
    let queues = Path::new("/dev/mqueue");
    if queues.is_dir() {
        let name = format!("/{}", unique("queue"));
        let queue = single(Endpoint::MessageQueue { name: name.clone() });
        let changes = changes_in(queues, || {
            let tried = bind_all(&queue, Purpose::Try, HashMap::new());
            assert_eq!(tried.errors, []);
        });
        let ours = changes.iter().any(|change| change.contains(&name[1..]));
        assert!(!ours, "{changes:?}");
    }
    leave_stale(&path);
    assert_eq!(attempt(&path), []);
    let server = UnixListener::bind(folder.join("live")).unwrap();
    let errors = attempt(&folder.join("live"));
    assert!(matches!(
        errors[0].obstacle,
        Some(Obstacle::LiveServer { socket: Some(_) })
    ));
    // Nor is a server bothered with a client.
    server.set_nonblocking(true).unwrap();
    assert_eq!(
        server.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
}

#[test]
fn trying_finds_what_would_keep_a_path_from_being_made() {
    let folder = Folder::new();
    let long = folder.join(&"n".repeat(120));
    let tried = bind_all(&single(stream(&long)), Purpose::Try, HashMap::new());
    assert_eq!(only_error(&tried).errno, nix::libc::ENAMETOOLONG);
    std::fs::write(folder.join("file"), "").unwrap();
    let below = single(stream(&folder.join("file/s")));
    let tried = bind_all(&below, Purpose::Try, HashMap::new());
    assert_eq!(only_error(&tried).errno, nix::libc::ENOTDIR);
    // One file under two names.
    std::fs::create_dir(folder.join("real")).unwrap();
    symlink(folder.join("real"), folder.join("other")).unwrap();
    let (real, other) = (folder.join("real/s"), folder.join("other/s"));
    let twice = plan(&[&[stream(&real)], &[stream(&other)]], ACCESS);
    for purpose in [Purpose::Try, Purpose::Keep] {
        let outcome = bind_all(&twice, purpose, HashMap::new());
        let error = only_error(&outcome);
        assert_eq!(error.errno, nix::libc::EADDRINUSE, "{error:?}");
        let problem = explain(error, &twice, &Machine::new());
        assert_eq!(problem.related.len(), 1, "{problem:?}");
        outcome.bound.withdraw();
    }
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let access = Access {
        owner: Some(0),
        ..ACCESS
    };
    let given = Access {
        directory_owner: Some(0),
        ..ACCESS
    };
    for (path, access) in [("s", access), ("new/s", given)] {
        let plan = plan(&[&[stream(&folder.join(path))]], access);
        let tried = bind_all(&plan, Purpose::Try, HashMap::new());
        assert_eq!(only_error(&tried).step, BindStep::SetOwner, "{path}");
    }
    std::fs::set_permissions(&folder.path, Permissions::from_mode(0o500)).unwrap();
    let tried = bind_all(
        &single(stream(&folder.join("s"))),
        Purpose::Try,
        HashMap::new(),
    );
    std::fs::set_permissions(&folder.path, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(only_error(&tried).errno, nix::libc::EACCES);
}

#[test]
fn a_stale_path_goes_to_one_of_many_who_want_it() {
    const RIVALS: usize = 4;
    let folder = Folder::new();
    let path = folder.join("s");
    // It is the process's: of several threads that change it the last one decides what stays.
    let umask = nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    for _ in 0..100 {
        leave_stale(&path);
        let start = Barrier::new(RIVALS);
        let bound: Vec<SocketTable> = std::thread::scope(|scope| {
            let rival = || {
                start.wait();
                let outcome = keep(&single(stream(&path)));
                outcome.errors.is_empty().then_some(outcome.bound)
            };
            let rivals: Vec<_> = (0..RIVALS).map(|_| scope.spawn(rival)).collect();
            let bound = rivals.into_iter().map(|rival| rival.join().unwrap());
            bound.flatten().collect()
        });
        // Whoever has bound it has it still: nobody has taken it for the stale one.
        assert_eq!(bound.len(), 1);
        assert_eq!(inspect(bound[0].at(0)[0]), None);
        clean(&bound[0]);
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    }
    nix::sys::stat::umask(umask);
}

/// A folder that belongs to somebody else. `None` for who cannot give any away.
fn theirs(folder: &Folder, name: &str) -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        skip("only root can give a folder away");
        return None;
    }
    let path = folder.join(name);
    std::fs::create_dir(&path).unwrap();
    chown(&path, Some(THEM), Some(THEM)).unwrap();
    std::fs::set_permissions(&folder.path, Permissions::from_mode(0o755)).unwrap();
    Some(path)
}

/// A user that there is not.
const THEM: u32 = 4_711;

#[test]
fn who_can_change_the_way_steers_nothing_of_roots() {
    let folder = Folder::new();
    let Some(srv) = theirs(&folder, "srv") else {
        return;
    };
    let safe = folder.join("safe");
    std::fs::create_dir(&safe).unwrap();
    let access = Access {
        owner: Some(THEM),
        mode: 0o640,
        directory_owner: Some(THEM),
        ..ACCESS
    };
    let path = srv.join("run/sub/s");
    let mut plan = plan(&[&[stream(&path)]], access);
    listener(&mut plan, 0).settings_mut().symlinks = vec![srv.join("run/link")];
    let mut outcome = bound(&plan);
    // The name that workers see is the path.
    let name = SockRef::from(&first(&outcome).fd).local_addr().unwrap();
    assert_eq!(name.as_pathname(), Some(path.as_path()));
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o7777), (THEM, 0o640));
    assert_eq!(std::fs::metadata(srv.join("run")).unwrap().uid(), THEM);

    // They put a link in the place of a folder.
    std::fs::rename(srv.join("run"), srv.join("old")).unwrap();
    symlink(&safe, srv.join("run")).unwrap();
    std::fs::remove_file(srv.join("old/sub/s")).unwrap();
    let error = repair(&plan, &mut outcome.bound, SocketKey(0)).unwrap_err();
    assert!(matches!(
        error.obstacle,
        Some(Obstacle::OtherHands(Why::Link(_)))
    ));
    let words = explain(&error, &plan, &Machine::new()).message;
    assert!(
        words.contains("srv/run is a symbolic link that user 4711"),
        "{words}"
    );
    clean(&outcome.bound);
    assert!(std::fs::read_dir(&safe).unwrap().next().is_none());
    for purpose in [Purpose::Try, Purpose::Keep] {
        let again = bind_all(&plan, purpose, HashMap::new());
        assert!(matches!(
            only_error(&again).obstacle,
            Some(Obstacle::OtherHands(_))
        ));
    }
    // What leads away is not removed either, though it bears the name.
    std::fs::create_dir(safe.join("sub")).unwrap();
    let other = UnixListener::bind(safe.join("sub/s")).unwrap();
    drop(outcome);
    assert!(only_error(&keep(&plan)).obstacle.is_some());
    assert!(safe.join("sub/s").exists());
    drop(other);
}

#[test]
fn nobody_else_has_for_a_moment_what_the_new_owner_may_do() {
    let folder = Folder::new();
    let Some(srv) = theirs(&folder, "srv") else {
        return;
    };
    let steered = srv.join("run");
    std::fs::create_dir(&steered).unwrap();
    chown(&steered, Some(THEM), Some(THEM)).unwrap();
    let umask = nix::sys::stat::umask(Mode::empty());
    let ours = folder.join("s");
    for (path, owner, group) in [
        (&ours, Some(THEM), None),
        (&ours, None, Some(THEM)),
        // They make the file, and it becomes root's.
        (&steered.join("s"), None, None),
    ] {
        let access = Access {
            owner,
            group,
            mode: 0o660,
            ..ACCESS
        };
        let wanted = (owner.unwrap_or(0), group.unwrap_or(0));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let observer = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    let file = std::fs::symlink_metadata(path);
                    let file = file.ok().filter(|file| (file.uid(), file.gid()) != wanted);
                    seen |= file.map_or(0, |file| file.mode() & 0o7777);
                }
                seen
            });
            let mut rights = (0..300).map(|_| {
                let outcome = bound(&plan(&[&[stream(path)]], access));
                let file = std::fs::symlink_metadata(path).unwrap();
                outcome.bound.remove_paths();
                ((file.uid(), file.gid()), file.mode() & 0o7777)
            });
            let are_right = rights.all(|one| one == (wanted, 0o660));
            done.store(true, Ordering::Relaxed);
            assert!(are_right, "{path:?}");
            assert_eq!(observer.join().unwrap(), 0);
        });
    }
    nix::sys::stat::umask(umask);
}

#[test]
fn where_their_rights_are_not_enough_a_path_is_bound_through_its_folder() {
    let folder = Folder::new();
    let Some(srv) = theirs(&folder, "srv") else {
        return;
    };
    // They can move it, and not write to it.
    std::fs::create_dir(srv.join("roots")).unwrap();
    let shared = folder.join("shared");
    std::fs::create_dir(&shared).unwrap();
    chown(&shared, None, Some(THEM)).unwrap();
    std::fs::set_permissions(&shared, Permissions::from_mode(0o2775)).unwrap();
    for path in [srv.join("roots/s"), shared.join("new/s")] {
        let outcome = bound(&single(stream(&path)));
        let name = SockRef::from(&first(&outcome).fd).local_addr().unwrap();
        let name = name.as_pathname().unwrap().to_path_buf();
        assert!(name.starts_with("/proc/self/fd"), "{name:?}");
        UnixStream::connect(&path).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o7777), (0, 0o600));
        outcome.bound.withdraw();
        assert!(!path.exists());
    }
    assert!(!shared.join("new").exists());
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
fn what_is_to_stay_stays() {
    let folder = Folder::new();
    let path = folder.join("s");
    let mut plan = with_links(stream(&path), &[folder.join("link")]);
    listener(&mut plan, 0).settings_mut().remove_on_stop = false;
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
