//! The descriptors that are kept for the daemon, each with a name.

use crate::sys::{self, SharedFd};
use nix::sys::stat::fstat;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The names go to the daemon as one variable, and a string of exec has at most 32 pages with its NUL
/// (MAX_ARG_STRLEN, execve(2)).
const LONGEST_NAMES: usize = 32 * 4096 - "LISTEN_FDNAMES=".len() - 1;

/// So many numbers are left for what the guard needs to start the daemon.
const RESERVE: usize = 32;

/// The descriptors that are kept.
#[derive(Debug)]
pub(super) struct Store {
    most: usize,
    kept: Vec<Kept>,
    /// The length of all names with a `:` behind each.
    length: usize,
}

/// One descriptor. There may be ten thousand, so it is small.
#[derive(Debug)]
struct Kept {
    fd: SharedFd,
    /// Device and inode, folded: with another hash it is another open file.
    hash: u32,
    name: Box<str>,
}

impl Store {
    /// An empty store, of a process that may have so many descriptors open.
    pub(super) fn new(open_files: usize) -> Store {
        Store {
            most: open_files.saturating_sub(RESERVE),
            kept: Vec::new(),
            length: 0,
        }
    }

    /// The largest number of descriptors.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Keeps a descriptor, once under each name: a worker may store its own listener, which is to stay the
    /// listener as well. Whether there was room.
    pub(super) fn add(&mut self, fd: SharedFd, name: &str) -> bool {
        let hash = hash(&fd);
        let is_same = |one: &Kept| {
            one.hash == hash
                && *one.name == *name
                && sys::is_same_open_file(one.fd.as_fd(), fd.as_fd())
        };
        if self.kept.iter().any(is_same) {
            return true;
        }
        let length = self.length + name.len() + 1;
        if self.kept.len() >= self.most || length > LONGEST_NAMES {
            return false;
        }
        self.length = length;
        let name = name.into();
        self.kept.push(Kept { fd, hash, name });
        true
    }

    /// Gives up what is kept under a name; how many those were.
    pub(super) fn remove(&mut self, name: &str) -> usize {
        let before = self.kept.len();
        self.kept.retain(|one| *one.name != *name);
        let removed = before - self.kept.len();
        self.length -= removed * (name.len() + 1);
        removed
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// All descriptors, ordered by their numbers, and the value of LISTEN_FDNAMES.
    pub(super) fn all(&mut self) -> (Vec<BorrowedFd<'_>>, String) {
        self.kept.sort_unstable_by_key(|one| one.fd.as_raw_fd());
        let mut names = String::with_capacity(self.length);
        for one in &self.kept {
            names.push_str(&one.name);
            names.push(':');
        }
        names.pop();
        (self.kept.iter().map(|one| one.fd.as_fd()).collect(), names)
    }
}

/// Device and inode, folded: equal ones are looked at more closely.
fn hash(fd: &SharedFd) -> u32 {
    fstat(fd).map_or(0, |stat| {
        // The types differ between architectures.
        #[allow(clippy::unnecessary_cast)]
        let (device, inode) = (stat.st_dev as u64, stat.st_ino as u64);
        let mixed = (inode ^ device.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::OwnedFd;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    fn add(store: &mut Store, fd: OwnedFd, name: &str) -> bool {
        store.add(fd.into(), name)
    }

    #[test]
    fn what_is_kept_comes_back_in_the_order_of_its_numbers() {
        let mut store = Store::new(1 << 20);
        let (one, two, three) = (null(), null(), null());
        let mut numbers = [&one, &two, &three].map(AsRawFd::as_raw_fd);
        numbers.sort_unstable();
        for (fd, name) in [(three, "c"), (one, "a"), (two, "b")] {
            assert!(add(&mut store, fd, name));
        }
        let (fds, names) = store.all();
        let found: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        assert_eq!(found, numbers);
        assert_eq!(names.len(), "a:b:c".len());
        assert_eq!(store.remove("b"), 1);
        assert_eq!(store.remove("b"), 0);
        assert_eq!(store.len(), 2);
    }

    #[test]
    fn the_same_open_file_is_kept_once_under_each_name() {
        let mut store = Store::new(1 << 20);
        let fd = null();
        let names = ["first", "last", "first"];
        assert!(
            names
                .iter()
                .all(|name| add(&mut store, fd.try_clone().unwrap(), name))
        );
        // The same file, opened again, is another.
        assert!(add(&mut store, null(), "last"));
        let mut names: Vec<_> = store.all().1.split(':').map(str::to_owned).collect();
        names.sort();
        assert_eq!(names, ["first", "last", "last"]);
        assert_eq!(store.length, "first:last:last:".len());
        assert_eq!(store.remove("last"), 2);
        assert_eq!(store.all().1, "first");
    }

    #[test]
    fn more_names_than_exec_takes_are_refused_and_removing_makes_room() {
        let mut store = Store::new(1 << 20);
        let long = "x".repeat(255);
        let fits = LONGEST_NAMES / 256;
        for _ in 0..fits {
            assert!(add(&mut store, null(), &long));
        }
        assert!(!add(&mut store, null(), &long));
        assert_eq!(store.len(), fits);
        assert!(store.all().1.len() <= LONGEST_NAMES);
        assert_eq!(store.remove(&long), fits);
        assert_eq!((store.len(), store.length), (0, 0));
        assert!(add(&mut store, null(), "again"));
    }

    #[test]
    fn some_numbers_are_left_for_the_guard() {
        let mut store = Store::new(RESERVE + 2);
        assert_eq!(store.most(), 2);
        let fd = null();
        let same = fd.try_clone().unwrap();
        assert!(add(&mut store, fd, "a") && add(&mut store, null(), "b"));
        assert!(!add(&mut store, null(), "c"));
        assert!(add(&mut store, same, "a"));
        assert_eq!(store.remove("b"), 1);
        assert!(add(&mut store, null(), "c"));
        assert_eq!(Store::new(5).most(), 0);
    }
}
