//! Socket options: set in their phase, and read back. What was not asked for is left alone.

use super::bind_error::{BindStep, Failure};
use super::bound::BoundSocket;
use super::mqueue;
use super::namespace::in_namespace_of;
use super::read_back::Effective;
use crate::config::Endpoint;
use crate::config::options::{How, OptionSetting, OptionSpec, OptionValue, Phase, ValueKind};
use crate::plan::ListenerPlan;
use crate::sys::sockopt;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_int};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

pub(super) const PRIORITY: &str = "priority";
const FAST_OPEN: &str = "tcp_fast_open";

/// An option that a process with the socket has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The key of the option in the YAML.
    pub key: &'static str,
    /// The value found, as in [`Effective::effective`].
    pub found: String,
    /// Whether the option was restored.
    pub is_put_back: bool,
}

/// The current options of a socket, from the kernel; the last known values where it does not tell.
pub fn effective(listener: &ListenerPlan, socket: &BoundSocket) -> Vec<Effective> {
    let options = Options::new(&listener.settings.options, &socket.address);
    let asked = in_namespace_of(listener, || options.look(socket.fd.as_fd()));
    asked.unwrap_or_else(|_| socket.effective.clone())
}

/// Sets the options again that a worker has changed. Answers with those, and what it has found; with
/// none where the kernel does not tell.
pub fn put_options_back(listener: &ListenerPlan, socket: &BoundSocket) -> Vec<Changed> {
    if socket.effective.is_empty() {
        return Vec::new();
    }
    let options = Options::new(&listener.settings.options, &socket.address);
    let done = in_namespace_of(listener, || {
        options.put_back(socket.fd.as_fd(), &socket.effective)
    });
    done.unwrap_or_default()
}

/// Whether options are set, or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Set, then read back.
    Set,
    /// Only read the options back: it is too late to set them.
    Look,
}

/// The options of one listener on one of its sockets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options<'p> {
    settings: &'p [OptionSetting],
    endpoint: &'p Endpoint,
}

/// The family of a socket, which decides the name of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
    /// IPv6 that takes IPv4 as well.
    Both,
    Netlink,
    Other,
}

