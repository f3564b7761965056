//! YAML text → [`Config`].
//!
//! Every mistake of every file is found in one pass and becomes a [`crate::report::Problem`] with
//! its place; nothing here panics, whatever the bytes. Pure: files are read by the caller.
//!
//! `yaml` makes a tree with places; `listener` and `worker` read their mappings out of it with
//! the help of `decode` and the tables of [`keys`]; `scalar`, `address` and `template` read single
//! values; `setting` reads the table of [`options`], and `fitting` says which keys mean nothing for
//! which kind of socket, `flows` what keeps flows together, `activation` which mean nothing for a worker that runs as it does; `readiness`
//! and `lifecycle` read what happens to an instance from its start to its end, and `command` what is
//! run; `preset` has what follows from which server a worker runs; `conflict` and `cross` check what
//! the parts say about one another.

mod activation;
mod address;
mod address_inet;
mod address_local;
mod address_parsed;
mod arguments;
mod by_preset;
mod command;
mod conflict;
mod cross;
mod cross_activation;
mod cross_readiness;
mod cross_shards;
mod decode;
mod defaults;
mod draft;
mod fitting;
mod flows;
mod forward;
mod idle;
pub mod keys;
mod life;
mod lifecycle;
mod listener;
mod model;
pub mod options;
mod overlap;
mod pinned;
pub mod preset;
mod read;
mod readiness;
mod sandbox;
mod scalar;
mod scaling;
mod schema;
mod setting;
mod settings;
mod silence;
mod socket_kind;
mod template;
mod value_error;
mod values;
mod worker;
mod yaml;

pub use arguments::from_arguments;
pub use forward::{forwarded, target};
pub use life::*;
pub use model::*;
pub use overlap::Coverage;
pub use pinned::pinned;
pub use read::{Loaded, SourceFile, read};
pub use scalar::{signal_name, signal_number};
pub use scaling::tells_who_waits;
pub use schema::schema;
pub use settings::{Setting, Source, settings};
pub use silence::Silence;
pub use socket_kind::SocketKind;
pub use values::*;
pub use worker::{watch_worker, web_worker};
pub use yaml::{is_allowed, to_yaml, yaml_tree};

/// A duration as configurations have it, such as `1m30s`.
///
/// # Errors
///
/// Why it is none.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    scalar::duration("it", text).map_err(|wrong| wrong.message)
}

/// Whether a listener or worker can have this name.
///
/// # Errors
///
/// Why it cannot.
pub fn check_name(name: &str) -> Result<(), String> {
    scalar::name(name).map_err(|wrong| wrong.message)
}
