//! What this process can do and cannot, one attempt a line: to compare who has restricted it.

use super::attack::{call, in_a_child, number};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};

/// `limits NAMESPACE... FOLDER...`: whether it is in these namespaces, whether it can use these folders, and what
/// every machine has; then `done`.
pub fn run(words: &[String]) -> i32 {
    let mut said = String::new();
    let mut say = |what: &str, outcome: io::Result<String>| {
        let outcome = outcome.unwrap_or_else(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
            format!("{errno:?}")
        });
        said.push_str(&format!("{what}: {outcome}\n"));
    };
    let words = words.iter().map(String::as_str);
    let (folders, spaces): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with('/'));
    for space in spaces {
        let (kind, _) = space.split_once(':').expect("a namespace: `net:[1]`");
        let own = fs::read_link(format!("/proc/self/ns/{kind}"));
        let own = own.map(|own| (own.to_str() != Some(space)).to_string());
        say(&format!("a {kind} namespace of its own"), own);
    }
    for path in folders.into_iter().chain(FOLDERS) {
        say(&format!("list {path}"), fs::read_dir(path).map(yes));
        let new = format!("{path}/limits-{}", std::process::id());
        let written = fs::write(&new, "x");
        let _ = fs::remove_file(&new);
        say(&format!("write in {path}"), written.map(yes));
        let mark = format!("{path}/mark");
        say(&format!("read {mark}"), fs::read(&mark).map(yes));
    }
    for path in FILES {
        let open = |options: &mut OpenOptions| options.custom_flags(libc::O_NONBLOCK).open(path);
        let read = open(OpenOptions::new().read(true));
        say(&format!("open {path} to read"), read.map(yes));
        let write = open(OpenOptions::new().write(true));
        say(&format!("open {path} to write"), write.map(yes));
    }
    say("processes of others", fs::metadata("/proc/1").map(yes));
    say("their status", fs::read("/proc/1/status").map(yes));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for right in ["NoNewPrivs", "CapBnd", "CapEff", "CapPrm", "CapAmb"] {
        let mut lines = status.lines().filter_map(|line| line.split_once(":\t"));
        let value = lines.find(|(name, _)| *name == right);
        let value = value.map(|(_, value)| value.to_owned());
        say(right, value.ok_or(io::ErrorKind::NotFound.into()));
    }
    for (what, attempt) in ATTEMPTS {
        say(what, attempt().map(yes));
    }
    let families = [
        ("AF_UNIX", libc::AF_UNIX, libc::SOCK_STREAM),
        ("AF_INET", libc::AF_INET, libc::SOCK_STREAM),
        ("AF_INET6", libc::AF_INET6, libc::SOCK_DGRAM),
        ("AF_NETLINK", libc::AF_NETLINK, libc::SOCK_RAW),
        ("AF_PACKET", libc::AF_PACKET, libc::SOCK_RAW),
        ("AF_VSOCK", libc::AF_VSOCK, libc::SOCK_STREAM),
    ];
    for (name, family, kind) in families {
        let made = call(libc::SYS_socket, [family as usize, kind as usize, 0, 0, 0]);
        say(&format!("socket {name}"), made.map(yes));
    }
    let kinds = [
        ("mount", CloneFlags::CLONE_NEWNS),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("user", CloneFlags::CLONE_NEWUSER),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("net", CloneFlags::CLONE_NEWNET),
        ("time", CloneFlags::from_bits_retain(0x80)),
    ];
    for (name, kind) in kinds {
        let made = in_a_child(|| Ok(unshare(kind)?));
        say(&format!("new {name} namespace"), made.map(yes));
    }
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{said}done").and_then(|()| stdout.flush());
    loop {
        nix::unistd::pause();
    }
}

fn yes<T>(_: T) -> String {
    "yes".to_owned()
}

/// Folders that are to be used.
const FOLDERS: [&str; 16] = [
    "/usr",
    "/etc",
    "/boot",
    "/srv",
    "/var",
    "/var/tmp",
    "/tmp",
    "/run",
    "/home",
    "/root",
    "/run/user",
    "/dev",
    "/dev/shm",
    "/sys/fs/cgroup",
    "/usr/lib/modules",
    "/opt",
];

