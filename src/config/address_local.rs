//! Addresses that stay on the machine: unix sockets, FIFOs, message queues, special files,
//! netlink, and vsock between a machine and its host.

use super::address_parsed::{AddressResult, bad};
use super::model::{Endpoint, UnixKind, UnixName};
use super::value_error::ValueError;
use crate::report::{did_you_mean, nearest};
use std::path::PathBuf;

/// sun_path has 108 bytes, one of them for the NUL (unix(7)).
pub(super) const UNIX_NAME_MAX: usize = 107;
/// PATH_MAX has one byte for the NUL, too.
const PATH_MAX: usize = 4095;
/// A longer path is bound through the descriptor of its folder; this is what that leaves for the
/// name in the folder, however big the number of the descriptor.
const LAST_MAX: usize = UNIX_NAME_MAX - "/proc/self/fd/2147483647/".len();

/// Netlink families, named as systemd has them (include/uapi/linux/netlink.h).
const FAMILIES: &[(&str, i32)] = &[
    ("route", 0),
    ("firewall", 3),
    ("inet-diag", 4),
    ("nflog", 5),
    ("xfrm", 6),
    ("selinux", 7),
    ("iscsi", 8),
    ("audit", 9),
    ("fib-lookup", 10),
    ("connector", 11),
    ("netfilter", 12),
    ("ip6-fw", 13),
    ("dnrtmsg", 14),
    ("kobject-uevent", 15),
    ("generic", 16),
    ("scsitransport", 18),
    ("ecryptfs", 19),
    ("rdma", 20),
];
/// MAX_LINKS of the kernel.
const FAMILIES_MAX: i32 = 32;

/// Words for context ids (vsock(7)).
const CIDS: &[(&str, u32)] = &[
    ("any", u32::MAX),
    ("hypervisor", 0),
    ("local", 1),
    ("host", 2),
];

/// `/path` or `@name`.
pub(super) fn unix(
    text: &str,
    scheme: &str,
    kind: UnixKind,
    rest: &str,
) -> AddressResult<Endpoint> {
    if rest.contains('\0') {
        return Err(bad("a unix socket's name may not contain a NUL"));
    }
    if let Some(name) = rest.strip_prefix('@') {
        return match name.len() {
            0 => Err(bad(format!("`{text}` has no name")).hint(format!("write `{scheme}:@name`"))),
            1..=UNIX_NAME_MAX => Ok(Endpoint::Unix {
                kind,
                name: UnixName::Abstract(name.to_owned()),
            }),
            long => Err(too_long(text, "name", long, UNIX_NAME_MAX)),
        };
    }
    if !rest.starts_with('/') {
        return Err(bad(format!("`{text}`: the path is not absolute")).hint(format!(
            "write `{scheme}:/path` for a socket in the file system or `{scheme}:@name` for an abstract one"
        )));
    }
    let path = file(text, scheme, "a socket", "listend.sock", rest)?;
    let last = path.rsplit('/').next().unwrap_or("").len();
    if path.len() > UNIX_NAME_MAX && last > LAST_MAX {
        return Err(
            bad(format!("`{text}`: the last component has {last} bytes")).hint(format!(
                "a path of more than {UNIX_NAME_MAX} bytes may end in a name of at most {LAST_MAX}"
            )),
        );
    }
    Ok(Endpoint::Unix {
        kind,
        name: UnixName::Path(PathBuf::from(path)),
    })
}

/// Reads the address of a FIFO: `fifo:/path`.
pub(super) fn fifo(text: &str, rest: &str) -> AddressResult<Endpoint> {
    let path = file(text, "fifo", "a FIFO", "listend.fifo", rest)?;
    Ok(Endpoint::Fifo { path: path.into() })
}

/// `special:/dev/…`; whether it is writable is said by a key.
pub(super) fn special(text: &str, rest: &str) -> AddressResult<Endpoint> {
    let path = file(text, "special", "a special file", "device", rest)?;
    Ok(Endpoint::Special {
        path: path.into(),
        writable: false,
    })
}

/// An absolute path that can be that of a file, without `//` and `/./`.
fn file(text: &str, scheme: &str, what: &str, example: &str, rest: &str) -> AddressResult<String> {
    if rest.contains('\0') {
        return Err(bad("a path may not contain a NUL"));
    }
    if !rest.starts_with('/') {
        return Err(bad(format!("`{text}`: the path is not absolute"))
            .hint(format!("write `{scheme}:/path`")));
    }
    if rest.ends_with('/') || rest.ends_with("/.") || rest.ends_with("/..") {
        let what_it_is = what.split_once(' ').map_or(what, |(_, noun)| noun);
        return Err(
            bad(format!("`{text}` is a directory, not {what}")).hint(format!(
                "add the name of the {what_it_is}, like `{scheme}:{}/{example}`",
                { rest.trim_end_matches(['/', '.']) }
            )),
        );
    }
    let path = normalise(rest);
    if path.len() > PATH_MAX {
        return Err(too_long(text, "path", path.len(), PATH_MAX));
    }
    Ok(path)
}

fn too_long(text: &str, what: &str, length: usize, most: usize) -> ValueError {
    let manual = if most == PATH_MAX {
        "path_resolution"
    } else {
        "unix"
    };
    bad(format!("`{text}`: the {what} has {length} bytes"))
        .hint(format!("the kernel allows at most {most} ({manual}(7))"))
}

