//! A unix socket of listend's own that has a path: made, watched, repaired and removed like one of a
//! listener, so that a stale one is replaced and a live one is not, and its mode is right from its birth.

use crate::config::{Endpoint, UnixKind, UnixName};
use crate::listener::{
    self, Adopted, BindError, BoundSocket, Damage, Purpose, Repair, SocketRecord, SocketTable,
};
use crate::plan::{Access, ListenerPlan, Plan, SocketKey, SocketPlan};
use crate::report::{FileId, Place, describe};
use nix::unistd::geteuid;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// How many clients may wait to be accepted.
const BACKLOG: u32 = 128;
const THE_ONE: SocketKey = SocketKey(0);

/// What was found damaged.
#[derive(Debug)]
pub(super) struct OwnRepair {
    pub(super) damage: Damage,
    /// How it was repaired, or why it could not be.
    pub(super) done: Result<Repair, String>,
    pub(super) path: String,
}

/// Dropped, it is closed and its path removed.
#[derive(Debug)]
pub(super) struct OwnSocket {
    /// A plan of nothing but this socket.
    plan: Plan,
    bound: SocketTable,
}

/// Why it could not be bound, and the plan that this is about.
pub(super) type NotBound = Box<(BindError, Plan)>;

impl OwnSocket {
    /// Binds to an absolute path. Folders that are missing are made, for root with mode 0755 and
    /// otherwise with 0700.
    pub(super) fn bind(
        name: &str,
        kind: UnixKind,
        path: &Path,
        (group, mode): (Option<u32>, u32),
    ) -> Result<OwnSocket, NotBound> {
        OwnSocket::with(plan(name, kind, path, (group, mode)), Adopted::default())
    }

    /// Goes on with the socket that another listend had there.
    pub(super) fn restore(
        name: &str,
        kind: UnixKind,
        path: &Path,
        access: (Option<u32>, u32),
        (fd, record): (OwnedFd, SocketRecord),
    ) -> Result<OwnSocket, NotBound> {
        let adopted = Adopted::from([(THE_ONE, fd)]);
        let mut own = OwnSocket::with(plan(name, kind, path, access), adopted)?;
        if let Some(socket) = own.bound.get_mut(THE_ONE) {
            socket.restore(record);
        }
        Ok(own)
    }

    fn with(plan: Plan, adopted: Adopted) -> Result<OwnSocket, NotBound> {
        let mut outcome = listener::bind_all(&plan, Purpose::Keep, adopted);
        if outcome.errors.is_empty() {
            let bound = outcome.bound;
            return Ok(OwnSocket { plan, bound });
        }
        outcome.bound.withdraw();
        Err(Box::new((outcome.errors.swap_remove(0), plan)))
    }

    /// Takes it back, with the folders that were made for it.
    pub(super) fn withdraw(mut self) {
        std::mem::take(&mut self.bound).withdraw();
    }

    pub(super) fn socket(&self) -> Option<&BoundSocket> {
        self.bound.get(THE_ONE)
    }

    /// Puts it right and sets it up again, if something is wrong with it.
    pub(super) fn repair(
        &mut self,
        set_up: fn(&BoundSocket) -> io::Result<()>,
    ) -> Option<OwnRepair> {
        let socket = self.socket()?;
        let damage = listener::inspect(socket)?;
        let path = socket.address.path().unwrap_or(Path::new("it"));
        let path = path.display().to_string();
        let done = match listener::repair(&self.plan, &mut self.bound, THE_ONE) {
            Ok(Some(repair))
                if self
                    .socket()
                    .is_some_and(|it| listener::inspect(it).is_none()) =>
            {
                Ok(repair)
            }
            Ok(_) => Err("it cannot be restored".to_owned()),
            // A whole diagnosis looks at more than the loop has time for.
            Err(error) => Err(describe(error.errno)),
        };
        let done = done.and_then(|repair| match self.socket().map(set_up) {
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(())) | None => Ok(repair),
        });
        Some(OwnRepair { damage, done, path })
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        for (path, error) in self.bound.remove_paths() {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

fn plan(name: &str, kind: UnixKind, path: &Path, (group, mode): (Option<u32>, u32)) -> Plan {
    let nowhere = Place {
        file: FileId(0),
        line: 1,
        column: 1,
        length: 1,
    };
    let path = UnixName::Path(PathBuf::from(path));
    let listener = ListenerPlan::new(
        name.to_owned(),
        vec![SocketPlan {
            key: THE_ONE,
            endpoint: Endpoint::Unix { kind, name: path },
            shard: 0,
            place: nowhere,
        }],
        BACKLOG,
        Access {
            owner: None,
            group,
            mode,
            directory_mode: if geteuid().is_root() { 0o755 } else { 0o700 },
            directory_owner: None,
            directory_group: None,
        },
    );
    Plan::new([listener], [])
}
