//! What the kernel calls a descriptor.

use crate::sys::{SharedFd, sockopt};
use nix::libc;
use nix::sys::stat::fstat;
use std::fmt;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};

/// What distinguishes an open file from all others of this boot, in whatever process it is open. A
/// descriptor of which there is none can be told from others by its name alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(String);

impl Identity {
    /// Of a socket, its cookie (SO_COOKIE, Linux 4.6); of a file, its device and inode. `None` for what
    /// is of no file system that shows, as an eventfd and a pidfd.
    pub fn of(fd: impl AsFd) -> Option<Identity> {
        let fd = fd.as_fd();
        match sockopt::get_u64(fd, libc::SOL_SOCKET, libc::SO_COOKIE) {
            Ok(cookie) => return Some(Identity::of_cookie(cookie)),
            Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {}
            Err(_) => return None,
        }
        let status = fstat(fd).ok()?;
        let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        if link
            .as_os_str()
            .as_encoded_bytes()
            .starts_with(b"anon_inode:")
        {
            return None;
        }
        Some(Identity(format!(
            "file:{:x}:{:x}",
            status.st_dev, status.st_ino
        )))
    }

    /// The same, of a descriptor that knows its cookie.
    pub fn of_shared(fd: &SharedFd) -> Option<Identity> {
        match fd.cookie() {
            Some(cookie) => Some(Identity::of_cookie(cookie)),
            None => Identity::of(fd),
        }
    }

    /// Of a pidfd with an inode of its own.
    pub fn of_pidfd(inode: u64) -> Identity {
        Identity(format!("pidfd:{inode:x}"))
    }

    fn of_cookie(cookie: u64) -> Identity {
        Identity(format!("socket:{cookie:x}"))
    }

    /// As it was written before.
    pub fn read(text: &str) -> Identity {
        Identity(text.to_owned())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::eventfd::EventFd;
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;

    #[test]
    fn two_sockets_at_one_address_are_different_and_a_copy_is_the_same() {
        let one = TcpListener::bind("127.0.0.1:0").expect("bind");
        let other = TcpListener::bind("127.0.0.1:0").expect("bind");
        let copy = one.try_clone().expect("dup");
        assert!(Identity::of(&one).is_some());
        assert_eq!(Identity::of(&one), Identity::of(&copy));
        assert_ne!(Identity::of(&one), Identity::of(&other));
        let (of_one, shared) = (Identity::of(&one), SharedFd::from(OwnedFd::from(one)));
        for _ in 0..2 {
            assert_eq!(Identity::of_shared(&shared), of_one);
        }
    }

    #[test]
    fn each_pipe_has_one_and_an_eventfd_has_none() {
        let (one, _write) = nix::unistd::pipe().expect("pipe");
        let (other, _write) = nix::unistd::pipe().expect("pipe");
        let identity = Identity::of(&one).expect("a pipe has an inode of its own");
        assert_ne!(Some(&identity), Identity::of(&other).as_ref());
        assert_eq!(Identity::read(&identity.to_string()), identity);
        assert_eq!(Identity::of_shared(&SharedFd::from(one)), Some(identity));
        assert_eq!(Identity::of(EventFd::new().expect("eventfd")), None);
    }
}
