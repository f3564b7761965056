//! Binding in another network namespace, and always coming back.

use super::bind_error::{BindStep, Failure};
use super::bound::BoundSocket;
use crate::plan::ListenerPlan;
use crate::sys;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::{Mode, fstat, stat};
use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

/// The namespace of the calling thread, which in listend is the only one.
const OWN: &str = "/proc/thread-self/ns/net";

/// The way into other namespaces and back.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// Opened when it is first left.
    own: Option<Rc<OwnedFd>>,
    lost: Rc<Cell<Option<i32>>>,
}

/// Another namespace; it is left when this goes out of scope.
#[derive(Debug)]
pub(super) struct Inside {
    own: Rc<OwnedFd>,
    lost: Rc<Cell<Option<i32>>>,
}

impl Namespaces {
    /// An error if the way back has failed: whatever is bound now is bound in the wrong namespace.
    pub(super) fn at_home(&self) -> Result<(), Failure> {
        match self.lost.get() {
            None => Ok(()),
            Some(errno) => Err(Failure::new(
                BindStep::LeaveNamespace,
                nix::errno::Errno::from_raw(errno),
            )
            .about(OWN)),
        }
    }

    pub(super) fn enter(&mut self, path: &Path) -> Result<Inside, Failure> {
        self.at_home()?;
        let own = match &self.own {
            Some(own) => Rc::clone(own),
            None => {
                let own = Rc::new(open_namespace(Path::new(OWN))?);
                Rc::clone(self.own.insert(own))
            }
        };
        let other = open_namespace(path)?;
        sys::enter_network_namespace(&other)
            .map_err(|error| Failure::new(BindStep::EnterNamespace, error).about(path))?;
        Ok(Inside {
            own,
            lost: Rc::clone(&self.lost),
        })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = sys::enter_network_namespace(&self.own) {
            let errno = error.raw_os_error().unwrap_or(libc::EPERM);
            self.lost.set(Some(errno));
        }
    }
}

/// Does something in the network namespace with this path, or in listend's own. `None` if that cannot be
/// entered, or not be left again.
pub fn in_network_namespace<T>(path: Option<&Path>, act: impl FnOnce() -> T) -> Option<T> {
    let mut namespaces = Namespaces::default();
    let inside = match path {
        None => None,
        Some(path) => Some(namespaces.enter(path).ok()?),
    };
    let done = act();
    drop(inside);
    namespaces.at_home().ok()?;
    Some(done)
}

/// Does something in the network namespace of a listener.
pub(super) fn in_namespace_of<T>(
    listener: &ListenerPlan,
    act: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut namespaces = Namespaces::default();
    let inside = listener.settings.network_namespace.as_ref();
    let inside = inside.map(|path| namespaces.enter(path)).transpose()?;
    let done = act();
    drop(inside);
    namespaces.at_home()?;
    done
}

/// Whether the path of its network namespace leads to another one than that of a socket.
pub(super) fn is_left_behind(listener: &ListenerPlan, socket: &BoundSocket) -> bool {
    let path = listener.settings.network_namespace.as_ref();
    let path = path.filter(|_| socket.address.is_in_network_namespace());
    path.is_some_and(|path| leads_elsewhere(path, &socket.fd))
}

/// Whether there is a network namespace at a path that is not the one of a socket. One that was deleted lives on as
/// long as anybody has a socket in it, and nobody finds it any more.
///
/// `false` where there is none at the path, for clients may still be in the one that was there; and where the
/// kernel does not tell.
pub fn leads_elsewhere(path: &Path, socket: impl AsFd) -> bool {
    let its_own = sys::open_network_namespace_of(socket);
    let (Ok(Ok(its_own)), Ok(wanted)) = (its_own.map(fstat), stat(path)) else {
        return false;
    };
    // All namespaces are files of one file system (ioctl_nsfs(2)). While one is made, its path is an ordinary file.
    wanted.st_dev == its_own.st_dev && wanted.st_ino != its_own.st_ino
}

fn open_namespace(path: &Path) -> Result<OwnedFd, Failure> {
    // Non-blocking: the path may be anything, even a FIFO.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    open(path, flags, Mode::empty())
        .map_err(|errno| Failure::new(BindStep::EnterNamespace, errno).about(path))
}
