//! The result of binding one socket, before it gets its key.

use super::identity::PathIdentity;
use super::read_back::Effective;
use crate::config::Endpoint;
use std::os::fd::OwnedFd;

/// A descriptor that is bound, open or whatever its kind takes.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) fd: OwnedFd,
    /// The address asked for, with the port or name that the kernel chose.
    pub(super) address: Endpoint,
    pub(super) identity: Option<PathIdentity>,
    /// Whether listend has created the file or queue.
    pub(super) created: bool,
    pub(super) is_adopted: bool,
    pub(super) effective: Vec<Effective>,
}

impl Ready {
    /// The result for a socket without a file.
    pub(super) fn new(
        fd: impl Into<OwnedFd>,
        address: &Endpoint,
        effective: Vec<Effective>,
    ) -> Ready {
        Ready {
            fd: fd.into(),
            address: address.clone(),
            identity: None,
            created: false,
            is_adopted: false,
            effective,
        }
    }
}
