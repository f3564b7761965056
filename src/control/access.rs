//! The rights of a client of the control socket.

use super::Error;

/// A client, by the credentials that the kernel vouches for: SO_PEERCRED and SO_PEERGROUPS, as they
/// were when it connected (unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer<'a> {
    /// The effective user of the client.
    pub uid: u32,
    /// The effective group of the client.
    pub gid: u32,
    /// The supplementary groups of the client.
    pub groups: &'a [u32],
}

/// The owner of the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The effective user of the daemon.
    pub uid: u32,
    /// The group of the socket's file.
    pub gid: u32,
}

/// The rights of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// No right, not even to learn who answers.
    Nothing,
    /// The right to call every method that changes nothing.
    Look,
    /// The right to call every method.
    Act,
}

impl Access {
    /// Root and the daemon's own user may act, the group of the socket may look.
    ///
    /// The mode of the socket already keeps others out, but not if somebody changes it.
    pub fn of(peer: Peer, owner: Owner) -> Access {
        if peer.uid == 0 || peer.uid == owner.uid {
            Access::Act
        } else if peer.gid == owner.gid || peer.groups.contains(&owner.gid) {
            Access::Look
        } else {
            Access::Nothing
        }
    }

    /// Whether the client may ask for what needs this.
    ///
    /// # Errors
    ///
    /// [`Error::PermissionDenied`].
    pub(super) fn permit(self, needed: Access) -> Result<(), Error> {
        match self >= needed {
            true => Ok(()),
            false => Err(Error::PermissionDenied),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { uid: 500, gid: 600 };

    fn access(uid: u32, gid: u32, groups: &[u32]) -> Access {
        Access::of(Peer { uid, gid, groups }, OWNER)
    }

    #[test]
    fn credentials_decide() {
        assert_eq!(access(0, 0, &[]), Access::Act);
        assert_eq!(access(500, 1, &[]), Access::Act);
        assert_eq!(access(7, 600, &[]), Access::Look);
        assert_eq!(access(7, 7, &[1, 600]), Access::Look);
        assert_eq!(access(7, 7, &[1, 2]), Access::Nothing);
        // A group is no user, and the group of root is no root.
        assert_eq!(access(600, 500, &[500]), Access::Nothing);
        assert_eq!(access(7, 0, &[0]), Access::Nothing);
    }

    #[test]
    fn looking_is_not_acting() {
        let allowed = |access: Access| {
            [Access::Look, Access::Act].map(|needed| access.permit(needed).is_ok())
        };
        assert_eq!(allowed(Access::Act), [true, true]);
        assert_eq!(allowed(Access::Look), [true, false]);
        assert_eq!(allowed(Access::Nothing), [false, false]);
    }
}
