//! POSIX message queues (mq_overview(7)).
//!
//! A queue is born without any rights; owner and mode follow through its descriptor. How much fits
//! into it is settled then for good, so one that is there already is taken only if it fits.

use super::bind_error::{BindStep, Failure, Obstacle, Purpose};
use super::identity::PathIdentity;
use super::read_back::Effective;
use super::ready::Ready;
use crate::config::Endpoint;
use crate::config::options::{How, OptionSetting, OptionValue};
use crate::plan::{Access, ListenerPlan};
use crate::sys::{self, QueueLimits, QueueOpen};
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown, geteuid};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What a queue is called that holds more, fewer or other messages than is asked for.
pub const OTHER_LIMITS: &str = "a message queue with other limits";

/// Opens the queue, and makes it first where it is not there; `None` if that was only to be tried.
pub(super) fn open(
    endpoint: &Endpoint,
    name: &str,
    listener: &ListenerPlan,
    purpose: Purpose,
) -> Result<Option<Ready>, Failure> {
    let failed = |errno| Failure::new(BindStep::Open, errno).about(name);
    let call = c_name(name).map_err(|error| Failure::new(BindStep::Open, error).about(name))?;
    let (fd, created) = match sys::open_queue(&call, QueueOpen::Existing) {
        Ok(fd) => (fd, false),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            if purpose == Purpose::Try {
                return try_limits(name, listener).map(|()| None);
            }
            (create(name, &call, listener)?, true)
        }
        Err(error) => return Err(refused(name, error)),
    };
    let finished = (|| {
        let file = fstat(&fd).map_err(failed)?;
        if !created {
            fits(name, &file, &listener.settings.access)?;
        }
        let effective = limits(fd.as_fd(), &listener.settings.options)?;
        if !created && effective.iter().any(|one| !one.is_as_asked) {
            return Err(taken(name, OTHER_LIMITS));
        }
        Ok((PathIdentity::of(&file), effective))
    })();
    match finished {
        Ok((identity, effective)) => Ok(Some(Ready {
            identity: Some(identity),
            created,
            ..Ready::new(fd, endpoint, effective)
        })),
        Err(failure) => {
            if created {
                let _ = sys::unlink_queue(&call);
            }
            Err(failure)
        }
    }
}

fn c_name(name: &str) -> io::Result<CString> {
    CString::new(name).map_err(|_| Errno::EINVAL.into())
}

/// ENOSYS says that there are no queues at all.
fn refused(name: &str, error: io::Error) -> Failure {
    let step = match error.raw_os_error() {
        Some(libc::ENOSYS) => BindStep::Socket,
        _ => BindStep::Open,
    };
    Failure::new(step, error).about(name)
}

pub(super) fn taken(name: &str, words: &'static str) -> Failure {
    Failure::new(BindStep::Open, Errno::EEXIST)
        .about(name)
        .because(Obstacle::NotASocket(words))
}

/// Says whether a queue could have the limits that are asked for, without making one that everybody
/// would see. Root may go beyond those of the system (CAP_SYS_RESOURCE, mq_overview(7)).
fn try_limits(name: &str, listener: &ListenerPlan) -> Result<(), Failure> {
    let Some(limits) = asked_limits(&listener.settings.options) else {
        return Ok(());
    };
    let most = |setting| system_setting(setting).filter(|_| !geteuid().is_root());
    let is_beyond = |asked: i64, most: Option<i64>| most.is_some_and(|most| asked > most);
    if is_beyond(limits.messages, most("msg_max"))
        || is_beyond(limits.message_size, most("msgsize_max"))
    {
        return Err(Failure::new(BindStep::SetOption("mq_attr"), Errno::EINVAL).about(name));
    }
    Ok(())
}

/// Makes it, with owner and mode.
fn create(name: &str, call: &CString, listener: &ListenerPlan) -> Result<OwnedFd, Failure> {
    let limits = asked_limits(&listener.settings.options);
    let fd = sys::open_queue(call, QueueOpen::New(limits)).map_err(|error| {
        match error.raw_os_error() {
            // More than fs.mqueue.msg_max or msgsize_max, or than can be counted.
            Some(libc::EINVAL | libc::EOVERFLOW) if limits.is_some() => {
                Failure::new(BindStep::SetOption("mq_attr"), error).about(name)
            }
            _ => refused(name, error),
        }
    })?;
    let Access {
        owner, group, mode, ..
    } = listener.settings.access;
    let rights = || {
        if owner.is_some() || group.is_some() {
            fchown(&fd, owner.map(Uid::from_raw), group.map(Gid::from_raw))
                .map_err(|errno| Failure::new(BindStep::SetOwner, errno).about(name))?;
        }
        fchmod(&fd, Mode::from_bits_truncate(mode as libc::mode_t & 0o7777))
            .map_err(|errno| Failure::new(BindStep::SetMode, errno).about(name))
    };
    match rights() {
        Ok(()) => Ok(fd),
        Err(failure) => {
            let _ = sys::unlink_queue(call);
            Err(failure)
        }
    }
}

