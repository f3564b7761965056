//! The memory that a child works with between clone and exec.

use super::signal::ChangedSignals;
use crate::launch_spec::LaunchSpec;
use nix::libc::{c_char, c_int, c_uint};
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// The data of a launch, laid out before the clone; owns every byte.
#[derive(Debug)]
pub struct Prepared {
    /// What it shares with other launches.
    pub common: Rc<Common>,
    /// The whole environment.
    pub environment: CStrings,
    /// The descriptors that [`FdAction`]s speak of; [`super::launch()`] appends the status pipe.
    pub fds: Vec<RawFd>,
    /// The moves that bring the descriptors to their numbers.
    pub fd_actions: Vec<FdAction>,
    /// The limit of open files, soft and hard, while the descriptors are placed: there may be as many as
    /// the limit of the parent allows. `None` is the parent's.
    pub open_files: Option<(u64, u64)>,
    /// Set if the program is listend itself, which executes the worker's: in its sandbox.
    pub second: Option<SecondStep>,
}

/// The part of a launch that may be the same for many: laid out once, and only read from then on.
#[derive(Debug)]
pub struct Common {
    /// The path that execve(2) gets.
    pub program: CString,
    /// The arguments of the program, sealed.
    pub argv: CStrings,
    /// The number that each descriptor gets.
    pub targets: Vec<RawFd>,
    /// The numbers from 3 on that the worker does not get, as ranges (first and last): everything
    /// there is closed at exec.
    pub unused: Vec<(c_uint, c_uint)>,
    /// Standard output and error; of what goes there too (a connection), it is replaced.
    pub output: Stdio,
    /// The other settings of the process.
    pub spec: LaunchSpec<CString>,
    /// The signals whose disposition listend has changed ([`super::changed_signals`]).
    pub signals: ChangedSignals,
}

/// What the program that sets up a sandbox needs, before it executes the worker's.
#[derive(Debug)]
pub struct SecondStep {
    /// The file that says what to do, one of [`Prepared::fds`]; open until the child has its copy.
    pub order: OwnedFd,
    /// The number that the status pipe gets in it, the last of [`Common::targets`]: how the second exec went is
    /// told there, too.
    pub status: RawFd,
}

impl Prepared {
    /// The status pipe, or the socket that takes connections back: the last slot, wherever it has
    /// been moved to.
    pub(super) fn status_fd(&self) -> c_int {
        self.fds.last().copied().unwrap_or(-1)
    }
}

/// The destination of standard output and error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stdio {
    /// The descriptors of listend.
    Inherit,
    /// No destination: /dev/null.
    Null,
    /// Appended to what listend has a handle on (O_PATH): the child opens it, and may have to wait.
    File {
        /// The number of the handle in listend.
        handle: RawFd,
        /// The name of the handle in /proc/self/fd.
        link: CString,
        /// The path of the file, for the explanation of a failure.
        path: PathBuf,
    },
    /// The file of this descriptor of listend, which has to be close-on-exec.
    Descriptor(RawFd),
}

/// A value that only the child knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvSlot {
    /// getpid(2), in decimal. Any number of variables may have it.
    OwnPid,
    /// The inode of its own pidfd, in decimal. Has to be the last of the environment, because the
    /// child drops the last where it cannot find out.
    OwnPidfdInode,
}

/// Digits of the longest u64, and a NUL.
const SLOT_LENGTH: usize = 21;

/// An array of C strings with a NULL at its end, as execve(2) wants it. All of them are in one
/// piece of memory: a worker may be started for every connection, and has a whole environment.
#[derive(Debug, Default)]
pub struct CStrings {
    /// The strings, each with its NUL.
    bytes: Vec<u8>,
    /// The offset at which each string begins.
    starts: Vec<usize>,
    /// The values that only the child knows, and the offsets of their digits.
    slots: Vec<(EnvSlot, usize)>,
    /// Made when everything is in place: `bytes` moves as it grows.
    pointers: Vec<*const c_char>,
}

/// A NUL byte inside a string, which would end there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainsNul;

impl CStrings {
    /// An empty list with room for so many strings of ordinary length, so that it does not have to
    /// grow.
    pub fn with_room_for(strings: usize) -> CStrings {
        CStrings {
            bytes: Vec::with_capacity(strings * 40),
            starts: Vec::with_capacity(strings),
            ..CStrings::default()
        }
    }

