//! Descriptors that instances leave for their successors (`FDSTORE=1`, sd_pid_notify_with_fds(3)).
//!
//! They outlive the process: whoever is started next in its place gets them behind its listeners.

use super::token::{NotifyPart, Token};
use crate::core::InstanceId;
use crate::handoff::Stored;
use crate::plan::WorkerId;
use crate::sys::{self, SharedFd};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// Whose they are: every generation of an instance has the same.
pub(super) type Place = (WorkerId, u32);

/// What all instances have left.
#[derive(Debug, Default)]
pub(super) struct FdStore {
    /// Of each instance, in the order of open files ([`sys::order_of_open_files`]).
    kept: BTreeMap<Place, Vec<Kept>>,
    next_id: u64,
    /// Something has come or gone since [`FdStore::take_changed`].
    has_changed: bool,
}

#[derive(Debug)]
struct Kept {
    /// Never used again: what was left later has a higher one.
    id: u64,
    name: String,
    fd: SharedFd,
    is_watched: bool,
}

/// How descriptors are to be kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct How<'a> {
    /// Their name.
    pub name: &'a str,
    /// Whether they are given up when their other end hangs up.
    pub polled: bool,
    /// How many the instance may have altogether.
    pub at_most: u32,
    /// Those with higher numbers are needed for something else.
    pub below: RawFd,
}

/// How many descriptors were not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RefusedFds {
    /// Because there was no room.
    pub no_room: usize,
    /// Because a copy of it could hold up whoever closes that ([`FdKind::MayWait`]).
    pub may_wait: usize,
    /// Because no others were left to listend.
    pub no_numbers: usize,
}

/// What a descriptor means to who keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FdKind {
    /// Closing a copy and poll(2) ask nobody.
    Plain,
    /// poll(2) looks at others, which may be anything: an epoll instance.
    Unwatched,
    /// A file whose server is asked by each close(2) (`flush`), as each exec of a child makes it.
    MayWait,
}

impl FdKind {
    /// Without a call that would ask the file system. `mounts` is /proc/self/mountinfo, once it was read.
    fn of(fd: &SharedFd, mounts: &mut Option<String>) -> FdKind {
        let number = fd.as_raw_fd();
        let link = fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
        let link = link.as_os_str().as_bytes();
        if link == b"anon_inode:[eventpoll]" {
            return FdKind::Unwatched;
        }
        // What has no path is the kernel's own; only memory has seals (memfd_create(2)).
        let is_own = !link.is_empty() && !link.starts_with(b"/");
        if is_own || fcntl(fd, FcntlArg::F_GET_SEALS).is_ok() {
            return FdKind::Plain;
        }
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let mounts = mounts
            .get_or_insert_with(|| fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        match mount.and_then(|mount| type_of_mount(mounts, mount.trim())) {
            Some(name) if !asks_a_server(name) => FdKind::Plain,
            // One of another mount namespace may be anything.
            Some(_) | None => FdKind::MayWait,
        }
    }
}

/// proc_pid_mountinfo(5): the number stands first, the type behind the lone hyphen.
fn type_of_mount<'a>(mounts: &'a str, number: &str) -> Option<&'a str> {
    let mut lines = mounts.lines();
    let is_it = |line: &&str| line.split(' ').next() == Some(number);
    let (_, behind) = lines.find(is_it)?.split_once(" - ")?;
    behind.split(' ').next()
}

fn asks_a_server(file_system: &str) -> bool {
    let names = [
        "fuse", "nfs", "cifs", "smb", "9p", "afs", "ceph", "orangefs",
    ];
    let stacked = ["ecryptfs", "autofs"];
    let mut names = names.iter().chain(&stacked);
    names.any(|name| file_system.starts_with(name))
}

impl FdStore {
    /// Keeps descriptors; one that is kept already is not kept twice. Answers how many were closed.
    ///
    /// A message can bring 253, and any number of messages may come, so each costs little: it is looked for
    /// in order, and no more are looked at than there could be room for.
    pub(super) fn add(
        &mut self,
        epoll: &Epoll,
        instance: InstanceId,
        fds: Vec<SharedFd>,
        how: How<'_>,
    ) -> RefusedFds {
        let kept = self
            .kept
            .entry((instance.worker, instance.index))
            .or_default();
        let mut refused = RefusedFds::default();
        let mut mounts = None;
        for fd in fds {
            let Err(position) = find(kept, &fd) else {
                continue;
            };
            if kept.len() + refused.may_wait >= how.at_most as usize {
                refused.no_room += 1;
                continue;
            }
            if fd.as_raw_fd() >= how.below {
                refused.no_numbers += 1;
                continue;
            }
            let kind = FdKind::of(&fd, &mut mounts);
            if kind == FdKind::MayWait {
                refused.may_wait += 1;
                continue;
            }
            self.next_id += 1;
            self.has_changed = true;
            let id = self.next_id;
            let one = Kept {
                id,
                name: how.name.to_owned(),
                is_watched: how.polled && kind == FdKind::Plain && watch(epoll, id, &fd),
                fd,
            };
            kept.insert(position, one);
        }
        refused
    }

