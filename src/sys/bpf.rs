//! bpf(2): maps, programs, and the sockets that they steer.
//!
//! Commands and the layout of their arguments are those of `linux/bpf.h`. No call here waits: a map is
//! allocated, a program is verified and compiled, an element is copied.

use super::fd::take_descriptor;
use super::sockopt;
use nix::libc::{self, c_int};
use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

// `enum bpf_cmd`.
const MAP_CREATE: c_int = 0;
const MAP_LOOKUP_ELEM: c_int = 1;
const MAP_UPDATE_ELEM: c_int = 2;
const MAP_DELETE_ELEM: c_int = 3;
const PROG_LOAD: c_int = 5;
const OBJ_GET_INFO_BY_FD: c_int = 15;
const MAP_LOOKUP_BATCH: c_int = 24;

/// BPF_PROG_TYPE_SK_REUSEPORT.
const SK_REUSEPORT: u32 = 21;
/// BPF_SK_REUSEPORT_SELECT.
const SK_REUSEPORT_SELECT: u32 = 39;
/// A program may use all functions of the kernel only under a licence that is compatible with its own.
const LICENCE: &CStr = c"Dual MIT/GPL";
/// BPF_OBJ_NAME_LEN, with its NUL.
const NAME: usize = 16;
/// The room for what the verifier says.
const LOG: usize = 256 * 1024;
/// So much of that is told.
const LINES: usize = 20;
/// The longest key and the longest value of a map here.
const LONGEST: usize = 64;

/// What a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKind {
    /// Values by number.
    Array,
    /// Values by key; of too many, those are dropped that were used longest ago.
    LruHash,
    /// The sockets of a SO_REUSEPORT group by number.
    ReuseportSockets,
}

impl MapKind {
    /// `enum bpf_map_type`.
    fn number(self) -> u32 {
        match self {
            MapKind::Array => 2,
            MapKind::LruHash => 9,
            MapKind::ReuseportSockets => 20,
        }
    }
}

/// A map of the kernel.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    kind: u32,
    key: usize,
    value: usize,
}

/// What could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BpfStep {
    /// Make a map.
    MakeMap(MapKind),
    /// Change a map.
    FillMap,
    /// Load a program.
    LoadProgram,
    /// Attach it to a socket.
    Attach,
}

/// Why something of bpf(2) could not be done.
#[derive(Debug)]
pub struct BpfError {
    /// What.
    pub step: BpfStep,
    /// What the kernel answered.
    pub error: io::Error,
    /// The last lines of what the verifier says of a program that it refuses; empty if it was not asked.
    pub log: String,
}

impl BpfError {
    fn new(step: BpfStep) -> impl Fn(io::Error) -> BpfError {
        move |error| BpfError {
            step,
            error,
            log: String::new(),
        }
    }
}

impl fmt::Display for BpfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            BpfStep::MakeMap(kind) => write!(f, "cannot create a BPF map ({kind:?}): ")?,
            BpfStep::FillMap => write!(f, "cannot change a BPF map: ")?,
            BpfStep::LoadProgram => write!(f, "cannot load a BPF program: ")?,
            BpfStep::Attach => write!(f, "cannot attach a BPF program: ")?,
        }
        write!(f, "{}", self.error)?;
        if !self.log.is_empty() {
            write!(f, "; the verifier says:\n{}", self.log)?;
        }
        Ok(())
    }
}

impl std::error::Error for BpfError {}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Map {
    /// Makes a map for so many elements. Of a name, up to 15 letters, digits, `_` and `.` count; it is
    /// what bpftool(8) shows.
    ///
    /// # Errors
    ///
    /// The errors of bpf(2) with BPF_MAP_CREATE.
    pub fn create(
        kind: MapKind,
        name: &str,
        key: u32,
        value: u32,
        elements: u32,
    ) -> Result<Map, BpfError> {
        let mut arguments = Arguments::default();
        arguments.word(0, kind.number());
        arguments.word(4, key);
        arguments.word(8, value);
        arguments.word(12, elements);
        arguments.name(28, name);
        let failed = BpfError::new(BpfStep::MakeMap(kind));
        // SAFETY: the arguments of BPF_MAP_CREATE are numbers and a name.
        let fd = unsafe { arguments.call(MAP_CREATE, 72) }.map_err(&failed)?;
        let fd = take_descriptor(fd).map_err(&failed)?;
        Map::adopt(fd).map_err(failed)
    }

