//! Why a bind failed on this machine, and advice about what works but may surprise.
//!
//! Reads the machine and changes nothing. [`Machine`] reads each thing at most once, and only if
//! a question needs it; everything that decides takes what was read as arguments.

mod address_text;
mod adoption;
mod advice;
mod bpf;
mod explain;
mod facts;
mod find;
mod holder;
mod kernel;
mod kind_causes;
mod machine;
mod option_causes;
mod orphan;
mod orphans;
mod path_facts;
mod ports;
mod process_info;
mod reach;
mod registry;
mod release;
mod servers;
mod services;
mod sharing;
mod tables;
mod unit;
mod unix_causes;

pub use adoption::{addresses_beside, explain_adoption};
pub use advice::{Tried, advise, note};
pub use bpf::{advise_flows, why_no_bpf};
pub use explain::{
    explain, explain_for_check, explain_for_daemon, explain_for_run, no_room_left, unexplained,
};
pub use facts::{Bind, Facts, HolderFacts, PortFacts, QueueFacts, facts};
pub use find::unseen;
pub use holder::held_by_listend;
pub use machine::{Interface, Machine, Process, Settings};
pub use option_causes::{namespace, option_changed};
pub use orphan::Orphan;
pub use orphans::{LeftBehind, OrphanedSocket, left_behind};
pub use path_facts::PathFacts;
pub use process_info::unit_of;
pub use reach::{Audience, Reach, who_reaches};
pub use registry::{Registration, port_of, registrations};
pub use servers::servers;
pub use sharing::shared_addresses;
pub use tables::State;
pub use unit::unit_limits;
