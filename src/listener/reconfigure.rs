//! Changing a socket that is bound already: what can be given to it without closing it.
//!
//! Nothing is taken away before the whole reload is sure to succeed: links and multicast groups that
//! are no longer wanted go only when it is committed. So to undo a change is to make it backwards.

use super::backlog::as_backlog;
use super::bind_error::{BindStep, Failure, Obstacle};
use super::bind_socket::links_of;
use super::bound::BoundSocket;
use super::identity::{PathIdentity, Rights};
use super::option::{Act, Options, PRIORITY};
use super::overlap::REUSE_PORT;
use super::read_back::Effective;
use super::reset_option::take_back;
use super::special::marked;
use super::{inet, mqueue, symlink};
use crate::config::options::{OptionSetting, Phase};
use crate::config::{Endpoint, Multicast};
use crate::plan::{Access, ListenerPlan, ListenerSettings, option_changes};
use crate::walk::Place;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown, fchownat, getegid, geteuid};
use socket2::{InterfaceIndexOrAddress, SockRef};
use std::fs::Permissions;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A socket that is kept, as its listener was and as it is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live<'a> {
    pub(super) socket: &'a BoundSocket,
    pub(super) before: &'a ListenerPlan,
    pub(super) after: &'a ListenerPlan,
    /// Index into the sockets of `after`.
    pub(super) index: usize,
}

/// The result of reconfiguring a kept socket.
#[derive(Debug)]
pub(super) struct Reconfigured {
    pub(super) effective: Vec<Effective>,
    /// The links that it is to keep.
    pub(super) links: Vec<PathBuf>,
    /// The rights that its path was given.
    pub(super) rights: Option<Rights>,
}

impl<'a> Live<'a> {
    /// Whether anything about it is different that the kernel or the file system has to be told.
    pub(super) fn is_touched(&self) -> bool {
        let (before, after) = (&*self.before.settings, &*self.after.settings);
        before.backlog != after.backlog
            || before.options != after.options
            || before.multicast != after.multicast
            || rights(&before.access) != rights(&after.access)
            || self.socket.artifacts.symlinks != self.links()
    }

