//! The way to a path, for a process that may do more than those who can change the way.
//!
//! Root that opens `/srv/app/log/x` opens whatever the owner of `/srv/app` makes of it. So a way is
//! walked folder by folder, each opened in the one before, and it is noted whose hand could change
//! it: that of everybody who may replace an entry on it. Symbolic links are followed where nobody but
//! root and ourselves could have made them, and nowhere else (as CHASE_SAFE of systemd, and
//! protected_symlinks of proc(5) for sticky folders). The end of a way is a [`Place`]: the descriptor
//! of a folder and a name in it. What is done there is done relative to that descriptor.
//!
//! Where others have a hand in it, files are opened with their rights ([`Hand::act`]), so that the
//! kernel decides what they could have opened themselves.

mod denied;

pub use denied::{closed_to_us, denied};

use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, getegid, geteuid, getgroups, setfsgid, setfsuid, setgroups, unlinkat,
};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// The number of links that the kernel follows (path_resolution(7)).
const MOST_LINKS: u32 = 40;
/// The number of tries with a file that appears and disappears.
const ATTEMPTS: u32 = 16;
/// The user and group of nobody, whom no file should belong to.
const NOBODY: u32 = 65534;
/// The flags of a descriptor that only identifies a file.
const HANDLE: OFlag = OFlag::O_PATH
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The users who can change something in the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand {
    /// Root and the user that this process runs as.
    Ours,
    /// Other users, too, who have at least these rights.
    Theirs {
        /// The user; nobody where it may be several users.
        uid: u32,
        /// The group; nogroup where it may be several groups.
        gid: u32,
    },
}

impl Hand {
    const ANYBODY: Hand = Hand::Theirs {
        uid: NOBODY,
        gid: NOBODY,
    };

    /// The users who can change one of two folders on one way.
    fn and(self, other: Hand) -> Hand {
        let same = |one, other| if one == other { one } else { NOBODY };
        match (self, other) {
            (Hand::Ours, hand) | (hand, Hand::Ours) => hand,
            (Hand::Theirs { uid, gid }, Hand::Theirs { uid: u, gid: g }) => Hand::Theirs {
                uid: same(uid, u),
                gid: same(gid, g),
            },
        }
    }

    /// The users who can replace an entry of a folder; without an entry, those who can create one.
    fn on(folder: &FileStat, access: Access, entry: Option<&FileStat>) -> Hand {
        let group = folder.st_gid;
        let is_our_group = group == 0 || group == getegid().as_raw();
        let gid = if is_our_group { NOBODY } else { group };
        if folder.st_mode & 0o002 != 0 && folder.st_mode & libc::S_ISVTX == 0 {
            return Hand::ANYBODY;
        }
        let is_group_writable = folder.st_mode & 0o020 != 0;
        let by_group = is_group_writable && !is_our_group;
        // The bits of the group are the mask then (acl(5)), and whom the list names may write.
        let by_list = is_group_writable && access == Access::Listed;
        match entry {
            // Only the owners of file and folder (unlink(2)).
            Some(entry) if folder.st_mode & libc::S_ISVTX != 0 && is_ours(folder.st_uid) => {
                if is_ours(entry.st_uid) {
                    Hand::Ours
                } else {
                    Hand::Theirs {
                        uid: entry.st_uid,
                        gid: NOBODY,
                    }
                }
            }
            _ if folder.st_mode & 0o002 != 0 || by_list => Hand::ANYBODY,
            _ if by_group => Hand::Theirs { uid: NOBODY, gid },
            _ if is_ours(folder.st_uid) => Hand::Ours,
            _ => Hand::Theirs {
                uid: folder.st_uid,
                gid,
            },
        }
    }