    /// The same, with room for those of another beside them.
    pub fn with_room_beside(strings: usize, other: &CStrings) -> CStrings {
        CStrings {
            bytes: Vec::with_capacity(strings * 40 + other.bytes.len()),
            starts: Vec::with_capacity(strings + other.starts.len()),
            ..CStrings::default()
        }
    }

    /// Appends what `write` appends to the bytes it is given, as one string.
    ///
    /// # Errors
    ///
    /// The string contains a NUL; the array is unchanged.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), ContainsNul> {
        let start = self.bytes.len();
        write(&mut self.bytes);
        if self
            .bytes
            .get(start..)
            .is_none_or(|string| string.contains(&0))
        {
            self.bytes.truncate(start);
            return Err(ContainsNul);
        }
        self.bytes.push(0);
        self.starts.push(start);
        Ok(())
    }

    /// Appends `NAME=` with room for a value that the child writes.
    pub fn push_slot(&mut self, name: &str, slot: EnvSlot) {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'=');
        let digits = self.bytes.len();
        self.slots.push((slot, digits));
        self.bytes.resize(digits + SLOT_LENGTH, 0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is a variable of this name among so many that came first.
    pub fn has(&self, name: &str, among: usize) -> bool {
        let starts = self.starts.iter().take(among);
        let mut strings = starts.filter_map(|start| self.bytes.get(*start..));
        strings.any(|string| {
            let rest = string.strip_prefix(name.as_bytes());
            rest.is_some_and(|rest| rest.first() == Some(&b'='))
        })
    }

    /// The value behind `NAME=`; `None` if there is no such string, or only the child knows it.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let ends = self.starts.iter().skip(1).copied();
        let ends = ends.chain([self.bytes.len()]);
        let strings = self.starts.iter().zip(ends);
        let mut values = strings.filter_map(|(start, end)| {
            // Without the NUL.
            let string = self.bytes.get(*start..end)?.strip_suffix(b"\0")?;
            let value = string.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some((end - 1 - value.len(), value))
        });
        let (start, value) = values.next()?;
        let is_slot = self.slots.iter().any(|(_, slot)| *slot == start);
        (!is_slot).then_some(value)
    }

    /// The strings without their NULs, in order; of those with a value that only the child knows, the part
    /// before it and which it is.
    pub fn strings(&self) -> impl Iterator<Item = (&[u8], Option<EnvSlot>)> {
        let ends = self.starts.iter().skip(1).copied();
        let ends = ends.chain([self.bytes.len()]);
        self.starts.iter().zip(ends).filter_map(|(start, end)| {
            let slots = &self.slots;
            let slot = slots.iter().find(|(_, at)| (*start..end).contains(at));
            match slot {
                Some((slot, at)) => Some((self.bytes.get(*start..*at)?, Some(*slot))),
                None => Some((self.bytes.get(*start..end)?.strip_suffix(b"\0")?, None)),
            }
        })
    }

    /// Appends all strings of another.
    pub fn append(&mut self, other: &CStrings) {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.starts
            .extend(other.starts.iter().map(|start| offset + start));
        self.slots
            .extend(other.slots.iter().map(|(slot, at)| (*slot, offset + at)));
    }

    /// Lets the pointers point. Nothing may be appended after that.
    pub fn seal(&mut self) {
        let strings = self
            .starts
            .iter()
            .filter_map(|start| self.bytes.get(*start..));
        let pointers = strings.map(|string| string.as_ptr().cast());
        // The iterator does not know how many there are.
        self.pointers = Vec::with_capacity(self.starts.len() + 1);
        self.pointers.extend(pointers.chain([ptr::null()]));
    }

    pub(super) fn pointers(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    /// Whether there is anything that only the child knows.
    pub(super) fn has_slots(&self) -> bool {
        !self.slots.is_empty()
    }

    /// The space for a slot's digits; of several alike the one that has so many before it.
    pub(super) fn slot_mut(&mut self, wanted: EnvSlot, before: usize) -> Option<&mut [u8]> {
        let mut alike = self.slots.iter().filter(|(slot, _)| *slot == wanted);
        let &(_, start) = alike.nth(before)?;
        self.bytes.get_mut(start..start + SLOT_LENGTH)
    }

    pub(super) fn drop_last(&mut self) {
        if let [.., last, _null] = self.pointers.as_mut_slice() {
            *last = ptr::null();
        }
    }
}

