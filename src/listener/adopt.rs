//! Sockets that listend was started with: it may be socket-activated itself.
//!
//! By systemd, systemd-socket-activate, systemfd or another listend, all with the protocol of
//! sd_listen_fds(3). Names come first: a socket with a listener's name belongs to that listener,
//! and is an error if it is not what the listener wants. All others are matched by what they are.

use super::inherited_fd::{By, Found, look};
use super::table::Adopted;
use crate::plan::{ListenerId, Plan, SocketKey};
use crate::sys;
use listenfd::ListenFd;
use nix::sys::resource::{Resource, getrlimit};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// SD_LISTEN_FDS_START of sd_listen_fds(3).
const FIRST: RawFd = 3;

/// The name of a descriptor without a name in sd_listen_fds_with_names(3).
const NAMELESS: &str = "unknown";

/// The variables of the protocol, removed so that they are neither inherited by workers nor read twice.
const VARIABLES: [&str; 5] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "LISTEN_FDS_FIRST_FD",
];

/// A descriptor that listend was given.
#[derive(Debug)]
pub struct Inherited {
    /// The descriptor, CLOEXEC from now on.
    pub fd: OwnedFd,
    /// The name from LISTEN_FDNAMES, or `unknown`.
    pub name: String,
}

/// Why inherited sockets cannot be taken: the process that started listend has broken the protocol, and
/// what listend would take instead may be anything.
#[derive(Debug)]
pub enum AdoptError {
    /// LISTEN_FDS is no number, or more than a process can have open.
    BadCount(String),
    /// LISTEN_FDS_FIRST_FD is no number of a descriptor that may be given away.
    BadFirst(String),
    /// A descriptor that LISTEN_FDS promises is not open.
    NotOpen(RawFd, io::Error),
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdoptError::BadCount(text) => {
                write!(
                    f,
                    "LISTEN_FDS is `{text}`, which is not a number of descriptors"
                )
            }
            AdoptError::BadFirst(text) => write!(
                f,
                "LISTEN_FDS_FIRST_FD is `{text}`, which is not the number of a descriptor from \
                 {FIRST} on"
            ),
            AdoptError::NotOpen(fd, error) => {
                write!(f, "LISTEN_FDS names descriptor {fd}: {error}")
            }
        }
    }
}

impl std::error::Error for AdoptError {}

/// The reasons for not adopting a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptProblem {
    /// A socket with a listener's name that is none of the listener's sockets.
    Mismatch {
        /// The listener whose name the socket has.
        listener: ListenerId,
        /// The socket as found, in words with an article.
        found: String,
    },
    /// A further socket with a listener's name for an address of it that has one.
    Surplus {
        /// The listener whose name the socket has.
        listener: ListenerId,
        /// The socket as found, in words with an article.
        found: String,
    },
    /// A socket that no listener wants. It has been closed.
    Unwanted {
        /// The name under which it was inherited.
        name: String,
        /// The socket as found, in words with an article.
        found: String,
    },
}

/// Takes the sockets that this process was given, if any, and removes the variables that tell of
/// them. To be called first of all: whatever is opened before could get a number that was promised
/// to be a socket.
///
/// None where LISTEN_PID or LISTEN_PIDFDID name another process; an absent LISTEN_PID names any,
/// as systemfd has it.
///
/// # Errors
///
/// See [`AdoptError`].
pub fn take_inherited() -> Result<Vec<Inherited>, AdoptError> {
    let said = |name: &str| {
        let value = std::env::var_os(name)?;
        Some(value.to_string_lossy().into_owned())
    };
    let taken = take(&said);
    for name in VARIABLES {
        sys::forget_variable(name);
    }
    taken
}

fn take(said: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Inherited>, AdoptError> {
    let Some(count) = said("LISTEN_FDS") else {
        return Ok(Vec::new());
    };
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::from(u32::MAX), |(_, hard)| hard);
    match count.parse::<u64>() {
        Ok(count) if count <= most => {}
        _ => return Err(AdoptError::BadCount(count)),
    }
    if let Some(first) = said("LISTEN_FDS_FIRST_FD")
        && !first.parse().is_ok_and(|first: RawFd| first >= FIRST)
    {
        return Err(AdoptError::BadFirst(first));
    }
    if let (Some(theirs), Some(ours)) = (said("LISTEN_PIDFDID"), sys::own_pidfd_inode())
        && theirs.parse() != Ok(ours)
    {
        return Ok(Vec::new());
    }
    // It knows LISTEN_PID and the number of the first, but no names.
    let mut given = ListenFd::from_env();
    let names = names(said("LISTEN_FDNAMES").as_deref(), given.len());
    let mut inherited = Vec::with_capacity(given.len());
    for (index, name) in names.into_iter().enumerate() {
        // It does not look at a bare descriptor, and so it cannot fail.
        if let Ok(Some(number)) = given.take_raw_fd(index) {
            let fd =
                sys::take_descriptor(number).map_err(|error| AdoptError::NotOpen(number, error))?;
            inherited.push(Inherited { fd, name });
        }
    }
    Ok(inherited)
}

/// The names of so many descriptors. With fewer or more names than descriptors there is no telling
/// which is whose.
fn names(said: Option<&str>, count: usize) -> Vec<String> {
    let names: Vec<&str> = said.map_or_else(Vec::new, |text| text.split(':').collect());
    if names.len() == count {
        names.into_iter().map(str::to_owned).collect()
    } else {
        vec![NAMELESS.to_owned(); count]
    }
}

/// Whether a socket without a listener's name may be that of an address whose port the kernel chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownPorts {
    /// No: it may be anything.
    NeedAName,
    /// If all of them are of this configuration, and there is one such address and one such socket.
    ByElimination,
}

