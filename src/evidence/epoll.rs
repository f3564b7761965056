//! The descriptors that an epoll instance watches: /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)).

use nix::libc;

/// A descriptor that an epoll instance watches for input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// The number that it had when it was added; it may be another file's by now.
    pub descriptor: i32,
    /// The number and device of the inode, since Linux 4.13.
    pub inode: Option<(u64, u64)>,
}

/// The descriptors that the instance watches for input.
pub fn watched(fdinfo: &str) -> impl Iterator<Item = Watched> {
    fdinfo.lines().filter_map(entry)
}

/// The number of the inode of the described file itself; told since Linux 5.14.
pub fn own_inode(fdinfo: &str) -> Option<u64> {
    let value = fdinfo.lines().find_map(|line| line.strip_prefix("ino:"))?;
    value.trim().parse().ok()
}

/// `tfd:        3 events:       19 data:                3  pos:0 ino:1f2a sdev:9`
fn entry(line: &str) -> Option<Watched> {
    let rest = line.strip_prefix("tfd:")?;
    let (descriptor, rest) = rest.split_once("events:")?;
    let events = rest.split_ascii_whitespace().next()?;
    let events = u32::from_str_radix(events, 16).ok()?;
    // Also after EPOLLONESHOT has fired: nothing is left of the events then.
    if events & libc::EPOLLIN as u32 == 0 {
        return None;
    }
    let hexadecimal = |key| {
        let (_, value) = rest.split_once(key)?;
        u64::from_str_radix(value.split_ascii_whitespace().next()?, 16).ok()
    };
    let inode = hexadecimal(" ino:").zip(hexadecimal(" sdev:"));
    Some(Watched {
        descriptor: descriptor.trim().parse().ok()?,
        inode: inode.map(|(number, device)| (number, as_stat_has_it(device))),
    })
}

/// Inside of the kernel a device number has 12 bits of major and 20 of minor number; stat(2) has
/// them in other places.
fn as_stat_has_it(device: u64) -> u64 {
    const MINOR_BITS: u32 = 20;
    let minor = device & ((1 << MINOR_BITS) - 1);
    nix::sys::stat::makedev(device >> MINOR_BITS, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_watched_for_input_counts() {
        let text = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1057\n\
            tfd:        3 events: 80000019 data:        700000003  pos:0 ino:1f2a sdev:9\n\
            tfd:        4 events:        4 data:                4  pos:0 ino:1f2b sdev:9\n\
            tfd:        5 events: 40000000 data:                5  pos:0 ino:1f2c sdev:9\n\
            tfd:        6 events:       1b data:                6\n\
            tfd: nonsense\n";
        let found: Vec<Watched> = watched(text).collect();
        let first = Watched {
            descriptor: 3,
            inode: Some((0x1f2a, 9)),
        };
        let old = Watched {
            descriptor: 6,
            inode: None,
        };
        assert_eq!(found, [first, old]);
        assert_eq!(own_inode(text), Some(1057));
    }

    #[test]
    fn a_device_number_is_as_stat_has_it() {
        assert_eq!(as_stat_has_it(0x9), nix::sys::stat::makedev(0, 9));
        assert_eq!(
            as_stat_has_it(0x0080_0123),
            nix::sys::stat::makedev(8, 0x123)
        );
    }
}
