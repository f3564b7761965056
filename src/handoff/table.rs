//! The table of dialects.

use super::dialect::Dialect;
use super::{inetd, systemd};
use serde::de::{Deserialize, Deserializer, Error};
use std::borrow::Cow;

/// Every dialect there is; the first is the default.
pub const ALL: &[&Dialect] = &[&systemd::DIALECT, &inetd::DIALECT];

impl Dialect {
    /// The dialect of this keyword.
    pub fn find(keyword: &str) -> Option<&'static Dialect> {
        ALL.iter()
            .copied()
            .find(|dialect| dialect.keyword == keyword)
    }
}

impl<'de> Deserialize<'de> for &'static Dialect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keyword = Cow::<str>::deserialize(deserializer)?;
        Dialect::find(&keyword).ok_or_else(|| D::Error::custom(format!("no handoff `{keyword}`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::{Descriptors, PidfdInode, Socket, Stored, belongs_to_a_handoff};

    fn inputs<'a>(sockets: &'a [Socket<'a>], connection: Option<i32>) -> Descriptors<'a> {
        Descriptors {
            sockets,
            connection,
            stored: &[
                Stored {
                    name: "cache",
                    fd: 40,
                },
                Stored {
                    name: "state",
                    fd: 41,
                },
            ],
            below: Some(6),
            inode: PidfdInode::Tell,
        }
    }

    #[test]
    fn what_every_dialect_lays_out_is_whole_and_scrubbed() {
        let web = [Socket {
            listener: "web",
            fd: 30,
        }];
        for dialect in ALL {
            for (sockets, connection) in [(&web[..], None), (&web[..], Some(50)), (&[], None)] {
                let layout = (dialect.layout)(&inputs(sockets, connection));
                assert_eq!(layout.fds.len(), layout.targets.len(), "{dialect:?}");
                assert_eq!(layout.numbers.len(), sockets.len(), "{dialect:?}");
                for target in &layout.targets {
                    assert!(*target >= dialect.first_fd && *target < 6, "{dialect:?}");
                }
                for (name, _) in &layout.variables {
                    assert!(belongs_to_a_handoff(name), "{name} is not scrubbed");
                }
            }
            assert_eq!(Dialect::find(dialect.keyword), Some(*dialect));
        }
    }
}