/// Finds out which inherited socket is which of the plan's: by name first, then by address and
/// type. What is not wanted is closed.
pub fn match_up(
    plan: &Plan,
    inherited: Vec<Inherited>,
    unknown_ports: UnknownPorts,
) -> (Adopted, Vec<AdoptProblem>) {
    if inherited.is_empty() {
        return (Adopted::default(), Vec::new());
    }
    let ids: HashMap<&str, ListenerId> = plan
        .listeners()
        .map(|(id, listener)| (listener.name.as_str(), id))
        .collect();
    let mut matching = Matching {
        plan,
        taken: HashMap::new(),
    };
    let mut named = Vec::new();
    let mut others = Vec::new();
    for one in inherited {
        let found = look(&one.fd);
        match ids.get(one.name.as_str()) {
            Some(id) if one.name != NAMELESS => named.push((one.fd, found, *id)),
            _ => others.push((one, found)),
        }
    }
    let mut problems = Vec::new();
    // Those with an address of their own first: `127.0.0.1:0` would take any port.
    let mut left = Vec::new();
    for (fd, found, id) in named {
        match matching.place_in(id, &found, By::Address) {
            Some(place) => matching.take(place, fd),
            None => left.push((fd, found, id)),
        }
    }
    for (fd, found, id) in left {
        if let Some(place) = matching.place_in(id, &found, By::Name) {
            matching.take(place, fd);
            continue;
        }
        let mut sockets = plan.listener(id).sockets.iter();
        let is_surplus = sockets.any(|one| found.fits(&one.endpoint, By::Name));
        let (listener, found) = (id, found.to_string());
        problems.push(match is_surplus {
            true => AdoptProblem::Surplus { listener, found },
            false => AdoptProblem::Mismatch { listener, found },
        });
    }
    let mut unplaced = Vec::new();
    for (one, found) in others {
        match matching.place_anywhere(&found) {
            Some(place) => matching.take(place, one.fd),
            None => unplaced.push((one, found)),
        }
    }
    if unknown_ports == UnknownPorts::ByElimination {
        unplaced = matching.take_what_is_left(unplaced);
    }
    problems.extend(
        unplaced
            .into_iter()
            .map(|(one, found)| AdoptProblem::Unwanted {
                name: one.name,
                found: found.to_string(),
            }),
    );
    (matching.taken, problems)
}

struct Matching<'a> {
    plan: &'a Plan,
    taken: Adopted,
}

impl Matching<'_> {
    fn take(&mut self, key: SocketKey, fd: OwnedFd) {
        self.taken.insert(key, fd);
    }

    /// The listener's first socket that still lacks a descriptor and that this one can be.
    fn place_in(&self, id: ListenerId, found: &Found, by: By) -> Option<SocketKey> {
        let mut sockets = self.plan.listener(id).sockets.iter();
        let socket = sockets.find(|socket| {
            found.fits(&socket.endpoint, by) && !self.taken.contains_key(&socket.key)
        });
        socket.map(|socket| socket.key)
    }

    /// Takes those of which there is nothing to be mistaken for. Answers with the others.
    fn take_what_is_left(&mut self, left: Vec<(Inherited, Found)>) -> Vec<(Inherited, Found)> {
        let sockets = self.plan.listeners.values().flat_map(|one| &one.sockets);
        let open: Vec<_> = sockets
            .filter(|socket| !self.taken.contains_key(&socket.key))
            .collect();
        let places = |found: &Found| -> Vec<SocketKey> {
            let fits = open
                .iter()
                .filter(|one| found.fits(&one.endpoint, By::Name));
            fits.map(|one| one.key).collect()
        };
        let wanted: Vec<Vec<SocketKey>> = left.iter().map(|(_, found)| places(found)).collect();
        let mut others = Vec::new();
        for ((one, found), places) in left.into_iter().zip(&wanted) {
            match places.as_slice() {
                [place] if wanted.iter().filter(|all| all.contains(place)).count() == 1 => {
                    self.taken.insert(*place, one.fd);
                }
                _ => others.push((one, found)),
            }
        }
        others
    }

    fn place_anywhere(&self, found: &Found) -> Option<SocketKey> {
        let ids = self.plan.listeners().map(|(id, _)| id);
        let mut places = ids.filter_map(|id| self.place_in(id, found, By::Address));
        places.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_only_if_there_are_as_many_as_descriptors() {
        assert_eq!(names(Some("web:admin"), 2), ["web", "admin"]);
        assert_eq!(names(Some("web"), 1), ["web"]);
        assert_eq!(names(Some("web:admin"), 1), ["unknown"]);
        assert_eq!(names(Some(""), 2), ["unknown", "unknown"]);
        assert_eq!(names(None, 1), ["unknown"]);
        assert!(names(None, 0).is_empty());
    }

    #[test]
    fn what_breaks_the_protocol_is_refused_before_any_descriptor_is_touched() {
        let said = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                let mut all = pairs.iter();
                let (_, value) = all.find(|(key, _)| *key == name)?;
                Some((*value).to_owned())
            }
        };
        assert!(take(&said(&[])).unwrap().is_empty());
        for text in [
            &[("LISTEN_FDS", "many")] as &'static [_],
            &[("LISTEN_FDS", "-1")],
            &[("LISTEN_FDS", "18446744073709551615")],
        ] {
            assert!(matches!(take(&said(text)), Err(AdoptError::BadCount(_))));
        }
        let first = take(&said(&[("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "0")]));
        assert!(matches!(first, Err(AdoptError::BadFirst(_))));
        if sys::own_pidfd_inode().is_some() {
            let other = take(&said(&[("LISTEN_FDS", "1"), ("LISTEN_PIDFDID", "1")]));
            assert!(other.unwrap().is_empty());
        }
    }
}
