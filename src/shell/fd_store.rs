//! Descriptors that instances leave for their successors (`FDSTORE=1`, sd_pid_notify_with_fds(3)).
//!
//! They outlive the process: whoever is started next in its place gets them behind its listeners.

use super::notify::Part;
use super::turn::Token;
use crate::core::InstanceId;
use crate::handoff::Stored;
use crate::plan::WorkerId;
use crate::sys::{self, SharedFd};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd};

/// Whose they are: every generation of an instance has the same.
type Place = (WorkerId, u32);

/// What all instances have left.
#[derive(Debug, Default)]
pub(super) struct FdStore {
    kept: BTreeMap<Place, Vec<Kept>>,
    next_id: u64,
}

#[derive(Debug)]
struct Kept {
    /// Never used again.
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
}

impl FdStore {
    /// Keeps descriptors; one that is kept already is not kept twice. Answers how many were closed
    /// because there was no room.
    pub(super) fn add(
        &mut self,
        epoll: &Epoll,
        instance: InstanceId,
        fds: Vec<SharedFd>,
        how: How<'_>,
    ) -> usize {
        let kept = self
            .kept
            .entry((instance.worker, instance.index))
            .or_default();
        let mut refused = 0;
        for fd in fds {
            let is_same = |one: &Kept| sys::is_same_open_file(one.fd.as_fd(), fd.as_fd());
            if kept.iter().any(is_same) {
                continue;
            }
            if kept.len() >= how.at_most as usize {
                refused += 1;
                continue;
            }
            self.next_id += 1;
            let id = self.next_id;
            kept.push(Kept {
                id,
                name: how.name.to_owned(),
                is_watched: how.polled && watch(epoll, id, &fd),
                fd,
            });
        }
        refused
    }

    /// Gives up what an instance has left under a name; answers how many those were.
    pub(super) fn remove(&mut self, epoll: &Epoll, instance: InstanceId, name: &str) -> usize {
        let place = (instance.worker, instance.index);
        self.drop_where(epoll, |at, kept| at == place && kept.name == name)
    }

    /// Nobody is at the other end any more.
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
        let kept = self
            .kept
            .range(places)
            .flat_map(|(_, kept)| kept.iter().skip(at_most as usize));
        let too_many: BTreeSet<u64> = kept.map(|one| one.id).collect();
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
        let kept = kept.into_iter().flatten();
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
        dropped
    }
}

/// EPOLLHUP and EPOLLERR come without being asked for (epoll_ctl(2)). Whether they will: of a regular
/// file nothing can be told (EPERM), and it is kept all the same.
fn watch(epoll: &Epoll, id: u64, fd: &SharedFd) -> bool {
    let token = Token::Notify(Part::Stored(id)).pack();
    match epoll.add(fd, EpollEvent::new(EpollFlags::empty(), token)) {
        Ok(()) => true,
        Err(Errno::EPERM) => false,
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
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    const HOW: How<'_> = How {
        name: "db",
        polled: true,
        at_most: 2,
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
        assert_eq!(store.add(&epoll, instance(0, 1, 1), vec![null()], HOW), 0);
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
        assert_eq!(store.add(&epoll, instance(0, 0, 1), all, HOW), 1);
        assert_eq!(names(&store, instance(0, 0, 1)), ["db", "db"]);
        assert_eq!(store.remove(&epoll, instance(0, 0, 1), "other"), 0);
        assert_eq!(store.remove(&epoll, instance(0, 0, 1), "db"), 2);
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
        let [Token::Notify(Part::Stored(id))] = tokens[..] else {
            panic!("{tokens:?}")
        };
        store.hung_up(&epoll, id);
        assert_eq!(names(&store, instance(0, 0, 1)), ["unpolled"]);
        let none = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
        assert_eq!(none, 0);
    }

    #[test]
    fn a_regular_file_is_kept_although_nothing_can_be_told_of_it() {
        let (epoll, mut store) = (epoll(), FdStore::default());
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(
            store.add(&epoll, instance(0, 0, 1), vec![shared(file)], HOW),
            0
        );
        assert_eq!(names(&store, instance(0, 0, 1)), ["db"]);
    }
}