/// Level and name of an option, and what it is called.
pub(super) type Name = ((c_int, c_int), &'static str);

impl<'p> Options<'p> {
    /// `endpoint` is what is really bound, which decides the family.
    pub(super) fn new(settings: &'p [OptionSetting], endpoint: &'p Endpoint) -> Self {
        Options { settings, endpoint }
    }

    /// Sets the options of a phase, and reads all of them back when they are set: one may change
    /// another. Those that do not fit the kind of this socket are for another one of the listener's.
    ///
    /// Every effective value goes into `effective`, in the order of the settings; it is an error if
    /// the kernel refuses one.
    pub(super) fn apply(
        self,
        fd: BorrowedFd<'_>,
        phase: Phase,
        act: Act,
        effective: &mut Vec<Effective>,
    ) -> Result<(), Failure> {
        let kind = self.endpoint.kind();
        let settings = self
            .settings
            .iter()
            .filter(|setting| setting.spec.phase == phase && setting.spec.kinds.contains(&kind));
        let family = self.family();
        if act == Act::Set {
            // "Setting the IP_TOS field also sets the priority" (SO_PRIORITY in socket(7)).
            let is_last = |setting: &&OptionSetting| setting.spec.key == PRIORITY;
            let first = settings.clone().filter(|setting| !is_last(setting));
            for setting in first.chain(settings.clone().filter(is_last)) {
                set(fd, setting, family)?;
            }
        }
        for setting in settings {
            effective.extend(look_at(fd, setting, family)?);
        }
        Ok(())
    }

    /// Reads all options back. To be called in the network namespace of the socket.
    pub(super) fn look(self, fd: BorrowedFd<'_>) -> Result<Vec<Effective>, Failure> {
        let mut effective = Vec::new();
        for phase in [Phase::BeforeBind, Phase::BeforeListen, Phase::AtOpen] {
            self.apply(fd, phase, Act::Look, &mut effective)?;
        }
        if let Endpoint::MessageQueue { .. } = self.endpoint {
            effective.extend(mqueue::limits(fd, self.settings)?);
        }
        Ok(effective)
    }

    /// Sets those again that are not what they were. Answers with what they were changed to meanwhile,
    /// and whether they are as before again.
    pub(super) fn put_back(
        self,
        fd: BorrowedFd<'_>,
        before: &[Effective],
    ) -> Result<Vec<Changed>, Failure> {
        let mut changed = Vec::new();
        let found = self.look(fd)?;
        let differs = |one: &Effective| {
            let known = before.iter().find(|known| known.key == one.key);
            known.is_some_and(|known| known.effective != one.effective)
        };
        if !found.iter().any(differs) {
            return Ok(changed);
        }
        for setting in self.settings {
            if found
                .iter()
                .any(|one| one.key == setting.spec.key && differs(one))
            {
                // What comes of it is looked at.
                let _looked_at = set(fd, setting, self.family());
            }
        }
        // ip_tos may have taken it along.
        let priority = self.settings.iter().find(|one| one.spec.key == PRIORITY);
        let _looked_at = priority.map(|setting| set(fd, setting, self.family()));
        let now = self.look(fd)?;
        for found in found.into_iter().filter(differs) {
            let now = now.iter().find(|now| now.key == found.key);
            // What a process with the socket has not set cannot be set here, and is no news: the machine
            // says so.
            if now.is_some_and(|now| now.effective != found.effective || differs(now)) {
                changed.push(Changed {
                    key: found.key,
                    is_put_back: !now.is_some_and(differs),
                    found: found.effective,
                });
            }
        }
        Ok(changed)
    }

    pub(super) fn family(self) -> Family {
        match self.endpoint {
            Endpoint::Inet { address, .. } if address.is_ipv4() => Family::V4,
            Endpoint::Inet { v6_only: true, .. } => Family::V6,
            Endpoint::Inet { .. } => Family::Both,
            Endpoint::Netlink { .. } => Family::Netlink,
            _ => Family::Other,
        }
    }
}

/// Sets an option, unless that takes no call of its own.
fn set(fd: BorrowedFd<'_>, setting: &OptionSetting, family: Family) -> Result<(), Failure> {
    let spec = setting.spec;
    let asked = match &setting.value {
        OptionValue::Flag(on) => i64::from(*on),
        OptionValue::Number(number) => *number,
        OptionValue::Text(text) => {
            let How::Text(level, name) = spec.how else {
                return Ok(());
            };
            return sockopt::set_bytes(fd, level, name, text.as_bytes())
                .map_err(refused(spec.call));
        }
    };
    let value = to_kernel(asked);
    match spec.how {
        How::Int(..) | How::IntByFamily { .. } | How::IntByFamilyOrNetlink { .. } => {
            for ((level, name), call) in names(spec, family) {
                sockopt::set_int(fd, level, name, value).map_err(refused(call))?;
            }
        }
        // First without the system's limit, which takes CAP_NET_ADMIN.
        How::Buffer { force, plain } => sockopt::set_int(fd, libc::SOL_SOCKET, force, value)
            .or_else(|_| sockopt::set_int(fd, libc::SOL_SOCKET, plain, value))
            .map_err(refused(spec.call))?,
        // Clearing either clears both, so only the one that is asked for is set.
        How::OneOf(level) => {
            for (flag, call) in flags(spec).filter(|(flag, _)| asked == *flag || asked == 0) {
                let on = c_int::from(asked == flag);
                sockopt::set_int(fd, level, to_kernel(flag), on).map_err(refused(call))?;
            }
        }
        How::PipeSize => {
            let set = fcntl(fd, FcntlArg::F_SETPIPE_SZ(value));
            set.map_err(|errno| refused(spec.call)(errno.into()))?;
        }
        How::Text(..) | How::QueueMaxMessages | How::QueueMessageSize => {}
    }
    Ok(())
}

/// Reads an option back; `None` for what is not set by a call of its own.
fn look_at(
    fd: BorrowedFd<'_>,
    setting: &OptionSetting,
    family: Family,
) -> Result<Option<Effective>, Failure> {
    let spec = setting.spec;
    let asked = match &setting.value {
        OptionValue::Flag(on) => i64::from(*on),
        OptionValue::Number(number) => *number,
        OptionValue::Text(text) => return text_of(fd, spec, text),
    };
    let got = match spec.how {
        How::Int(..) | How::IntByFamily { .. } | How::IntByFamilyOrNetlink { .. } => {
            let got = ints(fd, spec, names(spec, family), asked)?;
            // The kernel keeps the number, and has no use for it.
            let is_void = spec.key == FAST_OPEN && !lets_servers_fast_open();
            if is_void { Some(0) } else { got }
        }
        How::Buffer { plain, .. } => {
            let got = read(sockopt::get_int(fd, libc::SOL_SOCKET, plain), spec.call)?;
            got.map(i64::from)
        }
        How::OneOf(level) => one_of(fd, spec, level)?,
        How::PipeSize => {
            let got = fcntl(fd, FcntlArg::F_GETPIPE_SZ).map_err(io::Error::from);
            read(got, spec.call)?.map(i64::from)
        }
        How::Text(..) | How::QueueMaxMessages | How::QueueMessageSize => return Ok(None),
    };
    Ok(Some(Effective::of_number(spec, asked, got)))
}

/// The names that an option has on a socket of this family: two where it takes both families.
pub(super) fn names(spec: &'static OptionSpec, family: Family) -> impl Iterator<Item = Name> {
    let call = |index: usize| spec.call.split(", ").nth(index).unwrap_or(spec.call);
    let (first, second) = match spec.how {
        How::Int(level, name) => (Some(((level, name), spec.call)), None),
        How::IntByFamilyOrNetlink { netlink, .. } if family == Family::Netlink => {
            (Some((netlink, call(2))), None)
        }
        How::IntByFamily { v4, v6 } | How::IntByFamilyOrNetlink { v4, v6, .. } => match family {
            Family::V4 => (Some((v4, call(0))), None),
            Family::V6 => (Some((v6, call(1))), None),
            Family::Both => (Some((v6, call(1))), Some((v4, call(0)))),
            Family::Netlink | Family::Other => (None, None),
        },
        _ => (None, None),
    };
    first.into_iter().chain(second)
}

/// Whether net.ipv4.tcp_fastopen has the bit for servers (TFO_SERVER_ENABLE), in the network namespace
/// of the moment. Where it cannot be read nothing is known against it.
fn lets_servers_fast_open() -> bool {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen").unwrap_or_default();
    let bits = text.trim().parse::<u32>();
    bits.map_or(true, |bits| bits & 2 != 0)
}

fn refused(name: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::new(BindStep::SetOption(name), error)
}

/// `None` if the option cannot be read: the kernel has some that can only be set.
fn read<T>(answer: io::Result<T>, name: &'static str) -> Result<Option<T>, Failure> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if lacks_reading(&error) => Ok(None),
        Err(error) => Err(Failure::new(BindStep::SetOption(name), error)),
    }
}