/// Refuses an existing queue without the owner, group and mode that a new one would have.
fn fits(name: &str, found: &FileStat, access: &Access) -> Result<(), Failure> {
    let owner = access.owner.unwrap_or(geteuid().as_raw());
    let group = access.group.unwrap_or(found.st_gid);
    let mode = access.mode as libc::mode_t & 0o7777;
    if (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (owner, group, mode) {
        Ok(())
    } else {
        Err(taken(name, "a message queue with another owner or mode"))
    }
}

fn asked(options: &[OptionSetting], how: How) -> Option<i64> {
    let setting = options.iter().find(|setting| setting.spec.how == how)?;
    match setting.value {
        OptionValue::Number(number) => Some(number),
        _ => None,
    }
}

/// mq_open(3) takes both limits or none; what was not asked for is as the system has it.
fn asked_limits(options: &[OptionSetting]) -> Option<QueueLimits> {
    let messages = asked(options, How::QueueMaxMessages);
    let size = asked(options, How::QueueMessageSize);
    if messages.is_none() && size.is_none() {
        return None;
    }
    Some(QueueLimits {
        messages: messages.unwrap_or_else(|| system_default("msg_default", 10)),
        message_size: size.unwrap_or_else(|| system_default("msgsize_default", 8192)),
    })
}

/// `otherwise` is what Linux has unless somebody changed it (mq_overview(7)).
fn system_default(setting: &str, otherwise: i64) -> i64 {
    system_setting(setting).unwrap_or(otherwise)
}

fn system_setting(setting: &str) -> Option<i64> {
    let text = std::fs::read_to_string(format!("/proc/sys/fs/mqueue/{setting}"));
    text.ok()?.trim().parse().ok()
}

/// The limits that were asked for, as they are.
pub(super) fn limits(
    queue: impl AsFd,
    options: &[OptionSetting],
) -> Result<Vec<Effective>, Failure> {
    let mut effective = Vec::new();
    for setting in options {
        let is = |limits: QueueLimits| match setting.spec.how {
            How::QueueMaxMessages => Some(limits.messages),
            How::QueueMessageSize => Some(limits.message_size),
            _ => None,
        };
        let OptionValue::Number(asked) = setting.value else {
            continue;
        };
        let limits =
            sys::queue_limits(&queue).map_err(|error| Failure::new(BindStep::ReadBack, error))?;
        if let Some(got) = is(limits) {
            effective.push(Effective::of_number(setting.spec, asked, Some(got)));
        }
    }
    Ok(effective)
}

/// Takes the name away, if it still is that of this queue: a queue has one name and keeps it until
/// it is unlinked.
pub(super) fn remove(queue: impl AsFd, name: &str) -> io::Result<()> {
    if fstat(queue)?.st_nlink == 0 {
        return Ok(());
    }
    sys::unlink_queue(&c_name(name)?)
}

/// Takes the name away, if it still is that of the queue that this was.
pub(super) fn remove_if_ours(name: &str, identity: PathIdentity) -> io::Result<()> {
    let call = c_name(name)?;
    match sys::open_queue(&call, QueueOpen::Existing) {
        Ok(queue) if PathIdentity::of(&fstat(&queue)?) == identity => sys::unlink_queue(&call),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is removed when nobody has the queue open any more, which may be another's by then.
    #[test]
    fn a_queue_of_that_name_is_removed_only_if_it_is_the_same() {
        let name = format!("/listend-queue-{}", std::process::id());
        let call = c_name(&name).expect("a name");
        let make = || sys::open_queue(&call, QueueOpen::New(None));
        let Ok(queue) = make() else {
            // The kernel has none, or no room for any.
            return;
        };
        fchmod(&queue, Mode::S_IRUSR | Mode::S_IWUSR).expect("chmod");
        let identity = PathIdentity::of(&fstat(&queue).expect("a queue"));
        let another = PathIdentity {
            ino: identity.ino + 1,
            ..identity
        };
        let is_there = || sys::open_queue(&call, QueueOpen::Existing).is_ok();
        remove_if_ours(&name, another).expect("no error");
        assert!(is_there());
        remove_if_ours(&name, identity).expect("no error");
        assert!(!is_there());
        remove_if_ours(&name, identity).expect("no error: it has gone");
        remove_if_ours("no slash in front", identity).expect_err("no name of a queue");
    }
}
