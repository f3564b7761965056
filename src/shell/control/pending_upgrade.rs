//! An upgrade that has been asked for.

use crate::core::Mono;
use crate::shell::token::ClientId;
use std::path::PathBuf;

/// An upgrade under way.
#[derive(Debug)]
pub(in crate::shell) struct Upgrade {
    pub(super) client: Option<ClientId>,
    pub(super) binary: PathBuf,
    /// Once the binary has shown that it understands: its version, and until when is waited for what is half done.
    pub(super) understood: Option<(String, Mono)>,
}