    fn links(&self) -> &'a [PathBuf] {
        match self.socket.address.path() {
            Some(_) => links_of(self.after, self.index),
            None => &[],
        }
    }

    /// Makes the changes, in the network namespace of the listener. After a failure some may have
    /// been made: [`Live::undo`] takes them back.
    pub(super) fn apply(&self, folders: &mut Vec<PathBuf>) -> Result<Reconfigured, Failure> {
        let (before, after) = (&*self.before.settings, &*self.after.settings);
        if before.backlog != after.backlog {
            self.listen(after)?;
        }
        self.options(self.before, self.after)?;
        let rights = self.access(&before.access, &after.access)?;
        self.join(&before.multicast, &after.multicast)?;
        if let Some(path) = self.socket.address.path() {
            symlink::make(path, &self.new_links(), &after.access, folders)?;
        }
        Ok(Reconfigured {
            effective: self.look()?,
            links: self.links().to_vec(),
            rights,
        })
    }

    /// Takes back what [`Live::apply`] has done, all of it or a part. What fails has nobody to tell
    /// but the failure that led here.
    pub(super) fn undo(&self) {
        let (before, after) = (&*self.before.settings, &*self.after.settings);
        if before.backlog != after.backlog {
            let _told = self.listen(before);
        }
        let _told = self.options(self.after, self.before);
        let _told = self.access(&after.access, &before.access);
        self.leave(&after.multicast, &before.multicast);
        if let Some(path) = self.socket.address.path() {
            let _told = symlink::remove(path, &self.new_links());
        }
    }

    /// Takes away what is wanted no more, when the reload is sure to succeed.
    pub(super) fn finish(&self) {
        let (before, after) = (&*self.before.settings, &*self.after.settings);
        self.leave(&before.multicast, &after.multicast);
        if let Some(path) = self.socket.address.path() {
            for (link, error) in symlink::remove(path, &self.gone_links()) {
                log::warn!("cannot remove {}: {error}", link.display());
            }
        }
    }

    /// The links that are wanted no more.
    pub(super) fn gone_links(&self) -> Vec<PathBuf> {
        let wanted = self.links();
        let held = self.socket.artifacts.symlinks.iter();
        held.filter(|link| !wanted.contains(link))
            .cloned()
            .collect()
    }

    fn new_links(&self) -> Vec<PathBuf> {
        let held = &self.socket.artifacts.symlinks;
        let new = self.links().iter().filter(|link| !held.contains(link));
        new.cloned().collect()
    }

    fn listen(&self, settings: &ListenerSettings) -> Result<(), Failure> {
        if !self.socket.address.accepts() {
            return Ok(());
        }
        // On a listening socket this only sets how many may wait (listen(2)).
        SockRef::from(&self.socket.fd)
            .listen(as_backlog(settings.backlog))
            .map_err(|error| Failure::new(BindStep::Listen, error))
    }

    fn options(&self, before: &ListenerPlan, after: &ListenerPlan) -> Result<(), Failure> {
        let (fd, endpoint) = (self.socket.fd.as_fd(), &self.socket.address);
        let mut changes = option_changes(&before.settings, &after.settings);
        // Where sockets of one listener share an address, they need it, whatever was asked.
        let has_shards = before.shards().max(after.shards()) > 1;
        if has_shards || before.settings.flows.is_some() && after.settings.flows.is_some() {
            changes.retain(|one| one.spec().is_none_or(|spec| spec.key != REUSE_PORT));
        }
        for gone in changes.iter().filter(|one| one.after.is_none()) {
            if let Some(spec) = gone.spec()
                && spec.kinds.contains(&endpoint.kind())
            {
                take_back(fd, endpoint, spec)?;
            }
        }
        // Behind what is taken back, and with the priority, which may go with another one (ip_tos).
        let is_set = |one: &&OptionSetting| {
            let key = one.spec.key;
            key == PRIORITY
                || changes
                    .iter()
                    .any(|change| change.spec().is_some_and(|spec| spec.key == key))
        };
        let set: Vec<OptionSetting> = after
            .settings
            .options
            .iter()
            .filter(is_set)
            .cloned()
            .collect();
        let mut read_back = Vec::new();
        for phase in [Phase::BeforeBind, Phase::BeforeListen, Phase::AtOpen] {
            Options::new(&set, endpoint).apply(fd, phase, Act::Set, &mut read_back)?;
        }
        if let Endpoint::MessageQueue { name } = endpoint
            && mqueue::limits(fd, &set)?.iter().any(|one| !one.is_as_asked)
        {
            return Err(mqueue::taken(name, mqueue::OTHER_LIMITS));
        }
        Ok(())
    }

    /// Reads all options of the socket back.
    fn look(&self) -> Result<Vec<Effective>, Failure> {
        Options::new(&self.after.settings.options, &self.socket.address)
            .look(self.socket.fd.as_fd())
    }

    /// Gives the path or queue other rights. Meanwhile nobody has more than before or after. Answers with those of a
    /// path: what is found later may be somebody else's doing.
    fn access(&self, before: &Access, after: &Access) -> Result<Option<Rights>, Failure> {
        if rights(before) == rights(after) || !self.socket.created {
            return Ok(None);
        }
        let uid = after.owner.map_or_else(geteuid, Uid::from_raw);
        let gid = after.group.map_or_else(getegid, Gid::from_raw);
        let uid = (before.owner != after.owner).then_some(uid);
        let gid = (before.group != after.group).then_some(gid);
        let narrow = before.mode & after.mode;
        let mark = |mode| match &self.socket.address {
            Endpoint::Fifo { .. } => marked(mode),
            _ => mode,
        };
        let no_owner = |errno| Failure::new(BindStep::SetOwner, errno);
        let no_mode = |errno| Failure::new(BindStep::SetMode, errno);
        if let Endpoint::MessageQueue { name } = &self.socket.address {
            let fd = &self.socket.fd;
            let mode = |bits: u32| Mode::from_bits_truncate(bits as libc::mode_t & 0o7777);
            fchmod(fd, mode(narrow)).map_err(|errno| no_mode(errno).about(name))?;
            fchown(fd, uid, gid).map_err(|errno| no_owner(errno).about(name))?;
            fchmod(fd, mode(after.mode)).map_err(|errno| no_mode(errno).about(name))?;
            return Ok(None);
        }
        let (Some(path), Some(identity)) = (self.socket.address.path(), self.socket.identity)
        else {
            return Ok(None);
        };
        let failed = |errno| Failure::new(BindStep::ReadBack, errno).about(path);
        let place =
            Place::of(path).map_err(|refused| Failure::on_the_way(BindStep::ReadBack, refused))?;
        let (handle, file) = place.handle().map_err(failed)?;
        if PathIdentity::of(&file) != identity {
            return Err(failed(Errno::EADDRINUSE).because(Obstacle::Interference));
        }
        // fchmod(2) refuses O_PATH handles; their link in /proc leads to the file itself.
        let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let set_mode = |bits: u32| {
            std::fs::set_permissions(&link, Permissions::from_mode(bits & 0o7777))
                .map_err(|error| Failure::new(BindStep::SetMode, error).about(path))
        };
        set_mode(mark(narrow))?;
        fchownat(&handle, "", uid, gid, AtFlags::AT_EMPTY_PATH)
            .map_err(|errno| no_owner(errno).about(path))?;
        set_mode(mark(after.mode))?;
        Ok(Some(Rights {
            uid: uid.map_or(file.st_uid, Uid::as_raw),
            gid: gid.map_or(file.st_gid, Gid::as_raw),
            mode: mark(after.mode) & 0o7777,
        }))
    }

    fn join(&self, before: &[Multicast], after: &[Multicast]) -> Result<(), Failure> {
        let Endpoint::Inet {
            address, v6_only, ..
        } = &self.socket.address
        else {
            return Ok(());
        };
        let new = after.iter().filter(|group| !before.contains(group));
        let new: Vec<Multicast> = new.cloned().collect();
        inet::join(SockRef::from(&self.socket.fd), *address, *v6_only, &new)
    }

    /// Leaves the groups that are in one list and not in the other.
    fn leave(&self, of: &[Multicast], but: &[Multicast]) {
        let socket = SockRef::from(&self.socket.fd);
        for Multicast { group, interface } in of.iter().filter(|one| !but.contains(one)) {
            let index = interface
                .as_deref()
                .map(|name| inet::interface_index(name, "scope"));
            let Ok(index) = index.unwrap_or(Ok(0)) else {
                // With the interface its groups have gone.
                continue;
            };
            let _was_no_member = match group {
                IpAddr::V4(group) => {
                    socket.leave_multicast_v4_n(group, &InterfaceIndexOrAddress::Index(index))
                }
                IpAddr::V6(group) => socket.leave_multicast_v6(group, index),
            };
        }
    }
}

/// Owner, group and mode, the rights that a path or queue itself has.
fn rights(access: &Access) -> (Option<u32>, Option<u32>, u32) {
    (access.owner, access.group, access.mode)
}