    /// What was left, each with whose it is, its name and whether it is given up when it hangs up.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, Place, &str, bool)> {
        let all = self.kept.iter();
        all.flat_map(|(place, kept)| {
            kept.iter()
                .map(|one| (one.id, *place, &*one.name, one.is_watched))
        })
    }

    /// Whether something has come or gone.
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// Whether something has come or gone since this was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// A descriptor that was left.
    pub(super) fn fd(&self, id: u64) -> Option<BorrowedFd<'_>> {
        let mut all = self.kept.values().flatten();
        all.find(|one| one.id == id).map(|one| one.fd.as_fd())
    }

    /// What was left to another listend.
    pub(super) fn restore(
        &mut self,
        epoll: &Epoll,
        (id, place): (u64, Place),
        (name, polled): (String, bool),
        fd: OwnedFd,
    ) {
        let fd = SharedFd::from(fd);
        self.next_id = self.next_id.max(id);
        self.has_changed = true;
        let kept = self.kept.entry(place).or_default();
        let (Ok(position) | Err(position)) = find(kept, &fd);
        let one = Kept {
            id,
            name,
            is_watched: polled && watch(epoll, id, &fd),
            fd,
        };
        kept.insert(position, one);
    }

    /// Gives up what an instance has left under a name; answers how many those were.
    pub(super) fn remove(&mut self, epoll: &Epoll, instance: InstanceId, name: &str) -> usize {
        let place = (instance.worker, instance.index);
        self.drop_where(epoll, |at, kept| at == place && kept.name == name)
    }

    /// Drops a stored descriptor whose other end has been closed.
    pub(super) fn hung_up(&mut self, epoll: &Epoll, id: u64) {
        self.drop_where(epoll, |_, kept| kept.id == id);
    }

    /// Gives up what any instance of a worker has left.
    pub(super) fn forget(&mut self, epoll: &Epoll, worker: WorkerId) {
        self.drop_where(epoll, |(whose, _), _| whose == worker);
    }

    /// There is room for fewer from now on: what was left first stays. Answers how many were given up.
    pub(super) fn trim(&mut self, epoll: &Epoll, worker: WorkerId, at_most: u32) -> usize {
        let places = (worker, 0)..=(worker, u32::MAX);
        let kept = self.kept.range(places);
        let too_many = kept.flat_map(|(_, kept)| by_age(kept).into_iter().skip(at_most as usize));
        let too_many: BTreeSet<u64> = too_many.map(|one| one.id).collect();
        self.drop_where(epoll, |_, kept| too_many.contains(&kept.id))
    }

    /// Whose instances have left anything.
    pub(super) fn workers(&self) -> Vec<WorkerId> {
        let mut workers: Vec<WorkerId> = self.kept.keys().map(|(worker, _)| *worker).collect();
        workers.dedup();
        workers
    }

    /// What an instance's successor is given, in the order in which it was left.
    pub(super) fn of(&self, instance: InstanceId) -> Vec<Stored<'_>> {
        let kept = self.kept.get(&(instance.worker, instance.index));
        let kept = kept.map(|kept| by_age(kept)).unwrap_or_default();
        let kept = kept.into_iter();
        kept.map(|one| Stored {
            name: &one.name,
            fd: one.fd.as_raw_fd(),
        })
        .collect()
    }

    /// How many descriptors all instances of a worker have left.
    pub(super) fn count(&self, worker: WorkerId) -> usize {
        let places = (worker, 0)..=(worker, u32::MAX);
        self.kept.range(places).map(|(_, kept)| kept.len()).sum()
    }

    fn drop_where(&mut self, epoll: &Epoll, is_meant: impl Fn(Place, &Kept) -> bool) -> usize {
        let mut dropped = 0;
        self.kept.retain(|place, kept| {
            kept.retain(|one| {
                let is_meant = is_meant(*place, one);
                if is_meant && one.is_watched {
                    // By hand: the worker has the same open file, which keeps its event coming.
                    let _not_watched = epoll.delete(&one.fd);
                }
                dropped += usize::from(is_meant);
                !is_meant
            });
            !kept.is_empty()
        });
        self.has_changed |= dropped > 0;
        sys::close_foreign();
        dropped
    }
}

