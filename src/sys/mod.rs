//! The only module with `unsafe`: clone, exec, and the few calls that no crate wraps.
//!
//! Small functions, each unsafe block with the reason why it is sound. Uses nothing of the crate
//! but [`crate::stage`]. Everything here assumes what the shell guarantees: one thread.
#![allow(unsafe_code)]

mod acl;
mod apart;
mod arrivals;
pub mod bpf;
mod child;
mod copy;
mod dependent;
mod environment;
mod exit_info;
mod fd;
mod fork;
mod heir;
mod high;
mod interrupt;
mod launch;
mod local_time;
mod memory;
mod mount;
mod mqueue;
mod netns;
mod notify;
mod passing;
mod peek;
mod peer;
mod pidfd;
mod prepared;
mod proc_file;
mod raw;
mod rename;
mod reuseport;
mod signal;
pub mod sockopt;
mod unread;
mod wait;
mod write;

pub use acl::{extended_attribute, may_have_acl};
pub use apart::{
    Room, SharedFd, close_apart, close_apart_within, close_foreign, end_closers, is_closer,
    is_closing, room_for_foreign,
};
pub use arrivals::{Arrival, arrived, watch_arrivals};
pub use copy::{Wait, do_in_a_copy};
pub use dependent::{depend_on, end_by_signal, end_with_parent};
pub use environment::forget_variable;
pub use exit_info::exit_info;
pub use fd::{
    close_on_exec_from, disconnect, grow_descriptor_table, has_pidfs, own_pidfd_inode, pidfd_inode,
    place_descriptors, take_descriptor,
};
pub use fork::{Forked, NOT_EXECUTED, fork, fork_and_execute};
pub use heir::{Heir, Started};
pub use high::{copy_out_of_the_way, keep_free_from, out_of_the_way};
pub use interrupt::{Interrupted, interrupt_soon, prepare_to_interrupt};
pub use launch::{Launched, Launching, Tell, discard, launch, tell_failure};
pub use local_time::{LocalTime, local_time};
pub use memory::return_free_memory;
pub use mount::{
    MountLimit, attach_mount, copy_of_mounts, join_new_session_keyring, landlock_version,
    limit_mount, switch_loopback_on,
};
pub use mqueue::{QueueLimits, QueueOpen, open_queue, queue_length, queue_limits, unlink_queue};
pub use netns::{enter_network_namespace, network_namespace_of, open_network_namespace_of};
pub use notify::{
    Datagram, MOST_DESCRIPTORS, PeerProcess, Sender, ask_for_senders, is_same_open_file,
    order_of_open_files, receive_bytes, receive_datagram, refuse_descriptors, take_descriptors,
};
pub use passing::{passing_pair, receive_descriptor, receive_with_descriptor};
pub use peek::bytes_to_read;
pub use peer::{peer, peer_groups};
pub use pidfd::{
    open as open_pidfd, send_signal, send_signal_to_child, send_signal_to_group, take_descriptor_of,
};
pub use prepared::{
    CStrings, Common, ContainsNul, EnvSlot, FdAction, FdSlot, Prepared, SecondStep, Stdio,
};
pub use proc_file::read_proc_file;
pub use rename::rename_if_free;
pub use reuseport::attach_to_group;
pub use signal::{
    ChangedSignals, Origin, changed_signals, default_broken_pipe, ignore_file_size_signal,
    is_ignored, origin, reset_child_signal,
};
pub use unread::bytes_not_received;
pub use wait::{Ended, How, Then, Whom, has_children_in, wait};
pub use write::write_without_waiting;