fn lacks_reading(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP)
    )
}

/// Reads an int under each of these names, and answers with the first value that is not as asked.
fn ints(
    fd: BorrowedFd<'_>,
    spec: &'static OptionSpec,
    names: impl Iterator<Item = Name>,
    asked: i64,
) -> Result<Option<i64>, Failure> {
    let mut answer = Some(asked);
    for ((level, name), call) in names {
        let got = read(sockopt::get_int(fd, level, name), call)?;
        let got = got.map(|got| from_kernel(spec.value, got));
        if answer == Some(asked) {
            answer = got;
        }
    }
    Ok(answer)
}

/// An int, or an unsigned int with the same bits: no range reaches beyond.
fn to_kernel(asked: i64) -> c_int {
    asked as u32 as c_int
}

fn from_kernel(kind: ValueKind, got: c_int) -> i64 {
    match kind {
        ValueKind::Flag => i64::from(got != 0),
        ValueKind::Number(_, most) if most > i64::from(c_int::MAX) => i64::from(got as u32),
        _ => i64::from(got),
    }
}

/// The names of the flags of which one can be set.
fn flags(spec: &'static OptionSpec) -> impl Iterator<Item = (i64, &'static str)> {
    let choices = match spec.value {
        ValueKind::Choice(choices) => choices,
        _ => &[],
    };
    let flags = choices.iter().map(|(_, flag)| *flag);
    flags.filter(|flag| *flag != 0).zip(spec.call.split(", "))
}