/// The path without `//` and `/./`. `..` stays: its meaning depends on symbolic links.
pub(super) fn normalise(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for part in path.split('/') {
        if !part.is_empty() && part != "." {
            out.push('/');
            out.push_str(part);
        }
    }
    out
}

/// `mqueue:/name`, by the rules of mq_overview(7).
pub(super) fn message_queue(text: &str, rest: &str) -> AddressResult<Endpoint> {
    let name = rest.trim_start_matches('/');
    let complain = |why: &str| bad(format!("`{text}`: {why}"));
    if rest != format!("/{name}") {
        let name = if name.is_empty() { "name" } else { name };
        return Err(
            complain("the name of a message queue starts with one slash")
                .hint(format!("write `mqueue:/{name}`")),
        );
    }
    let usage = "write a slash and 1 to 255 bytes without another one, like `mqueue:/jobs`";
    if name.is_empty() || matches!(name, "." | "..") {
        return Err(complain("the message queue has no name").hint(usage));
    }
    if name.contains(['/', '\0']) {
        return Err(
            complain("the name of a message queue has one slash, at its beginning").hint(usage),
        );
    }
    if name.len() > 255 {
        return Err(complain(&format!("the name has {} bytes", name.len())).hint(usage));
    }
    Ok(Endpoint::MessageQueue {
        name: rest.to_owned(),
    })
}

/// `netlink:FAMILY GROUP`, or `netlink:FAMILY 0xMASK`; the group may be left out.
pub(super) fn netlink(text: &str, rest: &str) -> AddressResult<Endpoint> {
    let mut words = rest.split_ascii_whitespace();
    let (family, group) = (words.next().unwrap_or(""), words.next());
    let usage = "write a family and the number of a group, like `netlink:kobject-uevent 1`";
    if family.is_empty() {
        return Err(bad(format!("`{text}` has no netlink family")).hint(usage));
    }
    if words.next().is_some() {
        return Err(bad(format!("`{text}` has too many words")).hint(usage));
    }
    let known = FAMILIES.iter().find(|(name, number)| {
        *name == family || plain_number(family) == u32::try_from(*number).ok()
    });
    let (family, protocol) = match (known, plain_number(family).map(i32::try_from)) {
        (Some((name, number)), _) => (*name, *number),
        (None, Some(Ok(number))) if number < FAMILIES_MAX => (family, number),
        (None, _) => {
            return Err(
                bad(format!("`{text}`: there is no netlink family `{family}`"))
                    .maybe_hint(did_you_mean(family, FAMILIES.iter().map(|(name, _)| *name))),
            );
        }
    };
    let bits = |group: &str| u32::from_str_radix(group.strip_prefix("0x")?, 16).ok();
    let (group, mask) = match group {
        None => (0, 0),
        Some(group) => match (bits(group), plain_number(group)) {
            (Some(mask), _) => (0, mask),
            (None, Some(group)) => (group, 0),
            (None, None) => {
                return Err(bad(format!("`{text}`: `{group}` is not a group")).hint(
                    "write the number of the multicast group, 0 to 4294967295, where 0 is \
                         none; or the bits of several, like 0x551",
                ));
            }
        },
    };
    Ok(Endpoint::Netlink {
        family: family.to_owned(),
        protocol,
        group,
        mask,
    })
}

/// `vsock:CID:PORT`; without the CID, or with `any`, it is every CID of this machine.
pub(super) fn vsock(
    text: &str,
    scheme: &str,
    kind: UnixKind,
    rest: &str,
) -> AddressResult<Endpoint> {
    let inner = rest.strip_prefix("//").unwrap_or(rest);
    let Some((cid, port)) = inner.split_once(':') else {
        let port = match inner {
            "" => "1024",
            port => port,
        };
        return Err(
            bad(format!("`{text}` has no context id or no port")).hint(format!(
                "write `{scheme}:CID:PORT`, or `{scheme}::{port}` for any CID"
            )),
        );
    };
    if inner != rest {
        return Err(bad(format!("`{text}` is not an address"))
            .hint(format!("write `{scheme}:{cid}:{port}`")));
    }
    let named = CIDS.iter().find(|(name, _)| *name == cid);
    let cid = match (cid, named) {
        ("", _) => u32::MAX,
        (_, Some((_, number))) => *number,
        _ => plain_number(cid).ok_or_else(|| no_cid(text, cid))?,
    };
    let port = plain_number(port).ok_or_else(|| {
        bad(format!("`{text}`: `{port}` is not a port")).hint(
            "write the port as a number from 0 to 4294967295; the last lets the kernel choose",
        )
    })?;
    Ok(Endpoint::Vsock { kind, cid, port })
}

fn no_cid(text: &str, cid: &str) -> ValueError {
    let hint = match nearest(cid, CIDS.iter().map(|(name, _)| *name)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "write a number from 0 to 4294967295, or `any`, `hypervisor`, `local` or `host`"
            .to_owned(),
    };
    bad(format!("`{text}`: `{cid}` is not a context id")).hint(hint)
}

/// Decimal digits without a leading zero.
fn plain_number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}