    /// Acts with no more rights in the file system than the others have (setfsuid(2)). `None` where
    /// this process cannot take them on: then it is not root, and has no more than its user.
    pub fn act<T>(self, act: impl FnOnce() -> T) -> Option<T> {
        let Hand::Theirs { uid, gid } = self else {
            return Some(act());
        };
        let groups = getgroups().ok()?;
        setgroups(&[]).ok()?;
        let before = (setfsuid(Uid::from_raw(uid)), setfsgid(Gid::from_raw(gid)));
        // They answer with what was before, and whether it was done only the next call tells.
        let is_done = (setfsuid(Uid::from_raw(uid)), setfsgid(Gid::from_raw(gid)))
            == (Uid::from_raw(uid), Gid::from_raw(gid));
        let answer = is_done.then(act);
        setfsuid(before.0);
        setfsgid(before.1);
        // Who could drop them can take them on again.
        let _same_right = setgroups(&groups);
        answer
    }
}

/// The source of the rights to write to a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// The mode of the folder.
    Mode,
    /// The mode and an access control list, or one cannot be ruled out.
    Listed,
}

impl Access {
    /// Asks only where a list would give somebody a right to write.
    fn to(folder: &OwnedFd, is: &FileStat) -> Access {
        if is.st_mode & 0o020 != 0 && sys::may_have_acl(folder) {
            Access::Listed
        } else {
            Access::Mode
        }
    }
}

fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Why a path was not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The part of the path that was refused.
    pub path: PathBuf,
    /// ELOOP for a link that is not followed, EPERM for a file that is not opened, or the system's
    /// answer.
    pub errno: Errno,
    /// Why it was refused here and not by the system.
    pub why: Option<Why>,
}

/// The right that other users could abuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A symbolic link, or `..`, that somebody else can turn elsewhere.
    Link(Hand),
    /// A device, FIFO and the like that somebody else can put there.
    Special,
    /// A file that belongs to neither us nor them, or has other names.
    Foreign,
}

impl Why {
    /// The reason in words, with the path concerned.
    pub fn about(self, path: &Path) -> String {
        let path = path.display();
        match self {
            Why::Link(hand) => {
                let who = match hand {
                    Hand::Theirs { uid, .. } if uid != NOBODY => format!("user {uid}"),
                    _ => "another user".to_owned(),
                };
                format!("{path} is a symbolic link that {who} can change, and is not followed")
            }
            Why::Special => {
                format!("{path} is not a regular file, and another user can replace it")
            }
            Why::Foreign => format!(
                "another user can replace {path}, and it is a file that this user may not open, \
                 or has another hard link"
            ),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            None => write!(f, "{}: {}", self.path.display(), self.errno.desc()),
            Some(why) => f.write_str(&why.about(&self.path)),
        }
    }
}

impl std::error::Error for Refused {}

/// The end of a way: a name in an open folder.
#[derive(Debug)]
pub struct Place {
    folder: OwnedFd,
    holds: FileStat,
    access: Access,
    name: OsString,
    /// The folder, as it was found.
    at: PathBuf,
    /// The users who can replace the folder.
    hand: Hand,
    /// Whether the folder is of proc(5), whose links lead to files that their text does not name.
    is_proc: bool,
}

impl Place {
    /// Opens the folder of a path, whether the path exists or not. The last part is not followed.
    ///
    /// # Errors
    ///
    /// ENOENT also for a folder that is missing.
    pub fn of(path: &Path) -> Result<Place, Refused> {
        let (place, missing) = Place::reach(path)?;
        if missing.is_empty() {
            Ok(place)
        } else {
            Err(place.refused(Errno::ENOENT))
        }
    }

    /// Opens the innermost folder of a path that exists; also answers with the parts missing below it.
    ///
    /// # Errors
    ///
    /// What keeps it from going on.
    pub fn reach(path: &Path) -> Result<(Place, Vec<OsString>), Refused> {
        walk(path, false)
    }

    /// The name in the folder.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The whole path, as it was found.
    pub fn path(&self) -> PathBuf {
        self.at.join(&self.name)
    }

    /// The folder itself.
    pub fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    /// The status of the folder (stat(2)).
    pub fn holds(&self) -> &FileStat {
        &self.holds
    }

    /// The users who can replace the folder.
    pub fn hand_on_folder(&self) -> Hand {
        self.hand
    }