/// The value is the name of the flag that is set, or 0 for none of them.
fn one_of(
    fd: BorrowedFd<'_>,
    spec: &'static OptionSpec,
    level: c_int,
) -> Result<Option<i64>, Failure> {
    let mut answer = 0;
    for (flag, call) in flags(spec) {
        match read(sockopt::get_int(fd, level, to_kernel(flag)), call)? {
            Some(0) => {}
            Some(_) => answer = flag,
            None => return Ok(None),
        }
    }
    Ok(Some(answer))
}

fn text_of(
    fd: BorrowedFd<'_>,
    spec: &'static OptionSpec,
    asked: &str,
) -> Result<Option<Effective>, Failure> {
    let How::Text(level, name) = spec.how else {
        return Ok(None);
    };
    let got = read(sockopt::get_bytes(fd, level, name), spec.call)?;
    // The NUL at the end counts, and where there is no name there is not even that.
    let got = got.map(|bytes| {
        let end = bytes.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
    });
    Ok(Some(Effective {
        key: spec.key,
        asked: asked.to_owned(),
        is_as_asked: got.as_deref() == Some(asked),
        effective: got.unwrap_or(Effective::UNKNOWN.to_owned()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::{OPTIONS, by_key};

    #[test]
    fn every_family_has_a_name_for_every_option_it_may_have() {
        for spec in OPTIONS {
            let several = match spec.how {
                How::IntByFamily { .. } => 2,
                How::IntByFamilyOrNetlink { .. } => 3,
                _ => continue,
            };
            let calls: Vec<_> = spec.call.split(", ").collect();
            assert_eq!(calls.len(), several, "{}", spec.key);
            let of = |family| {
                names(spec, family)
                    .map(|(_, call)| call)
                    .collect::<Vec<_>>()
            };
            assert_eq!(of(Family::V4), calls[..1]);
            assert_eq!(of(Family::V6), calls[1..2]);
            assert_eq!(of(Family::Both), [calls[1], calls[0]]);
        }
    }

    #[test]
    fn rounding_up_is_no_change_and_cutting_is() {
        let changed = |key: &str, asked, got| {
            let spec = by_key(key).unwrap();
            !Effective::of_number(spec, asked, Some(got)).is_as_asked
        };
        assert!(!changed("receive_buffer", 4096, 8192));
        assert!(changed("receive_buffer", 4096, 4096));
        assert!(!changed("defer_accept", 5, 7));
        assert!(changed("defer_accept", 5, 3));
        assert!(!changed("pipe_size", 5000, 8192));
        assert!(changed("tcp_fast_open", 9000, 4096));
        let unread = Effective::of_number(by_key("defer_accept").unwrap(), 5, None);
        assert_eq!((unread.asked.as_str(), unread.is_as_asked), ("5s", false));
    }
}