/// The memory that parent and child share.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) prepared: Prepared,
    /// The signals that the child sets to their default, as a set of bits.
    pub(super) to_default: u64,
    /// The pipe that the child reads before all else, and its other end, which is the parent's alone.
    pub(super) held: Option<(RawFd, RawFd)>,
    /// What a child that tells by this memory waits at.
    pub(super) gate: Option<Gate>,
    /// The failure, as the bytes of a message on the pipe; 0 is none.
    pub(super) failure: AtomicU64,
    /// From where on the child gives up descriptors before all else, where it starts with those of
    /// its parent and not with a copy.
    pub(super) unshare_from: Option<RawFd>,
    /// [`SHARING`], then [`RUNNING`] until the child has left this memory, by exec or exit: then the
    /// kernel writes 0 (CLONE_CHILD_CLEARTID, set_tid_address(2)), and wakes those that wait for it.
    pub(super) running: AtomicU32,
    /// The child's stack; it grows down from the end.
    pub(super) stack: Stack,
}

impl Work {
    /// The child's stack: where it begins and how long it is, with an end that is aligned as the ABIs want it.
    pub(super) fn stack_range(&mut self) -> (*mut u8, usize) {
        let range = self.stack.as_mut_ptr_range();
        let (start, end) = (range.start.cast::<u8>(), range.end as usize);
        (start, (end - end % 16).saturating_sub(start as usize))
    }

    /// Decides which signals the child sets to their default. `has_handlers`: it begins with those of its parent.
    pub(super) fn choose_signals(&mut self, has_handlers: bool) {
        let common = &self.prepared.common;
        let ignores_sigpipe = common.spec.ignore_sigpipe;
        self.to_default = common.signals.to_default(has_handlers, ignores_sigpipe);
    }
}

/// What keeps a child from executing anything before its parent has closed the connection.
#[derive(Debug)]
pub(super) struct Gate {
    /// [`HELD`], [`WAITING`] while the child waits, then [`RELEASED`].
    pub(super) word: AtomicU32,
    /// The process id of the parent.
    pub(super) parent: c_int,
    /// The connection to give back, and what to call it.
    pub(super) back: (RawFd, u64),
}

pub(super) type Stack = Box<[MaybeUninit<u8>]>;

/// The child may not execute anything yet.
pub(super) const HELD: u32 = 0;

/// The child has reached the gate, and waits.
pub(super) const WAITING: u32 = 1;

/// The child may execute its program.
pub(super) const RELEASED: u32 = 2;

/// The child has its parent's descriptors.
pub(super) const SHARING: u32 = 2;

/// The child has descriptors of its own.
pub(super) const RUNNING: u32 = 1;

/// Index into the table of descriptors that [`FdAction`]s work on: those of the worker, then the
/// status pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdSlot(pub u16);

/// A step of placing the descriptors. The parent decides the steps (`worker::fdmap`), so that the child
/// follows a list and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdAction {
    /// Duplicate the slot to a free number not below `above`, with FD_CLOEXEC, and go on with that.
    Relocate {
        /// The descriptor to move.
        slot: FdSlot,
        /// The lowest number it may get.
        above: c_int,
    },
    /// dup2(2) the slot to `target`, which clears FD_CLOEXEC.
    Place {
        /// The descriptor to place.
        slot: FdSlot,
        /// The number to place it at.
        target: c_int,
    },
    /// The slot is where it belongs: only clear FD_CLOEXEC. dup2(2) onto itself would not.
    Keep {
        /// The descriptor to keep.
        slot: FdSlot,
    },
}

/// The size of a message on the status pipe: stage, padding, detail, errno. Behind it may be the reason, as
/// text.
pub(super) const STATUS_LENGTH: usize = 8;

/// No message is longer; one write(2) to a pipe is not torn up to there (PIPE_BUF).
pub(super) const STATUS_MOST: usize = 2048;