    /// The users who can replace the file at the place.
    pub fn hand(&self, entry: Option<&FileStat>) -> Hand {
        self.hand.and(Hand::on(&self.holds, self.access, entry))
    }

    /// The status of the file at the place (lstat(2)).
    ///
    /// # Errors
    ///
    /// The errors of the call, as for all below.
    pub fn look(&self) -> nix::Result<FileStat> {
        fstatat(&self.folder, self.name(), AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// A handle on what is there, a link too (O_PATH), and what it is.
    pub fn handle(&self) -> nix::Result<(OwnedFd, FileStat)> {
        let handle = openat(&self.folder, self.name(), HANDLE, Mode::empty())?;
        let file = fstat(&handle)?;
        Ok((handle, file))
    }

    /// The target of the symbolic link at the place.
    pub fn target(&self) -> nix::Result<PathBuf> {
        readlinkat(&self.folder, self.name()).map(PathBuf::from)
    }

    /// Removes it; no folder.
    pub fn remove(&self) -> nix::Result<()> {
        unlinkat(&self.folder, self.name(), UnlinkatFlags::NoRemoveDir)
    }

    /// Removes a folder that is empty.
    pub fn remove_folder(&self) -> nix::Result<()> {
        unlinkat(&self.folder, self.name(), UnlinkatFlags::RemoveDir)
    }

    /// Gives it another name in its folder, whatever has that name before.
    pub fn replace(&self, name: &OsStr) -> nix::Result<()> {
        renameat(&self.folder, self.name(), &self.folder, name)
    }

    /// Renames the file at the place, unless the name is taken.
    pub fn rename(&self, name: &OsStr) -> nix::Result<()> {
        match sys::rename_if_free(&self.folder, self.name(), name) {
            // A file system that cannot (rename(2)): looking first is what is left.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                match fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Err(Errno::ENOENT) => self.replace(name),
                    Err(errno) => Err(errno),
                    Ok(_) => Err(Errno::EEXIST),
                }
            }
            done => done,
        }
    }

    /// Another name in the same folder.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn beside(&self, name: impl Into<OsString>) -> nix::Result<Place> {
        let folder = self.folder.try_clone().map_err(|_| Errno::EMFILE)?;
        Ok(Place {
            folder,
            name: name.into(),
            at: self.at.clone(),
            ..*self
        })
    }

    fn refused(&self, errno: Errno) -> Refused {
        Refused {
            path: self.path(),
            errno,
            why: None,
        }
    }

    fn because(&self, errno: Errno, why: Why) -> Refused {
        Refused {
            why: Some(why),
            ..self.refused(errno)
        }
    }

    /// Goes into a folder of this name.
    fn enter(&mut self, name: &OsStr, folder: OwnedFd, hand: Hand) -> nix::Result<()> {
        self.holds = fstat(&folder)?;
        self.access = Access::to(&folder, &self.holds);
        self.is_proc = fstatfs(&folder)?.filesystem_type() == PROC_SUPER_MAGIC;
        self.folder = folder;
        self.at.push(name);
        self.hand = self.hand.and(hand);
        Ok(())
    }

    fn start(from: &Path) -> Result<Place, Refused> {
        let failed = |errno| Refused {
            path: from.to_owned(),
            errno,
            why: None,
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(from, flags, Mode::empty()).map_err(failed)?;
        let holds = fstat(&folder).map_err(failed)?;
        Ok(Place {
            holds,
            access: Access::to(&folder, &holds),
            folder,
            name: OsString::from("."),
            at: from.to_owned(),
            hand: Hand::Ours,
            is_proc: false,
        })
    }
}

/// The parts of a path that are still to be gone, the next one last.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    let parts = path.components().rev();
    parts.filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