/// In the order in which they were left.
fn by_age(kept: &[Kept]) -> Vec<&Kept> {
    let mut all: Vec<&Kept> = kept.iter().collect();
    all.sort_unstable_by_key(|one| one.id);
    all
}

/// Where an open file is among those that are kept, or where it belongs.
fn find(kept: &[Kept], fd: &SharedFd) -> Result<usize, usize> {
    let mut is_known = true;
    let found = kept.binary_search_by(|one| {
        let order = sys::order_of_open_files(one.fd.as_fd(), fd.as_fd());
        order.unwrap_or_else(|| {
            is_known = false;
            Ordering::Less
        })
    });
    if is_known {
        return found;
    }
    let is_same = |one: &Kept| sys::is_same_open_file(one.fd.as_fd(), fd.as_fd());
    kept.iter().position(is_same).ok_or(kept.len())
}

/// EPOLLHUP and EPOLLERR come without being asked for (epoll_ctl(2)). Whether they will: of a regular
/// file (EPERM), or what is only a place (O_PATH: EBADF), nothing can be told, and it is kept all the same.
fn watch(epoll: &Epoll, id: u64, fd: &SharedFd) -> bool {
    let token = Token::Notify(NotifyPart::Stored(id)).pack();
    match epoll.add(fd, EpollEvent::new(EpollFlags::empty(), token)) {
        Ok(()) => true,
        Err(Errno::EPERM | Errno::EBADF) => false,
        Err(errno) => {
            log::warn!("cannot watch a stored descriptor: {}", errno.desc());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    const HOW: How<'_> = How {
        name: "db",
        polled: true,
        at_most: 2,
        below: RawFd::MAX,
    };

    fn instance(worker: u32, index: u32, generation: u32) -> InstanceId {
        InstanceId {
            worker: WorkerId(worker),
            index,
            generation,
        }
    }

    fn epoll() -> Epoll {
        Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap()
    }

    fn null() -> SharedFd {
        shared(File::open("/dev/null").unwrap())
    }

    fn shared(fd: impl Into<OwnedFd>) -> SharedFd {
        fd.into().into()
    }

    fn names(store: &FdStore, instance: InstanceId) -> Vec<&str> {
        let stored = store.of(instance).into_iter();
        stored.map(|stored| stored.name).collect()
    }

    #[test]
    fn every_generation_of_an_instance_has_the_same_and_nobody_else() {
        let (epoll, mut store) = (epoll(), FdStore::default());
        assert!(store.workers().is_empty());
        let refused = store.add(&epoll, instance(0, 1, 1), vec![null()], HOW);
        assert_eq!(refused, RefusedFds::default());
        assert_eq!(names(&store, instance(0, 1, 2)), ["db"]);
        assert_eq!(store.workers(), [WorkerId(0)]);
        assert!(names(&store, instance(0, 0, 1)).is_empty());
        assert!(names(&store, instance(1, 1, 1)).is_empty());
        store.forget(&epoll, WorkerId(1));
        assert_eq!(names(&store, instance(0, 1, 2)), ["db"]);
        store.forget(&epoll, WorkerId(0));
        assert!(names(&store, instance(0, 1, 2)).is_empty());
    }

    #[test]
    fn one_open_file_is_kept_once_and_no_more_than_there_is_room_for() {
        let (epoll, mut store) = (epoll(), FdStore::default());
        let one = null();
        let again = shared(one.try_clone().unwrap());
        let all = vec![one, again, null(), null()];
        let refused = store.add(&epoll, instance(0, 0, 1), all, HOW);
        assert_eq!((refused.no_room, refused.may_wait), (1, 0));
        assert_eq!(names(&store, instance(0, 0, 1)), ["db", "db"]);
        assert_eq!(store.remove(&epoll, instance(0, 0, 1), "other"), 0);
        assert_eq!(store.remove(&epoll, instance(0, 0, 1), "db"), 2);
        assert!(names(&store, instance(0, 0, 1)).is_empty());
    }

    #[test]
    fn one_of_many_is_known_again_and_they_stay_in_their_order() {
        let (epoll, mut store) = (epoll(), FdStore::default());
        let all: Vec<SharedFd> = (0..100).map(|_| null()).collect();
        let again = all.iter().rev();
        let again = again.map(|one| shared(one.try_clone().unwrap())).collect();
        let numbers: Vec<i32> = all.iter().map(AsRawFd::as_raw_fd).collect();
        let how = How {
            at_most: 100,
            ..HOW
        };
        for fds in [all, again] {
            let refused = store.add(&epoll, instance(0, 0, 1), fds, how);
            assert_eq!(refused, RefusedFds::default());
        }
        let stored = store.of(instance(0, 0, 1)).into_iter();
        assert_eq!(stored.map(|one| one.fd).collect::<Vec<_>>(), numbers);
    }

    #[test]
    fn what_is_needed_for_something_else_is_not_kept() {
        let (epoll, mut store) = (epoll(), FdStore::default());
        let one = null();
        let how = How {
            below: one.as_raw_fd(),
            ..HOW
        };
        let refused = store.add(&epoll, instance(0, 0, 1), vec![one], how);
        assert_eq!(refused.no_numbers, 1);
        assert!(names(&store, instance(0, 0, 1)).is_empty());
    }

    #[test]
    fn what_was_left_first_stays_when_there_is_less_room() {
        let (epoll, mut store) = (epoll(), FdStore::default());
        for (index, name) in [(0, "one"), (0, "two"), (1, "three")] {
            let how = How { name, ..HOW };
            store.add(&epoll, instance(0, index, 1), vec![null()], how);
        }
        assert_eq!(store.trim(&epoll, WorkerId(1), 0), 0);
        assert_eq!(store.trim(&epoll, WorkerId(0), 1), 1);
        assert_eq!(names(&store, instance(0, 0, 1)), ["one"]);
        assert_eq!(store.trim(&epoll, WorkerId(0), 0), 2);
        assert!(store.workers().is_empty());
    }

    #[test]
    fn what_hangs_up_is_told_unless_it_is_not_to_be() {
        let (epoll, mut store) = (epoll(), FdStore::default());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (kept, gone) = UnixStream::pair().unwrap();
        store.add(&epoll, instance(0, 0, 1), vec![shared(ours)], HOW);
        let unpolled = How {
            name: "unpolled",
            polled: false,
            ..HOW
        };
        store.add(&epoll, instance(0, 0, 1), vec![shared(kept)], unpolled);
        drop((theirs, gone));
        let mut events = [EpollEvent::empty(); 4];
        let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
        let tokens: Vec<Token> = events[..count]
            .iter()
            .map(|event| Token::unpack(event.data()))
            .collect();
        let [Token::Notify(NotifyPart::Stored(id))] = tokens[..] else {
            panic!("{tokens:?}")
        };
        store.hung_up(&epoll, id);
        assert_eq!(names(&store, instance(0, 0, 1)), ["unpolled"]);
        let none = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
        assert_eq!(none, 0);
    }

    #[test]
    fn the_kind_of_a_descriptor_is_known_without_asking_its_file_system() {
        let (socket, _other) = UnixStream::pair().unwrap();
        assert_eq!(FdKind::of(&shared(socket), &mut None), FdKind::Plain);
        assert_eq!(FdKind::of(&null(), &mut None), FdKind::Plain);
        let memory = c"/proc/self";
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let memory = nix::sys::memfd::memfd_create(memory, flags).unwrap();
        assert_eq!(FdKind::of(&shared(memory), &mut None), FdKind::Plain);
        assert_eq!(FdKind::of(&shared(epoll().0), &mut None), FdKind::Unwatched);
        let mounts = "22 1 0:21 / / rw shared:1 - ext4 /dev/root rw\n\
                      23 22 0:45 / /mnt rw,nosuid - fuse.sshfs x rw\n";
        assert_eq!(type_of_mount(mounts, "22"), Some("ext4"));
        assert_eq!(type_of_mount(mounts, "23"), Some("fuse.sshfs"));
        assert_eq!(type_of_mount(mounts, "2"), None);
        assert!(asks_a_server("fuse.sshfs") && asks_a_server("nfs4") && !asks_a_server("ext4"));
    }

    #[test]
    fn a_regular_file_is_kept_although_nothing_can_be_told_of_it() {
        let (epoll, mut store) = (epoll(), FdStore::default());
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let refused = store.add(&epoll, instance(0, 0, 1), vec![shared(file)], HOW);
        assert_eq!(refused, RefusedFds::default());
        assert_eq!(names(&store, instance(0, 0, 1)), ["db"]);
    }
}