    /// A map whose descriptor was kept.
    ///
    /// # Errors
    ///
    /// EINVAL if it is no map, or one of longer elements than any here; those of bpf(2).
    pub fn adopt(fd: OwnedFd) -> io::Result<Map> {
        // `struct bpf_map_info`: type, id, key_size, value_size …
        let mut info = [0_u32; 20];
        let mut arguments = Arguments::default();
        // Descriptors are not negative.
        arguments.word(0, fd.as_raw_fd().cast_unsigned());
        arguments.word(4, size_of_val(&info) as u32);
        arguments.pointer(8, info.as_mut_ptr().cast());
        // Whether it is a map at all: other kinds of objects answer this as well.
        let (kind, name) = (b"map_type", std::fs::read(fdinfo(&fd))?);
        if !name.windows(kind.len()).any(|part| part == kind) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: the kernel writes into `info` at most as many bytes as it is told that it has.
        unsafe { arguments.call(OBJ_GET_INFO_BY_FD, 16) }?;
        let [kind, _, key, value, ..] = info;
        let (key, value) = (key as usize, value as usize);
        if key > LONGEST || value > LONGEST {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Map {
            fd,
            kind,
            key,
            value,
        })
    }

    /// Whether it is of this kind, with keys and values of so many bytes.
    pub fn is(&self, kind: MapKind, key: usize, value: usize) -> bool {
        (self.kind, self.key, self.value) == (kind.number(), key, value)
    }

