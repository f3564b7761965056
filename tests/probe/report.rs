//! What a worker found in its process when it started, as the probe sends it and the tests read it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything a worker inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The command, `argv[0]` included.
    pub argv: Vec<String>,
    /// Process id, as the process itself sees it.
    pub pid: i32,
    /// The parent's.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// Real, effective, saved and file system user id.
    pub uids: [u32; 4],
    /// Real, effective, saved and file system group id.
    pub gids: [u32; 4],
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// Working directory.
    pub cwd: String,
    /// umask(2).
    pub umask: u32,
    /// The nice value.
    pub nice: i32,
    /// /proc/self/oom_score_adj.
    pub oom_score_adj: i32,
    /// Soft and hard limit by name (`nofile`); `None` is unlimited.
    pub limits: BTreeMap<String, [Option<u64>; 2]>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Blocked signals.
    pub blocked: Vec<i32>,
    /// Ignored signals.
    pub ignored: Vec<i32>,
    /// Signals with a handler.
    pub caught: Vec<i32>,
    /// Open descriptors, in order.
    pub fds: Vec<Fd>,
    /// /proc/self/status, field by field.
    pub status: BTreeMap<String, String>,
    /// The session keyring; `None` where the kernel has none.
    pub session_keyring: Option<Keyring>,
    /// The inode of the process's own pidfd, where the kernel has pidfs (6.9).
    pub pidfd_inode: Option<u64>,
}

/// A keyring (keyrings(7)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// Type, owner, group, permissions and name (KEYCTL_DESCRIBE).
    pub description: String,
    /// How many keys are in it.
    pub keys: usize,
}

/// One open descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fd {
    /// Its number.
    pub number: i32,
    /// FD_CLOEXEC.
    pub cloexec: bool,
    /// O_NONBLOCK.
    pub nonblocking: bool,
    /// Where /proc/self/fd/N points.
    pub target: String,
    /// What there is to say about a socket.
    pub socket: Option<Socket>,
    /// What the kernel has for every option of `listend::config::options` that the descriptor
    /// knows, by key; for an IPv6 socket, `KEY.v4` is IPv4's half of an option that has two.
    #[serde(default)]
    pub options: BTreeMap<String, Setting>,
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// An int, 0 and 1 for a flag.
    Number(i64),
    /// A name.
    Text(String),
}

/// What there is to say about a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// `inet`, `inet6`, `unix`, `netlink`, `vsock`.
    pub family: String,
    /// `stream`, `dgram`, `seqpacket`.
    pub kind: String,
    /// SO_PROTOCOL.
    pub protocol: i32,
    /// SO_ACCEPTCONN.
    pub listening: bool,
    /// getsockname(2): `127.0.0.1:80`, `[::1]:80`, `/path`, `@abstract`,
    /// `netlink:GROUPS`, `vsock:CID:PORT`.
    pub name: String,
    /// IPV6_V6ONLY of an IPv6 socket.
    pub v6_only: Option<bool>,
    /// SO_REUSEADDR.
    pub reuse_address: bool,
    /// The limit of a TCP accept queue, as TCP_INFO has it.
    pub backlog: Option<u32>,
}