/// Files that are to be opened.
const FILES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/ptmx",
    "/dev/kmsg",
    "/dev/console",
    "/dev/net/tun",
    "/proc/sys/kernel/domainname",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sysrq-trigger",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/self/oom_score_adj",
    "/proc/self/attr/current",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/etc/passwd",
    "/proc/acpi",
    "/proc/timer_stats",
    "/proc/irq/default_smp_affinity",
];

type Attempt = (&'static str, fn() -> io::Result<()>);

const ATTEMPTS: &[Attempt] = &[
    ("connect to /dev/log", || {
        UnixStream::connect("/dev/log").map(drop)
    }),
    ("connect to a server", || {
        std::net::TcpStream::connect("127.0.0.1:20099").map(drop)
    }),
    ("connect to an abstract name", || {
        let address = UnixAddr::from_abstract_name("limits")?;
        UnixStream::connect_addr(&address).map(drop)
    }),
    ("make shared memory", || {
        let size = 4096;
        let made = number(libc::SYS_shmget, [0, size, 0o1600, 0, 0])?;
        call(libc::SYS_shmctl, [made as usize, 0, 0, 0, 0])
    }),
    ("make a queue", || {
        let name = CString::new(format!("limits-{}", std::process::id()))?;
        let name = name.as_ptr() as usize;
        let flags = (libc::O_CREAT | libc::O_RDWR) as usize;
        // One message of one byte: all that a user may have is little.
        let attributes: [i64; 8] = [0, 1, 1, 0, 0, 0, 0, 0];
        let at = attributes.as_ptr() as usize;
        call(libc::SYS_mq_open, [name, flags, 0o600, at, 0])?;
        call(libc::SYS_mq_unlink, [name, 0, 0, 0, 0])
    }),
    ("set the host name", || {
        let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
        let name = name.trim_end();
        let at = name.as_ptr() as usize;
        call(libc::SYS_sethostname, [at, name.len(), 0, 0, 0])
    }),
    ("set the domain name", || {
        call(
            libc::SYS_setdomainname,
            [c"x".as_ptr() as usize, 1, 0, 0, 0],
        )
    }),
    ("load a module", || {
        let options = c"".as_ptr() as usize;
        call(libc::SYS_finit_module, [usize::MAX, options, 0, 0, 0])
    }),
    ("remove a module", || {
        let name = c"there-is-none".as_ptr() as usize;
        call(libc::SYS_delete_module, [name, 0, 0, 0, 0])
    }),
    ("set the clock", || {
        // EINVAL or EFAULT if it may.
        call(libc::SYS_clock_settime, [0, 0, 0, 0, 0])
    }),
    ("adjust the clock", || {
        let mut nothing = [0_u8; 256];
        let at = nothing.as_mut_ptr() as usize;
        call(libc::SYS_adjtimex, [at, 0, 0, 0, 0])
    }),
    ("read the log of the kernel", || {
        call(libc::SYS_syslog, [10, 0, 0, 0, 0])
    }),
    #[cfg(target_arch = "x86_64")]
    ("use ports of the machine", || {
        call(libc::SYS_ioperm, [0x80, 1, 0, 0, 0])
    }),
    ("trace itself", || {
        in_a_child(|| call(libc::SYS_ptrace, [0, 0, 0, 0, 0]))
    }),
    ("use keyrings", || {
        let (kind, name) = (c"user".as_ptr() as usize, c"limits".as_ptr() as usize);
        let keyring = -2_isize as usize;
        call(libc::SYS_add_key, [kind, name, name, 1, keyring])
    }),
    ("use io_uring", || {
        let mut parameters = [0_u8; 120];
        let at = parameters.as_mut_ptr() as usize;
        call(libc::SYS_io_uring_setup, [1, at, 0, 0, 0])
    }),
    ("mount", || {
        in_a_child(|| {
            let (kind, place) = (c"tmpfs".as_ptr() as usize, c"/mnt".as_ptr() as usize);
            // Others mount there at the same moment: what this would be mounted on may be gone.
            let mut left = 100;
            while let Err(error) = call(libc::SYS_mount, [kind, place, kind, 0, 0]) {
                left -= 1;
                if left == 0 || error.raw_os_error() != Some(libc::ENOENT) {
                    return Err(error);
                }
            }
            // Without the flag it is EBUSY while somebody has mounted on it.
            call(
                libc::SYS_umount2,
                [place, libc::MNT_DETACH as usize, 0, 0, 0],
            )
        })
    }),
    ("enter a namespace", || {
        in_a_child(|| {
            let own = fs::File::open("/proc/self/ns/uts")?;
            Ok(setns(own.as_fd(), CloneFlags::CLONE_NEWUTS)?)
        })
    }),
    ("clone3", || {
        // EINVAL or EFAULT if it is known.
        call(libc::SYS_clone3, [0, 0, 0, 0, 0])
    }),
    ("another personality", || {
        in_a_child(|| call(libc::SYS_personality, [0x004_0000, 0, 0, 0, 0]))
    }),
    ("its own personality", || {
        call(libc::SYS_personality, [0, 0, 0, 0, 0])
    }),
    ("FIFO scheduling", || scheduling(libc::SCHED_FIFO, 1)),
    ("RR scheduling, reset on fork", || {
        scheduling(libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 1)
    }),
    ("batch scheduling", || scheduling(libc::SCHED_BATCH, 0)),
    ("sched_setattr", || {
        in_a_child(|| {
            // Its size, and SCHED_OTHER.
            let attributes: [u64; 6] = [48, 0, 0, 0, 0, 0];
            let at = attributes.as_ptr() as usize;
            call(libc::SYS_sched_setattr, [0, at, 0, 0, 0])
        })
    }),
    ("map memory to write with another personality", || {
        in_a_child(|| {
            let read_implies_exec = 0x040_0000;
            call(libc::SYS_personality, [read_implies_exec, 0, 0, 0, 0])?;
            map((libc::PROT_READ | libc::PROT_WRITE) as usize).map(drop)
        })
    }),
    ("map memory to write and execute", || {
        let both = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as usize;
        map(both).map(drop)
    }),
    ("make memory executable", || {
        let at = map((libc::PROT_READ | libc::PROT_WRITE) as usize)?;
        let execute = (libc::PROT_READ | libc::PROT_EXEC) as usize;
        call(libc::SYS_mprotect, [at, 4096, execute, 0, 0])
    }),
    ("map executable memory", || {
        map((libc::PROT_READ | libc::PROT_EXEC) as usize).map(drop)
    }),
    ("make a setuid file", || {
        let path = own_file("suid")?;
        let done = fs::set_permissions(&path, fs::Permissions::from_mode(0o4755));
        let _ = fs::remove_file(&path);
        done
    }),
    ("make a setgid folder", || {
        let path = format!("/dev/shm/limits-{}-sgid", std::process::id());
        let made = fs::DirBuilder::new().mode(0o2755).create(&path);
        let _ = fs::remove_dir(&path);
        made
    }),
    ("create a setuid file", || {
        let path = format!("/dev/shm/limits-{}-new", std::process::id());
        let mut options = OpenOptions::new();
        let made = options
            .write(true)
            .create_new(true)
            .mode(0o4755)
            .open(&path);
        let _ = fs::remove_file(&path);
        made.map(drop)
    }),
    ("create a file without it", || {
        let path = own_file("plain")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        fs::remove_file(path)
    }),
    ("make a device", || {
        let path = CString::new(format!("/dev/shm/limits-{}-dev", std::process::id()))?;
        let mode = (libc::S_IFBLK | 0o600) as usize;
        let (here, at) = (libc::AT_FDCWD as usize, path.as_ptr() as usize);
        call(
            libc::SYS_mknodat,
            [here, at, mode, libc::makedev(1, 1) as usize, 0],
        )?;
        call(libc::SYS_unlinkat, [here, at, 0, 0, 0])
    }),
    ("openat2", || {
        // EINVAL if it is known.
        let here = libc::AT_FDCWD as usize;
        call(libc::SYS_openat2, [here, c"/".as_ptr() as usize, 0, 0, 0])
    }),
    ("execute /bin/true", || {
        let status = std::process::Command::new("/bin/true").status()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::ErrorKind::Other.into()),
        }
    }),
];

fn own_file(name: &str) -> io::Result<String> {
    let path = format!("/dev/shm/limits-{}-{name}", std::process::id());
    fs::write(&path, "x")?;
    Ok(path)
}

fn scheduling(policy: i32, priority: i32) -> io::Result<()> {
    in_a_child(|| {
        let at = &raw const priority as usize;
        call(libc::SYS_sched_setscheduler, [0, policy as usize, at, 0, 0])
    })
}

fn map(how: usize) -> io::Result<usize> {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let at = number(libc::SYS_mmap, [0, 4096, how, flags, usize::MAX])?;
    Ok(at as usize)
}
