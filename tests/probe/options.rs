//! Reads every option of the table back from a descriptor.

use crate::report::{Setting, Socket};
use listend::config::options::{How, OPTIONS};
use nix::libc::{self, c_int};
use std::collections::BTreeMap;
use std::os::fd::RawFd;

/// What the kernel has for each option that this descriptor knows.
pub fn of(fd: RawFd, socket: Option<&Socket>) -> BTreeMap<String, Setting> {
    let mut found = BTreeMap::new();
    for option in OPTIONS {
        let mut add = |key: &str, value: Option<Setting>| {
            found.extend(value.map(|value| (key.to_owned(), value)));
        };
        match (option.how, socket) {
            (How::PipeSize, None) => add(option.key, pipe_size(fd)),
            (How::QueueMaxMessages, None) => {
                add(option.key, queue(fd).map(|a| Setting::Number(a.mq_maxmsg)));
            }
            (How::QueueMessageSize, None) => {
                add(option.key, queue(fd).map(|a| Setting::Number(a.mq_msgsize)));
            }
            (How::PipeSize | How::QueueMaxMessages | How::QueueMessageSize, Some(_))
            | (_, None) => {}
            (How::Int(level, name), Some(_)) => add(option.key, number(fd, level, name)),
            (How::Buffer { plain, .. }, Some(_)) => {
                add(option.key, number(fd, libc::SOL_SOCKET, plain));
            }
            (How::Text(level, name), Some(_)) => add(option.key, text(fd, level, name)),
            (How::OneOf(level), Some(_)) => add(option.key, timestamps(fd, level)),
            (How::IntByFamily { v4, v6 }, Some(socket)) => match socket.family.as_str() {
                "inet" => add(option.key, number(fd, v4.0, v4.1)),
                "inet6" => {
                    add(option.key, number(fd, v6.0, v6.1));
                    add(&format!("{}.v4", option.key), number(fd, v4.0, v4.1));
                }
                _ => {}
            },
            (How::IntByFamilyOrNetlink { v4, v6, netlink }, Some(socket)) => {
                match socket.family.as_str() {
                    "inet" => add(option.key, number(fd, v4.0, v4.1)),
                    "inet6" => {
                        add(option.key, number(fd, v6.0, v6.1));
                        add(&format!("{}.v4", option.key), number(fd, v4.0, v4.1));
                    }
                    "netlink" => add(option.key, number(fd, netlink.0, netlink.1)),
                    _ => {}
                }
            }
        }
    }
    found
}

/// getsockopt(2) of an int.
fn number(fd: RawFd, level: c_int, name: c_int) -> Option<Setting> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the pointers are to `value` and its length.
    let result =
        unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) };
    // SO_MARK and its like are unsigned (socket(7)); none of the others is ever negative but
    // IPV6_UNICAST_HOPS, whose -1 is the system's default.
    let value = if (level, name) == (libc::SOL_SOCKET, libc::SO_MARK) {
        i64::from(value as u32)
    } else {
        i64::from(value)
    };
    (result == 0).then_some(Setting::Number(value))
}

/// getsockopt(2) of a name.
fn text(fd: RawFd, level: c_int, name: c_int) -> Option<Setting> {
    let mut value = [0_u8; 64];
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the pointers are to `value` and its length.
    let result =
        unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) };
    let end = value.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(&value[..end]).into_owned();
    (result == 0).then_some(Setting::Text(text))
}

/// Which of the two kinds of timestamps is on; 0 for neither.
fn timestamps(fd: RawFd, level: c_int) -> Option<Setting> {
    for name in [libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS] {
        if number(fd, level, name)? != Setting::Number(0) {
            return Some(Setting::Number(name.into()));
        }
    }
    Some(Setting::Number(0))
}

fn pipe_size(fd: RawFd) -> Option<Setting> {
    // SAFETY: F_GETPIPE_SZ takes no argument, and works on any descriptor.
    let size = unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) };
    (size >= 0).then_some(Setting::Number(size.into()))
}

fn queue(fd: RawFd) -> Option<libc::mq_attr> {
    // SAFETY: every field of mq_attr is an integer, for which zero is valid.
    let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to `attributes`. What is no queue answers EBADF.
    let result = unsafe { libc::mq_getattr(fd, &raw mut attributes) };
    (result == 0).then_some(attributes)
}
