//! A worker that was taken over: it tries what an attacker would, and says what it could do.

use nix::libc::{self, c_long, c_ulong};
use nix::sys::prctl::get_no_new_privs;
use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::Path;

/// The key of the victim's shared memory, and with `@` before it its abstract name.
fn key(pid: i32) -> (i32, String) {
    (0x5b00_0000 | pid, format!("listend-victim-{pid}"))
}

/// `victim`: a process of the same user, with something to be taken. Prints a line when it is there.
pub fn victim() -> i32 {
    super::children::die_with_parent();
    let (key, name) = key(std::process::id() as i32);
    let address = UnixAddr::from_abstract_name(name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("bind a name");
    // SAFETY: no pointers but a null one for default attributes.
    let shared = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o600) };
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "ready").and_then(|()| stdout.flush());
    let mut line = String::new();
    // Until the test closes it.
    let _ = io::stdin().read_line(&mut line);
    // SAFETY: as above.
    unsafe { libc::shmctl(shared, libc::IPC_RMID, std::ptr::null_mut()) };
    0
}

type Attempt = (&'static str, fn(&Around) -> io::Result<()>);

/// What there is to be attacked.
struct Around {
    victim: i32,
    /// A server on this machine.
    server: SocketAddr,
    /// The control socket.
    control: String,
    /// A folder that everybody may write to, with a file `secret` that everybody may read.
    folder: String,
}

const ATTEMPTS: &[Attempt] = &[
    (
        "gain rights by a setuid program",
        |_| match get_no_new_privs() {
            Ok(true) => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        },
    ),
    ("write where every user may", |around| {
        fs::write(format!("{}/written", around.folder), "x")
    }),
    ("read temporary files of others", |around| {
        fs::read(format!("{}/secret", around.folder)).map(drop)
    }),
    ("look into /home", |_| fs::read_dir("/home").map(drop)),
    ("make a setuid file", |_| {
        let path = format!("/tmp/attack-{}", std::process::id());
        fs::write(&path, "x")?;
        let done = fs::set_permissions(&path, fs::Permissions::from_mode(0o4755));
        let _ = fs::remove_file(&path);
        done
    }),
    ("change a kernel setting", |_| {
        let file = fs::OpenOptions::new()
            .write(true)
            .open("/proc/sys/kernel/core_pattern");
        file.map(drop)
    }),
    ("read the log of the kernel", |_| {
        let mut buffer = [0_u8; 64];
        // SYSLOG_ACTION_READ_ALL
        let (start, length) = (buffer.as_mut_ptr() as usize, buffer.len());
        call(libc::SYS_syslog, [3, start, length, 0, 0])
    }),
    ("make a device", |_| {
        let path = c"/dev/shm/attack";
        let device = libc::makedev(1, 1) as usize;
        let mode = (libc::S_IFBLK | 0o600) as usize;
        let here = libc::AT_FDCWD as usize;
        call(
            libc::SYS_mknodat,
            [here, path.as_ptr() as usize, mode, device, 0],
        )?;
        fs::remove_file("/dev/shm/attack")
    }),
    ("load a kernel module", |_| {
        let none = usize::MAX;
        let options = c"".as_ptr() as usize;
        match call(libc::SYS_finit_module, [none, options, 0, 0, 0]) {
            // It would have been permitted.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
            other => other,
        }
    }),
    ("change the host name", |_| {
        let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
        let name = name.trim_end();
        call(
            libc::SYS_sethostname,
            [name.as_ptr() as usize, name.len(), 0, 0, 0],
        )
    }),
    ("see processes of other users", |_| {
        fs::metadata("/proc/1").map(drop)
    }),
    ("read the environment of a process of its user", |around| {
        fs::read(format!("/proc/{}/environ", around.victim)).map(drop)
    }),
    ("trace a process of its user", |around| {
        const PTRACE_SEIZE: usize = 0x4206;
        let victim = around.victim as usize;
        call(libc::SYS_ptrace, [PTRACE_SEIZE, victim, 0, 0, 0])?;
        // Ends with this process, which is to let it go.
        const PTRACE_DETACH: usize = 17;
        let _ = call(libc::SYS_ptrace, [PTRACE_DETACH, victim, 0, 0, 0]);
        Ok(())
    }),
    ("signal a process of its user", |around| {
        call(libc::SYS_kill, [around.victim as usize, 0, 0, 0, 0])
    }),
    ("change the limits of a process of its user", |around| {
        let core = libc::RLIMIT_CORE as usize;
        let mut limit = [0_u64; 2];
        let (victim, at) = (around.victim as usize, limit.as_mut_ptr() as usize);
        call(libc::SYS_prlimit64, [victim, core, 0, at, 0])?;
        call(libc::SYS_prlimit64, [victim, core, at, 0, 0])
    }),
    ("take a descriptor of another worker", |around| {
        let pidfd = number(libc::SYS_pidfd_open, [around.victim as usize, 0, 0, 0, 0])?;
        // SAFETY: it is new, and nobody else's.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
        call(
            libc::SYS_pidfd_getfd,
            [pidfd.as_raw_fd() as usize, 0, 0, 0, 0],
        )
    }),
    ("use shared memory of others", |around| {
        call(
            libc::SYS_shmget,
            [key(around.victim).0 as usize, 1, 0, 0, 0],
        )
    }),
    ("connect to an abstract socket of others", |around| {
        let address = UnixAddr::from_abstract_name(key(around.victim).1)?;
        UnixStream::connect_addr(&address).map(drop)
    }),
    ("connect to the control socket", |around| {
        let control = Path::new(&around.control);
        let name = control.file_name().unwrap_or_default().to_string_lossy();
        // The second name of its file, too.
        let spare = control.with_file_name(format!(".{name}.listend"));
        UnixStream::connect(control)
            .or_else(|_| UnixStream::connect(spare))
            .map(drop)
    }),
    ("connect to a server", |around| {
        TcpStream::connect(around.server).map(drop)
    }),
    ("make a connection of its listener", |around| {
        // SAFETY: the listener is at 3, and nobody else uses it in here.
        let socket = unsafe { socket2::Socket::from_raw_fd(3) };
        let _ = socket.shutdown(std::net::Shutdown::Both);
        let done = socket.connect(&around.server.into());
        match done {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            other => other,
        }
    }),
    ("make a raw socket", |_| {
        let (family, kind) = (libc::AF_PACKET as usize, libc::SOCK_RAW as usize);
        call(libc::SYS_socket, [family, kind, 0, 0, 0])
    }),
    ("make a netlink socket", |_| {
        let (family, kind) = (libc::AF_NETLINK as usize, libc::SOCK_RAW as usize);
        call(libc::SYS_socket, [family, kind, 0, 0, 0])
    }),
    ("mount, in a user namespace if need be", |_| {
        in_a_child(|| {
            let flags = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as usize;
            if !nix::unistd::geteuid().is_root() {
                call(libc::SYS_unshare, [flags, 0, 0, 0, 0])?;
            } else {
                call(libc::SYS_unshare, [libc::CLONE_NEWNS as usize, 0, 0, 0, 0])?;
            }
            let (kind, place) = (c"tmpfs".as_ptr() as usize, c"/mnt".as_ptr() as usize);
            call(libc::SYS_mount, [kind, place, kind, 0, 0])
        })
    }),
    ("load a BPF program", |_| {
        // BPF_PROG_TYPE_SOCKET_FILTER: r0 = 0; exit.
        let steps: [u64; 2] = [0xb7, 0x95];
        let mut attributes = [0_u64; 16];
        attributes[0] = 1 | 2 << 32;
        attributes[1] = steps.as_ptr() as u64;
        attributes[2] = c"GPL".as_ptr() as u64;
        call(
            libc::SYS_bpf,
            [
                5,
                attributes.as_ptr() as usize,
                size_of_val(&attributes),
                0,
                0,
            ],
        )
    }),
    ("handle its own page faults (userfaultfd)", |_| {
        const UFFD_USER_MODE_ONLY: usize = 1;
        call(libc::SYS_userfaultfd, [UFFD_USER_MODE_ONLY, 0, 0, 0, 0])
    }),
    ("use keyrings", |_| {
        let (kind, name) = (c"user".as_ptr() as usize, c"attack".as_ptr() as usize);
        // KEY_SPEC_PROCESS_KEYRING
        let keyring = -2_isize as usize;
        call(libc::SYS_add_key, [kind, name, name, 1, keyring])
    }),
    ("use io_uring", |_| {
        let mut parameters = [0_u8; 120];
        call(
            libc::SYS_io_uring_setup,
            [1, parameters.as_mut_ptr() as usize, 0, 0, 0],
        )
    }),
    ("switch off the randomisation of addresses", |_| {
        call(
            libc::SYS_personality,
            [libc::ADDR_NO_RANDOMIZE as usize, 0, 0, 0, 0],
        )
    }),
    ("execute what it has written to memory", |_| {
        let both = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as usize;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        // Without a descriptor: -1 does not matter for memory.
        call(libc::SYS_mmap, [0, 4096, both, flags, usize::MAX])
    }),
];

/// `attack VICTIM SERVER CONTROL FOLDER`: a line for each attempt, `yes` or the error, then `done`.
pub fn run(words: &[String]) -> i32 {
    super::children::die_with_parent();
    let [victim, server, control, folder] = words else {
        panic!("VICTIM SERVER CONTROL FOLDER");
    };
    let around = Around {
        victim: victim.parse().expect("a pid"),
        server: server.parse().expect("an address"),
        control: control.clone(),
        folder: folder.clone(),
    };
    let mut stdout = io::stdout();
    for (name, attempt) in ATTEMPTS {
        let outcome = match attempt(&around) {
            Ok(()) => "yes".to_owned(),
            Err(error) => error.to_string(),
        };
        let _ = writeln!(stdout, "{name}: {outcome}");
    }
    let _ = writeln!(stdout, "done").and_then(|()| stdout.flush());
    loop {
        nix::unistd::pause();
    }
}

/// `without-namespaces COMMAND`: executes it where unshare(2) fails, as in many containers.
pub fn without_namespaces(words: &[String]) -> i32 {
    use seccompiler::{SeccompAction, SeccompFilter, apply_filter};
    let arch = std::env::consts::ARCH
        .try_into()
        .expect("an architecture with filters");
    let rules = [(libc::SYS_unshare, Vec::new())].into_iter().collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("a filter");
    let program: seccompiler::BpfProgram = filter.try_into().expect("a program");
    apply_filter(&program).expect("install a filter");
    let words: Vec<CString> = words
        .iter()
        .map(|word| CString::new(word.as_str()).expect("no NUL"))
        .collect();
    let Err(error) = nix::unistd::execvp(&words[0], &words);
    panic!("{:?}: {error}", words[0]);
}

pub(super) fn number(number: c_long, arguments: [usize; 5]) -> io::Result<c_long> {
    let [a, b, c, d, e] = arguments.map(|argument| argument as c_ulong);
    // SAFETY: pointers among the arguments are to values of the caller, which outlive the call and have
    // the size that goes with them.
    match unsafe { libc::syscall(number, a, b, c, d, e, 0_u64) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

pub(super) fn call(call: c_long, arguments: [usize; 5]) -> io::Result<()> {
    number(call, arguments).map(drop)
}

/// Does this in a child, whose exit status is the errno.
pub(super) fn in_a_child(act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: there is one thread, and the child ends by _exit(2).
    unsafe {
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let errno = act()
                    .err()
                    .map_or(0, |error| error.raw_os_error().unwrap_or(1));
                libc::_exit(errno)
            }
            child => {
                let mut status = 0;
                libc::waitpid(child, &mut status, 0);
                match libc::WEXITSTATUS(status) {
                    0 => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }
}
