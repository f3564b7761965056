use super::*;
use nix::sys::stat::{SFlag, makedev, mknod};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::sync::atomic::{AtomicU32, Ordering};

/// A user that there is not.
const THEM: u32 = 4_711;
const THEIRS: Hand = Hand::Theirs {
    uid: THEM,
    gid: THEM,
};

/// A folder of root's, with one of theirs in it. `None` for who cannot give anything away.
struct Ground(PathBuf);

impl Ground {
    fn new() -> Option<Ground> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("listend-walk-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let ground = Ground(path);
        fs::create_dir(ground.at("theirs")).unwrap();
        ground.give("theirs");
        Some(ground)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn give(&self, name: &str) {
        chown(self.at(name), Some(THEM), Some(THEM)).unwrap();
    }

    fn file(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.at(name), text).unwrap();
        fs::set_permissions(self.at(name), Permissions::from_mode(mode)).unwrap();
    }

    fn link(&self, to: &str, name: &str) {
        symlink(self.at(to), self.at(name)).unwrap();
    }

    fn append(&self, name: &str) -> Result<(), Refused> {
        match open_to_append(&self.at(name), Some(THEM))? {
            Output::File(mut file) => file.write_all(b"more\n").unwrap(),
            Output::Special(_) => {}
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<String, Refused> {
        let mut text = String::new();
        open_to_read(&self.at(name))?
            .read_to_string(&mut text)
            .unwrap();
        Ok(text)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn why(refused: Result<impl fmt::Debug, Refused>) -> Option<Why> {
    refused.unwrap_err().why
}

#[test]
fn a_hand_is_on_an_entry_of_whoever_may_replace_it() {
    let stat = |uid, gid, mode| {
        let mut stat = nix::sys::stat::stat("/").unwrap();
        (stat.st_uid, stat.st_gid, stat.st_mode) = (uid, gid, libc::S_IFDIR | mode);
        stat
    };
    let theirs = |uid, gid| Hand::Theirs { uid, gid };
    let entry = stat(0, 0, 0o755);
    for (folder, expected) in [
        (stat(0, 0, 0o755), Hand::Ours),
        // Group root is root's.
        (stat(0, 0, 0o775), Hand::Ours),
        (stat(0, 7, 0o755), Hand::Ours),
        (stat(0, 7, 0o775), theirs(NOBODY, 7)),
        (stat(0, 7, 0o777), Hand::ANYBODY),
        (stat(0, 7, 0o1777), Hand::Ours),
        (stat(0, 7, 0o1775), Hand::Ours),
        (stat(THEM, 7, 0o755), theirs(THEM, 7)),
        (stat(THEM, 0, 0o755), theirs(THEM, NOBODY)),
        (stat(THEM, 7, 0o775), theirs(NOBODY, 7)),
        (stat(THEM, 7, 0o1777), Hand::ANYBODY),
    ] {
        let mode = folder.st_mode;
        assert_eq!(
            Hand::on(&folder, Access::Mode, Some(&entry)),
            expected,
            "{mode:o}"
        );
    }
    let sticky = stat(0, 0, 0o1777);
    let entry = stat(THEM, THEM, 0o644);
    assert_eq!(
        Hand::on(&sticky, Access::Mode, Some(&entry)),
        theirs(THEM, NOBODY)
    );
    assert_eq!(Hand::on(&sticky, Access::Mode, None), Hand::ANYBODY);
    // A list gives nobody more than its mask, which is where the bits of the group are.
    let entry = stat(0, 0, 0o755);
    for (folder, expected) in [
        (stat(0, 0, 0o755), Hand::Ours),
        (stat(0, 0, 0o775), Hand::ANYBODY),
        (stat(0, 7, 0o775), Hand::ANYBODY),
        (stat(0, 0, 0o1775), Hand::Ours),
        (stat(THEM, 7, 0o775), Hand::ANYBODY),
    ] {
        let mode = folder.st_mode;
        let hand = Hand::on(&folder, Access::Listed, Some(&entry));
        assert_eq!(hand, expected, "{mode:o}");
    }
    assert_eq!(Hand::Ours.and(THEIRS), THEIRS);
    assert_eq!(THEIRS.and(THEIRS), THEIRS);
    assert_eq!(THEIRS.and(theirs(THEM + 1, THEM)), theirs(NOBODY, THEM));
    assert_eq!(THEIRS.and(theirs(THEM, 7)), theirs(THEM, NOBODY));
    assert_eq!(THEIRS.and(Hand::ANYBODY), Hand::ANYBODY);
}

#[test]
fn links_are_followed_where_only_root_can_make_them() {
    let Some(ground) = Ground::new() else { return };
    fs::create_dir(ground.at("real")).unwrap();
    ground.file("real/file", "text\n", 0o600);
    ground.link("real", "folder");
    symlink("folder/file", ground.at("link")).unwrap();
    symlink("folder/../real/new", ground.at("new")).unwrap();
    assert_eq!(ground.read("link").unwrap(), "text\n");
    ground.append("link").unwrap();
    assert_eq!(ground.read("real/file").unwrap(), "text\nmore\n");
    ground.append("new").unwrap();
    assert_eq!(ground.read("real/new").unwrap(), "more\n");
    let place = Place::of(&ground.at("folder/file")).unwrap();
    assert_eq!(place.path(), ground.at("real/file"));
    assert_eq!(place.hand_on_folder(), Hand::Ours);
    let (place, missing) = Place::reach(&ground.at("folder/a/b/c")).unwrap();
    assert_eq!(place.path(), ground.at("real/a"));
    assert_eq!(missing, ["b", "c"]);
    symlink("loop", ground.at("loop")).unwrap();
    assert_eq!(ground.read("loop").unwrap_err().errno, Errno::ELOOP);
    assert_eq!(ground.read("link/x").unwrap_err().errno, Errno::ENOTDIR);
    assert_eq!(ground.append("none/x").unwrap_err().errno, Errno::ENOENT);
    // Their text names nothing that could be opened.
    let pipe = std::io::pipe().unwrap();
    let link = format!("/proc/self/fd/{}", pipe.1.as_raw_fd());
    assert!(matches!(
        open_to_append(Path::new(&link), None),
        Ok(Output::Special(_))
    ));
}

#[test]
fn nothing_of_root_is_written_through_what_they_made() {
    let Some(ground) = Ground::new() else { return };
    ground.file("secret", "secret\n", 0o644);
    ground.link("secret", "theirs/log");
    assert_eq!(why(ground.append("theirs/log")), Some(Why::Link(THEIRS)));
    // Nor is anything made there.
    ground.link("made", "theirs/new");
    assert_eq!(why(ground.append("theirs/new")), Some(Why::Link(THEIRS)));
    assert!(!ground.at("made").exists());
    // A folder that is a link, and what may be anywhere by now.
    ground.link("", "theirs/up");
    assert_eq!(
        why(ground.append("theirs/up/secret")),
        Some(Why::Link(THEIRS))
    );
    fs::create_dir_all(ground.at("theirs/deep")).unwrap();
    let up = ground.append("theirs/deep/../../secret");
    assert_eq!(why(up), Some(Why::Link(THEIRS)));
    // Another name of it.
    fs::hard_link(ground.at("secret"), ground.at("theirs/hard")).unwrap();
    assert_eq!(why(ground.append("theirs/hard")), Some(Why::Foreign));
    // A device and a FIFO.
    let rights = Mode::from_bits_truncate(0o600);
    let null = makedev(1, 3);
    mknod(&ground.at("theirs/null"), SFlag::S_IFCHR, rights, null).unwrap();
    assert_eq!(why(ground.append("theirs/null")), Some(Why::Special));
    ground.link("theirs/null", "null");
    assert_eq!(why(ground.append("null")), Some(Why::Special));
    nix::unistd::mkfifo(&ground.at("theirs/fifo"), rights).unwrap();
    assert_eq!(why(ground.append("theirs/fifo")), Some(Why::Special));
    // Somebody else's file.
    ground.file("theirs/other", "", 0o600);
    chown(ground.at("theirs/other"), Some(THEM + 1), None).unwrap();
    assert_eq!(why(ground.append("theirs/other")), Some(Why::Foreign));
    assert_eq!(ground.read("secret").unwrap(), "secret\n");
}

#[test]
fn what_they_could_write_themselves_is_written() {
    let Some(ground) = Ground::new() else { return };
    // As root made it at an earlier start, and as they made it.
    ground.append("theirs/log").unwrap();
    ground.append("theirs/log").unwrap();
    assert_eq!(
        ground.read("theirs/log"),
        Err(Refused {
            path: ground.at("theirs/log"),
            errno: Errno::EPERM,
            why: Some(Why::Foreign),
        })
    );
    assert_eq!(fs::read(ground.at("theirs/log")).unwrap(), b"more\nmore\n");
    ground.file("theirs/own", "", 0o600);
    ground.give("theirs/own");
    ground.append("theirs/own").unwrap();
    assert_eq!(ground.read("theirs/own").unwrap(), "more\n");
    // A link of theirs is followed with their rights: `current`, say, to the newest release.
    fs::create_dir(ground.at("theirs/1")).unwrap();
    ground.give("theirs/1");
    ground.link("theirs/1", "theirs/current");
    ground.append("theirs/current/log").unwrap();
    assert_eq!(ground.read("theirs/current/log").unwrap(), "more\n");
    let made = fs::metadata(ground.at("theirs/1/log")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), THEM);
}

#[test]
fn nothing_of_root_is_read_for_them() {
    let Some(ground) = Ground::new() else { return };
    ground.file("secret", "secret\n", 0o600);
    ground.link("secret", "theirs/env");
    assert_eq!(why(ground.read("theirs/env")), Some(Why::Link(THEIRS)));
    // Moved from where it was safe.
    ground.file("theirs/moved", "secret\n", 0o600);
    assert_eq!(why(ground.read("theirs/moved")), Some(Why::Foreign));
    ground.file("theirs/public", "A=1\n", 0o644);
    assert_eq!(ground.read("theirs/public").unwrap(), "A=1\n");
}

#[test]
fn in_a_sticky_folder_everybody_has_what_is_theirs() {
    let Some(ground) = Ground::new() else { return };
    fs::create_dir(ground.at("tmp")).unwrap();
    fs::set_permissions(ground.at("tmp"), Permissions::from_mode(0o1777)).unwrap();
    ground.file("secret", "secret\n", 0o600);
    ground.link("secret", "tmp/ours");
    assert_eq!(ground.read("tmp/ours").unwrap(), "secret\n");
    ground.link("secret", "tmp/theirs");
    std::os::unix::fs::lchown(ground.at("tmp/theirs"), Some(THEM), Some(THEM)).unwrap();
    let by_them = Hand::Theirs {
        uid: THEM,
        gid: NOBODY,
    };
    assert_eq!(why(ground.read("tmp/theirs")), Some(Why::Link(by_them)));
    ground.append("tmp/log").unwrap();
    assert_eq!(ground.read("tmp/log").unwrap(), "more\n");
}

#[test]
#[expect(clippy::print_stderr, reason = "says why the test was skipped")]
fn whom_an_access_control_list_names_has_a_hand_in_the_folder() {
    let Some(ground) = Ground::new() else { return };
    fs::create_dir(ground.at("listed")).unwrap();
    ground.file("secret", "secret\n", 0o600);
    ground.link("secret", "listed/log");
    assert_eq!(ground.read("listed/log").unwrap(), "secret\n");
    let mut setfacl = std::process::Command::new("setfacl");
    setfacl.args(["-m", &format!("u:{THEM}:rwx")]);
    match setfacl.arg(ground.at("listed")).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            eprintln!("skipped: no access control lists here: {why}");
            return;
        }
        Err(error) => {
            eprintln!("skipped: no setfacl (package acl): {error}");
            return;
        }
    }
    // It is root's by its owner and group, and yet they can write to it.
    let by_anybody = Some(Why::Link(Hand::ANYBODY));
    assert_eq!(why(ground.append("listed/log")), by_anybody);
    assert_eq!(why(ground.read("listed/log")), by_anybody);
    assert_eq!(fs::read(ground.at("secret")).unwrap(), b"secret\n");
    let place = Place::of(&ground.at("listed/log")).unwrap();
    assert_eq!(place.hand(None), Hand::ANYBODY);
    // The list of a parent is one of the whole way.
    fs::create_dir(ground.at("listed/deep")).unwrap();
    let place = Place::of(&ground.at("listed/deep/log")).unwrap();
    assert_eq!(place.hand_on_folder(), Hand::ANYBODY);
}

#[test]
fn a_link_of_theirs_is_not_followed_where_they_can_write_no_more() {
    let Some(ground) = Ground::new() else { return };
    ground.file("secret", "secret\n", 0o600);
    ground.file("public", "public\n", 0o644);
    let by_them = Hand::Theirs {
        uid: THEM,
        gid: NOBODY,
    };
    for to in ["secret", "public"] {
        let name = format!("to-{to}");
        ground.link(to, &name);
        std::os::unix::fs::lchown(ground.at(&name), Some(THEM), Some(THEM)).unwrap();
        assert_eq!(why(ground.append(&name)), Some(Why::Link(by_them)));
    }
    assert_eq!(why(ground.read("to-secret")), Some(Why::Link(by_them)));
    // With their rights they read what they can read.
    assert_eq!(ground.read("to-public").unwrap(), "public\n");
    assert_eq!(why(find(&ground.at("to-public"))), Some(Why::Link(by_them)));
}

#[test]
fn no_link_of_theirs_leads_to_what_is_listends_own_in_proc() {
    let Some(ground) = Ground::new() else { return };
    // Anybody may open these by their mode; whose they are is up to who opens them.
    let slack = fs::metadata("/proc/self/timerslack_ns").unwrap();
    assert_eq!(slack.permissions().mode() & 0o777, 0o666);
    symlink("/proc/self/timerslack_ns", ground.at("theirs/log")).unwrap();
    assert_eq!(why(ground.append("theirs/log")), Some(Why::Link(THEIRS)));
    symlink("/proc/self/status", ground.at("theirs/env")).unwrap();
    assert_eq!(why(ground.read("theirs/env")), Some(Why::Link(THEIRS)));
    symlink("/proc/self", ground.at("theirs/self")).unwrap();
    assert_eq!(
        why(ground.read("theirs/self/status")),
        Some(Why::Link(THEIRS))
    );
    symlink("/sys/kernel/uevent_seqnum", ground.at("theirs/sys")).unwrap();
    assert_eq!(why(ground.read("theirs/sys")), Some(Why::Link(THEIRS)));
}

#[test]
fn their_rights_are_laid_down_again() {
    let Some(ground) = Ground::new() else { return };
    ground.file("secret", "secret\n", 0o600);
    let groups = getgroups().unwrap();
    let path = ground.at("secret");
    assert_eq!(THEIRS.act(|| fs::read(&path).is_err()), Some(true));
    assert_eq!(fs::read(&path).unwrap(), b"secret\n");
    assert_eq!(getgroups().unwrap(), groups);
}

#[test]
fn a_handle_is_on_what_is_there_and_not_where_their_links_lead() {
    let Some(ground) = Ground::new() else { return };
    ground.file("file", "ours", 0o644);
    ground.link("file", "ours");
    ground.link("theirs", "way");
    ground.file("theirs/file", "theirs", 0o644);
    ground.link("file", "theirs/link");
    let inode = |name: &str| fs::metadata(ground.at(name)).unwrap().ino();
    for (path, wanted) in [
        ("file", "file"),
        ("ours", "file"),
        ("way/file", "theirs/file"),
        ("theirs/file", "theirs/file"),
        ("theirs", "theirs"),
        ("theirs/..", "."),
    ] {
        let (handle, file) = handle_on(&ground.at(path)).unwrap();
        assert_eq!(file.st_ino, inode(wanted), "{path}");
        assert_eq!(fstat(&handle).unwrap().st_ino, file.st_ino);
    }
    // What is above a folder of theirs is where they have moved it to.
    fs::create_dir(ground.at("theirs/sub")).unwrap();
    for path in ["theirs/link", "theirs/sub/../file"] {
        assert!(matches!(
            why(handle_on(&ground.at(path))),
            Some(Why::Link(_))
        ));
    }
    for (path, missing) in [("none/below", "none"), ("theirs/none", "theirs/none")] {
        let refused = handle_on(&ground.at(path)).unwrap_err();
        assert_eq!(
            (refused.errno, refused.path),
            (Errno::ENOENT, ground.at(missing))
        );
    }
    let refused = handle_on(&ground.at("file/below")).unwrap_err();
    assert_eq!(refused.errno, Errno::ENOTDIR);
}
