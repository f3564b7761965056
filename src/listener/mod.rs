//! `Plan` → bound sockets ([`SocketTable`]), all of them or a list of every failure.
//!
//! Binds and listens, and accepts who is asked for: no worker is known here, nothing is logged. Every
//! descriptor is CLOEXEC from birth, and every socket blocking. The umask changes for the length of one call,
//! while the process has one thread, so that nobody else can create a file under it (`ahead` has two, and makes none).

mod accept;
mod accept_queue;
mod adopt;
mod ahead;
mod backlog;
mod before_spawn;
mod bind;
mod bind_error;
mod bind_socket;
mod bound;
mod diag;
mod flows;
mod given;
mod going;
mod identity;
mod in_use;
mod inet;
mod inherited;
mod inherited_fd;
mod left;
mod mqueue;
mod namespace;
mod netlink;
mod option;
mod overlap;
mod paths;
mod pending_clients;
mod read_back;
mod ready;
mod rebind;
mod reconfigure;
mod record;
mod remove;
mod repair;
mod reset_option;
mod shards;
mod spare;
mod special;
mod symlink;
mod table;
mod unbound;
mod unix_path;
mod vsock;

pub use crate::sys::bpf::{BpfError, BpfStep};
pub use accept::{Accepted, NotAccepted, accept};
pub use accept_queue::{Depth, DepthReader, Unit, depth, depths};
pub use adopt::{AdoptError, AdoptProblem, Inherited, UnknownPorts, match_up, take_inherited};
pub use before_spawn::{Disturbed, IoMode, prepare_for_spawn, set_mode};
pub use bind::{Outcome, bind_all, bind_missing};
pub use bind_error::{BindError, BindStep, Note, NoteKind, Obstacle, Purpose};
pub use bound::{Artifacts, BoundSocket, FsArtifacts};
pub use diag::{UnixSocket, mptcp_listeners, unix_sockets};
pub use flows::{FlowError, FlowGroup, KnownMember, Member, member_like, try_flows};
pub use given::{Unfit, endpoint_of, examine};
pub use going::{Going, bind_again, hide};
pub use identity::PathIdentity;
pub use in_use::{Connections, Traffic, traffic};
pub use left::{list_files, remove_left_files, remove_listed_files};
pub use mqueue::OTHER_LIMITS;
pub use namespace::{in_network_namespace, leads_elsewhere};
pub use option::{Changed, effective, put_options_back};
pub use overlap::reuses_port;
pub use paths::connect_to;
pub use pending_clients::{Waiters, forget_errors, waiters};
pub use read_back::Effective;
pub use rebind::{PreparedReload, prepare_reload};
pub use record::{SocketRecord, is_lost};
pub use repair::{Damage, Repair, inspect, inspect_of, repair};
pub use shards::shard_of;
pub use table::{Adopted, Former, SocketTable};
pub use unbound::refused_option;