/// Goes to a path, whose last part is followed or not. Answers with what is missing below.
fn walk(path: &Path, follows_last: bool) -> Result<(Place, Vec<OsString>), Refused> {
    let from = |path: &Path| Path::new(if path.is_absolute() { "/" } else { "." }).to_owned();
    let mut place = Place::start(&from(path))?;
    let mut rest: Vec<OsString> = parts(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        place.name = name;
        let is_last = rest.is_empty();
        if is_last && !follows_last && place.name != ".." {
            return Ok((place, rest));
        }
        if place.name == ".." && place.hand != Hand::Ours {
            return Err(place.because(Errno::ELOOP, Why::Link(place.hand)));
        }
        let flags = HANDLE | OFlag::O_DIRECTORY;
        let found = match openat(&place.folder, place.name(), flags, Mode::empty()) {
            Ok(folder) => fstat(&folder).map(|is| (folder, is, true)),
            Err(Errno::ENOTDIR) => place.handle().map(|(handle, is)| (handle, is, false)),
            Err(Errno::ENOENT) => {
                rest.reverse();
                return Ok((place, rest));
            }
            Err(errno) => Err(errno),
        };
        let (handle, file, is_folder) = found.map_err(|errno| place.refused(errno))?;
        let hand = if place.name == ".." {
            Hand::Ours
        } else {
            Hand::on(&place.holds, place.access, Some(&file))
        };
        if is_folder {
            let name = place.name.clone();
            let entered = place.enter(&name, handle, hand);
            entered.map_err(|errno| place.refused(errno))?;
            if is_last {
                place.name = OsString::from(".");
            }
            continue;
        }
        if file.st_mode & libc::S_IFMT != libc::S_IFLNK {
            if is_last {
                return Ok((place, rest));
            }
            return Err(place.refused(Errno::ENOTDIR));
        }
        // The link of another user leads where that user wanted, even if nobody else can write to the
        // folder by now.
        let hand = match place.hand.and(hand) {
            Hand::Ours if !is_ours(file.st_uid) => Hand::Theirs {
                uid: file.st_uid,
                gid: NOBODY,
            },
            hand => hand,
        };
        if hand != Hand::Ours {
            return Err(place.because(Errno::ELOOP, Why::Link(hand)));
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(place.refused(Errno::ELOOP));
        }
        if place.is_proc {
            if is_last {
                return Ok((place, rest));
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let name = place.name.clone();
            let entered = openat(&place.folder, name.as_os_str(), flags, Mode::empty())
                .and_then(|folder| place.enter(&name, folder, Hand::Ours));
            entered.map_err(|errno| place.refused(errno))?;
            continue;
        }
        let target = place.target().map_err(|errno| place.refused(errno))?;
        if target.is_absolute() {
            place = Place::start(&from(&target))?;
        }
        rest.extend(parts(&target));
    }
    Ok((place, rest))
}

/// The end of a path, links followed.
struct End {
    place: Place,
    /// The file at the end, if it exists.
    found: Option<(OwnedFd, FileStat)>,
}

fn end_of(path: &Path) -> Result<End, Refused> {
    let (place, missing) = walk(path, true)?;
    if !missing.is_empty() {
        return Err(place.refused(Errno::ENOENT));
    }
    let found = if place.is_proc {
        // Its links lead where only the kernel knows.
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        openat(&place.folder, place.name(), flags, Mode::empty())
            .and_then(|handle| fstat(&handle).map(|file| (handle, file)))
    } else {
        place.handle()
    };
    match found {
        Ok(found) => Ok(End {
            place,
            found: Some(found),
        }),
        Err(Errno::ENOENT) => Ok(End { place, found: None }),
        Err(errno) => Err(place.refused(errno)),
    }
}

impl End {
    fn refused(&self, errno: Errno) -> Refused {
        self.place.refused(errno)
    }
}

/// Opens the very file that a handle is for.
pub fn reopen(handle: &OwnedFd, flags: OFlag) -> nix::Result<OwnedFd> {
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    open(link.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
}

fn is_regular(file: &FileStat) -> bool {
    file.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// Opens a file as others could open it: where they have a hand in it, with their rights.
fn as_theirs(hand: Hand, file: &End, handle: &OwnedFd, flags: OFlag) -> Result<OwnedFd, Refused> {
    let opened = match hand.act(|| reopen(handle, flags)) {
        Some(opened) => opened,
        // Without root's rights there are none to abuse.
        None if !geteuid().is_root() => reopen(handle, flags),
        None => Err(Errno::EPERM),
    };
    opened.map_err(|errno| match errno {
        Errno::EACCES | Errno::EPERM => file.place.because(Errno::EPERM, Why::Foreign),
        errno => file.refused(errno),
    })
}

/// Whether it is a file of proc(5) or sysfs(5), or that cannot be told. What they say, and do, is up to
/// who opens them: `/proc/self` is this process, no matter who made the link to it.
fn is_of_kernel(file: &OwnedFd) -> bool {
    fstatfs(file).map_or(true, |system| {
        [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&system.filesystem_type())
    })
}

/// Follows a path with the rights of those who steer it, because ours would not be safe with them.
fn steered(refused: Refused, path: &Path, flags: OFlag) -> Result<OwnedFd, Refused> {
    let Some(Why::Link(hand)) = refused.why else {
        return Err(refused);
    };
    let mode = Mode::from_bits_truncate(0o640);
    let opened = hand.act(|| open(path, flags | OFlag::O_CLOEXEC, mode));
    match opened {
        Some(Ok(file))
            if fstat(&file).is_ok_and(|file| is_regular(&file)) && !is_of_kernel(&file) =>
        {
            Ok(file)
        }
        _ => Err(refused),
    }
}

/// Gives a handle (O_PATH) on what is at a path, links followed that nobody else could have made. Others may be
/// able to exchange what is there for another file or folder of theirs.
///
/// # Errors
///
/// What is in the way, and which part of the path it is about.
pub fn handle_on(path: &Path) -> Result<(OwnedFd, FileStat), Refused> {
    if path == Path::new("/") {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(path, flags, Mode::empty());
        return root
            .and_then(|root| fstat(&root).map(|file| (root, file)))
            .map_err(|errno| Refused {
                path: path.to_owned(),
                errno,
                why: None,
            });
    }
    if let Some(found) = without_links(path)? {
        return Ok(found);
    }
    let end = end_of(path)?;
    end.found.ok_or_else(|| end.place.refused(Errno::ENOENT))
}

/// The same for a path that has no link in it, whoever could have made one: most have none, and then nothing else
/// needs to be known of its folders. `None` where that is not so.
fn without_links(path: &Path) -> Result<Option<(OwnedFd, FileStat)>, Refused> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Ok(None);
    }
    let folder = HANDLE | OFlag::O_DIRECTORY;
    let Ok(mut here) = open("/", folder, Mode::empty()) else {
        return Ok(None);
    };
    let mut gone = PathBuf::from("/");
    let mut rest = path
        .strip_prefix("/")
        .unwrap_or(path)
        .components()
        .peekable();
    while let Some(part) = rest.next() {
        gone.push(part);
        let opened = match openat(&here, part.as_os_str(), folder, Mode::empty()) {
            Err(Errno::ENOTDIR) if rest.peek().is_none() => {
                openat(&here, part.as_os_str(), HANDLE, Mode::empty())
            }
            opened => opened,
        };
        here = match opened {
            Ok(next) => next,
            Err(Errno::ENOENT) => {
                return Err(Refused {
                    path: gone,
                    errno: Errno::ENOENT,
                    why: None,
                });
            }
            Err(_) => return Ok(None),
        };
    }
    let is_link = |file: &FileStat| file.st_mode & libc::S_IFMT == libc::S_IFLNK;
    Ok(fstat(&here)
        .ok()
        .filter(|file| !is_link(file))
        .map(|file| (here, file)))
}

/// Finds a file that nobody else can exchange, links followed, and gives a handle on it (O_PATH).
///
/// # Errors
///
/// What is in the way, and which part of the path it is about.
pub fn find(path: &Path) -> Result<(OwnedFd, FileStat), Refused> {
    let end = end_of(path)?;
    let Some((handle, file)) = end.found else {
        return Err(end.place.refused(Errno::ENOENT));
    };
    if end.place.hand(Some(&file)) != Hand::Ours {
        return Err(end.place.because(Errno::EPERM, Why::Special));
    }
    Ok((handle, file))
}

/// Opens a file to be read. What others can change is read with their rights.
///
/// # Errors
///
/// What is in the way, and which part of the path it is about.
pub fn open_to_read(path: &Path) -> Result<File, Refused> {
    let flags = OFlag::O_RDONLY;
    let end = match end_of(path) {
        Ok(end) => end,
        Err(refused) => {
            return steered(refused, path, flags | OFlag::O_NONBLOCK).map(File::from);
        }
    };
    let Some((handle, file)) = &end.found else {
        return Err(end.refused(Errno::ENOENT));
    };
    let hand = end.place.hand(Some(file));
    if hand == Hand::Ours {
        let opened = reopen(handle, flags);
        return opened.map(File::from).map_err(|errno| end.refused(errno));
    }
    if !is_regular(file) {
        return Err(end.place.because(Errno::EPERM, Why::Special));
    }
    as_theirs(hand, &end, handle, flags).map(File::from)
}

/// The destination of output.
#[derive(Debug)]
pub enum Output {
    /// A regular file, open for appending.
    File(File),
    /// A handle (O_PATH) on a terminal, a FIFO and so on. To open it may wait, or do something.
    Special(OwnedFd),
}

/// Opens a file to be appended to, and makes it where there is none. `user` is whose output it is:
/// its files are as good as those that were made here.
///
/// # Errors
///
/// What is in the way, and which part of the path it is about.
pub fn open_to_append(path: &Path, user: Option<u32>) -> Result<Output, Refused> {
    // O_NONBLOCK for the case that it has become a FIFO meanwhile; for files it means nothing.
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let mut busy = None;
    for _ in 0..ATTEMPTS {
        let end = match end_of(path) {
            Ok(end) => end,
            Err(refused) => {
                let file = steered(refused, path, flags | OFlag::O_CREAT)?;
                return Ok(Output::File(file.into()));
            }
        };
        let Some((handle, file)) = &end.found else {
            let new = flags | OFlag::O_CREAT | OFlag::O_EXCL | HANDLE.difference(OFlag::O_PATH);
            let mode = Mode::from_bits_truncate(0o640);
            match openat(end.place.folder(), end.place.name(), new, mode) {
                Ok(file) => return Ok(Output::File(file.into())),
                Err(errno @ Errno::EEXIST) => busy = Some(end.refused(errno)),
                Err(errno) => return Err(end.refused(errno)),
            }
            continue;
        };
        let hand = end.place.hand(Some(file));
        if file.st_mode & libc::S_IFMT == libc::S_IFDIR {
            return Err(end.refused(Errno::EISDIR));
        }
        if !is_regular(file) {
            if hand != Hand::Ours {
                return Err(end.place.because(Errno::EPERM, Why::Special));
            }
            let handle = handle.try_clone().map_err(|_| end.refused(Errno::EMFILE))?;
            return Ok(Output::Special(handle));
        }
        let is_known = [Some(0), Some(geteuid().as_raw()), user].contains(&Some(file.st_uid));
        // Another name of it may be in a folder that is root's (protected_hardlinks of proc(5)).
        let opened = if hand == Hand::Ours || (is_known && file.st_nlink == 1) {
            reopen(handle, flags).map_err(|errno| end.refused(errno))?
        } else {
            as_theirs(hand, &end, handle, flags)?
        };
        return Ok(Output::File(opened.into()));
    }
    Err(busy.unwrap_or_else(|| Refused {
        path: path.to_owned(),
        errno: Errno::EAGAIN,
        why: None,
    }))
}

/// The name of the hard link beside a unix path: `.NAME.listend`.
pub fn spare_name(name: &OsStr) -> OsString {
    let mut spare = OsString::from(".");
    spare.push(name);
    spare.push(".listend");
    spare
}

#[cfg(test)]
mod tests;