    /// Its descriptor, to be named in programs.
    pub fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Sets an element.
    ///
    /// # Errors
    ///
    /// EINVAL for a key or a value of another length; those of bpf(2).
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<(), BpfError> {
        let failed = BpfError::new(BpfStep::FillMap);
        if key.len() != self.key || value.len() != self.value {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let mut arguments = self.element(key);
        arguments.pointer(16, value.as_ptr().cast_mut().cast());
        // SAFETY: the kernel reads a key and a value, which have the lengths that the map has.
        unsafe { arguments.call(MAP_UPDATE_ELEM, 32) }.map_err(failed)?;
        Ok(())
    }

    /// Sets an element of a map of sockets. The socket has to be in a SO_REUSEPORT group: bound, with
    /// the option set before.
    ///
    /// # Errors
    ///
    /// The errors of [`Map::set`].
    pub fn set_socket(&self, index: u32, socket: impl AsFd) -> Result<(), BpfError> {
        // Descriptors are not negative.
        let number = socket.as_fd().as_raw_fd().cast_unsigned();
        match self.value {
            8 => self.set(&index.to_ne_bytes(), &u64::from(number).to_ne_bytes()),
            _ => self.set(&index.to_ne_bytes(), &number.to_ne_bytes()),
        }
    }

    /// An element; `None` if there is none.
    ///
    /// # Errors
    ///
    /// EINVAL for a key of another length; those of bpf(2).
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if key.len() != self.key {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut value = vec![0; self.value];
        let mut arguments = self.element(key);
        arguments.pointer(16, value.as_mut_ptr().cast());
        // SAFETY: the kernel reads a key and writes a value, which have the lengths that the map has.
        match unsafe { arguments.call(MAP_LOOKUP_ELEM, 32) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes an element, if it is there.
    ///
    /// # Errors
    ///
    /// EINVAL for a key of another length; those of bpf(2).
    pub fn remove(&self, key: &[u8]) -> Result<(), BpfError> {
        let failed = BpfError::new(BpfStep::FillMap);
        if key.len() != self.key {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        // SAFETY: the kernel reads a key, which has the length that the map has.
        match unsafe { self.element(key).call(MAP_DELETE_ELEM, 32) } {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Calls `tell` with the value of each element of a hash, which may change meanwhile. Linux 5.6.
    ///
    /// # Errors
    ///
    /// The errors of bpf(2) with BPF_MAP_LOOKUP_BATCH.
    pub fn for_each_value(&self, mut tell: impl FnMut(&[u8])) -> io::Result<()> {
        /// So many at once: a bucket of the hash has to fit.
        const MOST: usize = 4096;
        let mut keys = vec![0_u8; MOST * self.key];
        let mut values = vec![0_u8; MOST * self.value];
        // Where to go on: at least as long as a key.
        let (mut from, mut next) = ([0_u8; LONGEST], [0_u8; LONGEST]);
        let mut is_first = true;
        loop {
            let mut arguments = Arguments::default();
            if !is_first {
                arguments.pointer(0, from.as_mut_ptr().cast());
            }
            arguments.pointer(8, next.as_mut_ptr().cast());
            arguments.pointer(16, keys.as_mut_ptr().cast());
            arguments.pointer(24, values.as_mut_ptr().cast());
            arguments.word(32, MOST as u32);
            arguments.word(36, self.fd.as_raw_fd().cast_unsigned());
            // SAFETY: the kernel reads where to go on, writes where to go on the next time, and writes
            // at most MOST keys and values, for which there is room.
            let done = unsafe { arguments.call(MAP_LOOKUP_BATCH, 56) };
            let is_over = match done {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            let found = (arguments.word_at(32) as usize).min(MOST);
            let length = self.value.max(1);
            values.chunks_exact(length).take(found).for_each(&mut tell);
            if is_over {
                return Ok(());
            }
            from = next;
            is_first = false;
        }
    }

    fn element(&self, key: &[u8]) -> Arguments {
        let mut arguments = Arguments::default();
        arguments.word(0, self.fd.as_raw_fd().cast_unsigned());
        arguments.pointer(8, key.as_ptr().cast_mut().cast());
        arguments
    }
}

fn fdinfo(fd: &OwnedFd) -> String {
    format!("/proc/self/fdinfo/{}", fd.as_raw_fd())
}

/// Loads a program for SO_REUSEPORT groups, from the bytes of its instructions.
///
/// # Errors
///
/// The errors of bpf(2) with BPF_PROG_LOAD, and what the verifier says.
pub fn load_reuseport_program(code: &[u8], name: &str) -> Result<OwnedFd, BpfError> {
    let load = |log: &mut [u8]| {
        let mut arguments = Arguments::default();
        arguments.word(0, SK_REUSEPORT);
        arguments.word(4, u32::try_from(code.len() / 8).unwrap_or(u32::MAX));
        arguments.pointer(8, code.as_ptr().cast_mut().cast());
        arguments.pointer(16, LICENCE.as_ptr().cast_mut().cast());
        if !log.is_empty() {
            arguments.word(24, 1);
            arguments.word(28, u32::try_from(log.len()).unwrap_or(0));
            arguments.pointer(32, log.as_mut_ptr().cast());
        }
        arguments.name(48, name);
        // `expected_attach_type`.
        arguments.word(68, SK_REUSEPORT_SELECT);
        // SAFETY: the kernel reads as many instructions as there are bytes for, and a text with its
        // NUL; it writes at most as many bytes of its log as there is room for.
        let fd = unsafe { arguments.call(PROG_LOAD, 72) }?;
        take_descriptor(fd)
    };
    load(&mut []).map_err(|error| {
        let mut log = vec![0; LOG];
        // Only for what it says.
        let _refused_again = load(&mut log);
        let length = log.iter().position(|byte| *byte == 0).unwrap_or(0);
        BpfError {
            step: BpfStep::LoadProgram,
            error,
            log: last_lines(&String::from_utf8_lossy(&log[..length])),
        }
    })
}

/// The end, which says why. It begins with every instruction that was looked at.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.trim().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Has a program decide which socket of its SO_REUSEPORT group gets a packet, in place of the one that did.
/// [`super::attach_to_group`] does it with a classic one, which has no maps and needs no privilege.
///
/// # Errors
///
/// The errors of setsockopt(2) with SO_ATTACH_REUSEPORT_EBPF.
pub fn attach_reuseport_program(socket: impl AsFd, program: impl AsFd) -> Result<(), BpfError> {
    let number = program.as_fd().as_raw_fd();
    sockopt::set_int(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_EBPF,
        number,
    )
    .map_err(BpfError::new(BpfStep::Attach))
}

/// Leaves the choice of the socket to the kernel again, which goes by a hash of the addresses.
///
/// # Errors
///
/// The errors of setsockopt(2) with SO_DETACH_REUSEPORT_BPF (Linux 5.3): ENOENT if there is no program.
pub fn detach_reuseport_program(socket: impl AsFd) -> Result<(), BpfError> {
    sockopt::set_int(socket, libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, 0)
        .map_err(BpfError::new(BpfStep::Attach))
}

/// `union bpf_attr`, as far as it is used here: fields by their offsets, all else 0.
#[repr(C, align(8))]
struct Arguments([u8; 128]);

impl Default for Arguments {
    fn default() -> Arguments {
        Arguments([0; 128])
    }
}

impl Arguments {
    fn word(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn word_at(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        u32::from_ne_bytes(bytes)
    }

    /// A pointer takes 64 bits on every machine.
    fn pointer(&mut self, at: usize, to: *mut libc::c_void) {
        let address = to.expose_provenance() as u64;
        self.0[at..at + 8].copy_from_slice(&address.to_ne_bytes());
    }

    fn name(&mut self, at: usize, name: &str) {
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
        let name = name.bytes().filter(is_allowed).take(NAME - 1);
        for (to, from) in self.0[at..].iter_mut().zip(name) {
            *to = from;
        }
    }

    /// # Safety
    ///
    /// Pointers among the arguments must be valid for what the command does with them.
    unsafe fn call(&mut self, command: c_int, length: usize) -> io::Result<i32> {
        // SAFETY: the kernel reads `length` bytes of the arguments, and may write into them; there are
        // at least as many. The rest is the caller's contract.
        let done = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                self.0.as_mut_ptr(),
                // At most 128.
                length as libc::c_uint,
            )
        };
        match done {
            -1 => Err(io::Error::last_os_error()),
            // Descriptors and 0.
            done => Ok(done as i32),
        }
    }
}

#[cfg(test)]
mod tests;
