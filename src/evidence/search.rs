//! A look: goes through processes, threads and descriptors until every socket is seen.

use super::calls::{self, Call, Wait};
use super::sight::{Sight, SocketInode, Why};
use super::{connections, epoll, memory, ring, tree};
use nix::libc;
use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::parent_id;

/// The limit of processes in one look, which must not hold up everything else. A worker with more
/// processes has served clients for long.
const MOST_PROCESSES: usize = 1000;
const MOST_THREADS: usize = 2000;
const MOST_DESCRIPTORS: usize = 20_000;

/// A look under way.
pub struct Search {
    /// The sockets that are not seen yet.
    missing: Vec<SocketInode>,
    /// The other sockets of the processes.
    sockets: HashSet<u64>,
    /// Why something may have been overlooked: the first reason.
    hidden: Option<Why>,
    threads: usize,
    descriptors: usize,
}

impl Search {
    /// A search for these sockets.
    pub fn new(sockets: Vec<SocketInode>) -> Search {
        Search {
            missing: sockets,
            sockets: HashSet::new(),
            hidden: None,
            threads: 0,
            descriptors: 0,
        }
    }

    /// The result of the look.
    pub fn sight(&self) -> Sight {
        match self.hidden {
            _ if self.missing.is_empty() => Sight::Seen,
            Some(why) => Sight::Hidden(why),
            None => Sight::NotYet,
        }
    }

    /// Looks at a process and at all that it started. Where the kernel does not list children,
    /// these are who is in the session that it leads.
    pub fn tree(&mut self, main: i32, lists_children: bool) {
        let mut seen = HashSet::from([main]);
        let mut waiting = VecDeque::from([main]);
        while let Some(pid) = waiting.pop_front() {
            if self.missing.is_empty() {
                return;
            }
            let threads = self.threads(pid, pid == main);
            self.process(pid, &threads);
            let found = if lists_children {
                self.children(pid, &threads)
            } else if pid == main {
                let session = tree::session(main);
                self.unless_gone(main, "stat", session).unwrap_or_default()
            } else {
                Vec::new()
            };
            for child in found {
                if seen.len() == MOST_PROCESSES {
                    self.hide(Why::TooMany { what: "processes" });
                    break;
                }
                if seen.insert(child) {
                    waiting.push_back(child);
                }
            }
        }
        self.connections(main);
    }

    /// Whether one of the processes has a connection that it has accepted. That a predecessor has left it
    /// is ruled out: the supervisor would have it, too.
    fn connections(&mut self, main: i32) {
        let Ok(supervisors) = sockets_of(parent_id().cast_signed()) else {
            return;
        };
        self.sockets.retain(|socket| !supervisors.contains(socket));
        if self.missing.is_empty() || self.sockets.is_empty() {
            return;
        }
        let accepted = connections::accepted(main, &self.missing, &self.sockets);
        self.missing.retain(|socket| !accepted.contains(socket));
    }

    fn threads(&mut self, pid: i32, is_main: bool) -> Vec<i32> {
        let threads = tree::threads(pid);
        // The main process is there until it is waited for, so somebody hides it.
        if is_main && let Err(error) = &threads {
            self.unreadable(pid, "task", error);
        }
        let mut threads = self.unless_gone(pid, "task", threads).unwrap_or_default();
        let left = MOST_THREADS - self.threads;
        if threads.len() > left {
            self.hide(Why::TooMany { what: "threads" });
            threads.truncate(left);
        }
        self.threads += threads.len();
        threads
    }

    fn children(&mut self, pid: i32, threads: &[i32]) -> Vec<i32> {
        let mut found = Vec::new();
        for thread in threads {
            let children = tree::children(pid, *thread);
            found.extend(
                self.unless_gone(pid, "children", children)
                    .unwrap_or_default(),
            );
        }
        found
    }

    /// Looks at the system calls of a process first: they are cheaper to read than its descriptors, and
    /// mostly enough.
    fn process(&mut self, pid: i32, threads: &[i32]) {
        for thread in threads {
            self.thread(pid, *thread);
            if self.missing.is_empty() {
                return;
            }
        }
        self.open_files(pid);
    }

    fn thread(&mut self, pid: i32, thread: i32) {
        let folder = format!("/proc/{pid}/task/{thread}");
        let Some(call) = self.call(pid, &folder) else {
            return;
        };
        match calls::wait(&call) {
            Wait::Other => {}
            Wait::Foreign => self.hide(Why::ForeignCalls { pid }),
            Wait::Epoll(descriptor) => self.epoll(pid, &folder, descriptor),
            wait @ (Wait::Descriptor(_) | Wait::Poll { .. } | Wait::Select { .. }) => {
                let found = self.waited_for(pid, &folder, wait);
                // If it has gone on meanwhile, what was read may have been anything.
                if !found.is_empty() && self.call(pid, &folder) == Some(call) {
                    self.missing.retain(|socket| !found.contains(socket));
                }
            }
        }
    }

    fn call(&mut self, pid: i32, folder: &str) -> Option<Call> {
        let text = fs::read_to_string(format!("{folder}/syscall"));
        // Without CONFIG_HAVE_ARCH_TRACEHOOK the file is nowhere, which is not to be gone.
        if let Err(error) = &text
            && error.raw_os_error() == Some(libc::ENOENT)
            && fs::exists(folder).unwrap_or(false)
        {
            self.unreadable(pid, "syscall", error);
        }
        calls::parse(&self.unless_gone(pid, "syscall", text)?)
    }

    /// The missing sockets that a thread waits for.
    fn waited_for(&mut self, pid: i32, folder: &str, wait: Wait) -> Vec<SocketInode> {
        if memory::count(wait) > memory::MOST_DESCRIPTORS {
            self.hide(Why::TooMany {
                what: "descriptors in one call",
            });
            return Vec::new();
        }
        let descriptors = match wait {
            Wait::Descriptor(descriptor) => vec![descriptor],
            Wait::Poll { .. } | Wait::Select { .. } => {
                let file = File::open(format!("{folder}/mem"));
                let read = file.and_then(|file| memory::descriptors(&file, wait));
                self.unless_gone(pid, "mem", read).unwrap_or_default()
            }
            Wait::Epoll(_) | Wait::Foreign | Wait::Other => Vec::new(),
        };
        let mut found = Vec::new();
        for descriptor in descriptors {
            if !self.may_read_another_descriptor() {
                break;
            }
            found.extend(self.missing_one(pid, folder, descriptor));
        }
        found
    }

    /// The missing socket that a descriptor is, if any.
    fn missing_one(&mut self, pid: i32, folder: &str, descriptor: i32) -> Option<SocketInode> {
        let link = format!("{folder}/fd/{descriptor}");
        let target = self.unless_gone(pid, "fd", fs::read_link(&link))?;
        if let Some(number) = target.to_str().and_then(socket_number) {
            let is_it = |socket: &&SocketInode| socket.is_socket && socket.number == number;
            return self.missing.iter().find(is_it).copied();
        }
        if self.missing.iter().all(|socket| socket.is_socket) {
            return None;
        }
        // stat(2) may wait for ever, for a file server that does not answer; this does not.
        let fdinfo = fs::read_to_string(format!("{folder}/fdinfo/{descriptor}"));
        let number = epoll::own_inode(&self.unless_gone(pid, "fdinfo", fdinfo)?);
        let may_be = |socket: &SocketInode| {
            !socket.is_socket && number.is_none_or(|number| number == socket.number)
        };
        if !self.missing.iter().any(may_be) {
            return None;
        }
        let metadata = self.unless_gone(pid, "fd", fs::metadata(&link))?;
        let is_it = |socket: &&SocketInode| {
            (socket.number, socket.device) == (metadata.ino(), metadata.dev())
        };
        self.missing.iter().find(is_it).copied()
    }

    /// Looks for epoll instances that no thread sleeps in just now, and for io_uring.
    fn open_files(&mut self, pid: i32) {
        let folder = format!("/proc/{pid}");
        let descriptors = fs::read_dir(format!("{folder}/fd"));
        let Some(descriptors) = self.unless_gone(pid, "fd", descriptors) else {
            return;
        };
        for descriptor in tree::numbers(descriptors) {
            if self.missing.is_empty() || !self.may_read_another_descriptor() {
                return;
            }
            let target = fs::read_link(format!("{folder}/fd/{descriptor}"));
            let Some(target) = self.unless_gone(pid, "fd", target) else {
                continue;
            };
            match target.to_str() {
                Some("anon_inode:[eventpoll]") => self.epoll(pid, &folder, descriptor),
                Some("anon_inode:[io_uring]") => self.ring(pid, &folder, descriptor),
                Some(target) => self.sockets.extend(socket_number(target)),
                None => {}
            }
        }
    }

    fn ring(&mut self, pid: i32, folder: &str, descriptor: i32) {
        let text = fs::read_to_string(format!("{folder}/fdinfo/{descriptor}"));
        let text = self.unless_gone(pid, "fdinfo", text);
        if text.is_some_and(|text| ring::may_wait(&text)) {
            self.hide(Why::IoUring { pid });
        }
    }

    fn epoll(&mut self, pid: i32, folder: &str, descriptor: i32) {
        let text = fs::read_to_string(format!("{folder}/fdinfo/{descriptor}"));
        let Some(text) = self.unless_gone(pid, "fdinfo", text) else {
            return;
        };
        for watched in epoll::watched(&text) {
            let before = self.missing.len();
            self.missing
                .retain(|socket| watched.inode != Some((socket.number, socket.device)));
            // On some file systems stat(2) has another device than the kernel itself, and an old
            // kernel tells neither; the descriptor that was added is mostly still the same file.
            let may_be = |socket: &SocketInode| match watched.inode {
                Some((number, _)) => number == socket.number,
                None => true,
            };
            if self.missing.len() == before
                && self.missing.iter().any(may_be)
                && let Some(found) = self.missing_one(pid, folder, watched.descriptor)
            {
                self.missing.retain(|socket| *socket != found);
            }
        }
    }

    fn may_read_another_descriptor(&mut self) -> bool {
        let may = self.descriptors < MOST_DESCRIPTORS;
        if may {
            self.descriptors += 1;
        } else {
            self.hide(Why::TooMany {
                what: "descriptors",
            });
        }
        may
    }

    /// The value; an error other than that the process, thread or descriptor is gone is kept as the
    /// reason why something may have been overlooked.
    fn unless_gone<T>(&mut self, pid: i32, file: &'static str, read: io::Result<T>) -> Option<T> {
        let error = match read {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        match error.raw_os_error() {
            // The file is no more, or its process: open(2), proc(5).
            Some(libc::ENOENT | libc::ESRCH) => {}
            // The memory is no longer what the arguments of the call say: the thread has gone on.
            Some(libc::EIO | libc::EFAULT) if file == "mem" => {}
            None if error.kind() == io::ErrorKind::UnexpectedEof => {}
            // What is left of a process that has ended belongs to root.
            Some(libc::EACCES | libc::EPERM) if tree::has_ended(pid) => {}
            Some(_) | None => self.unreadable(pid, file, &error),
        }
        None
    }

    fn unreadable(&mut self, pid: i32, file: &'static str, error: &io::Error) {
        // Only what was read and is no text has no number, which nothing in /proc is here.
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
        self.hide(Why::Unreadable { pid, file, errno });
    }

    fn hide(&mut self, why: Why) {
        self.hidden.get_or_insert(why);
    }
}

/// The sockets that a process has.
fn sockets_of(pid: i32) -> io::Result<HashSet<u64>> {
    let folder = format!("/proc/{pid}/fd");
    let descriptors = tree::numbers(fs::read_dir(&folder)?);
    let links = descriptors.filter_map(|number| fs::read_link(format!("{folder}/{number}")).ok());
    Ok(links
        .filter_map(|link| socket_number(link.to_str()?))
        .collect())
}

/// `socket:[NUMBER]`, as the link of a socket's descriptor reads.
fn socket_number(target: &str) -> Option<u64> {
    let number = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, killpg};
    use nix::unistd::Pid;
    use std::net::UdpSocket;
    use std::os::fd::OwnedFd;
    use std::process::Command;
    use std::time::{Duration, Instant};

    // The test ends its process also when it fails.
    struct Group(std::process::Child);

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }

    fn eventually_seen(main: i32, socket: SocketInode, lists_children: bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        let mut sight = Sight::NotYet;
        while sight != Sight::Seen {
            assert!(Instant::now() < deadline, "{sight:?}");
            std::thread::sleep(Duration::from_millis(5));
            let mut search = Search::new(vec![socket]);
            search.tree(main, lists_children);
            sight = search.sight();
        }
    }

    #[test]
    fn without_lists_of_children_the_session_tells_who_belongs_together() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let inode = SocketInode::of(&socket).expect("fstat");
        // The shell waits for its child; the child reads from the socket.
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", "exec 3<&0; cat <&3 & wait"]);
        // In a group of its own it could not lead a session without another fork.
        let child = command.stdin(OwnedFd::from(socket)).spawn();
        let group = Group(child.expect("start setsid"));
        let main = group.0.id() as i32;
        eventually_seen(main, inode, false);
        eventually_seen(main, inode, true);
        let members = tree::session(main).expect("read /proc");
        assert_eq!(members.len(), 1, "{members:?}");
    }

    #[test]
    fn nothing_is_gone_through_without_end() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let sight = |threads, descriptors| {
            let mut search = Search::new(vec![SocketInode::of(&socket).expect("fstat")]);
            search.threads = threads;
            search.descriptors = descriptors;
            search.tree(std::process::id() as i32, true);
            search.sight()
        };
        let hidden = |what| Sight::Hidden(Why::TooMany { what });
        assert_eq!(sight(MOST_THREADS, 0), hidden("threads"));
        assert_eq!(sight(0, MOST_DESCRIPTORS), hidden("descriptors"));
    }

    #[test]
    fn who_has_accepted_a_connection_is_seen_without_waiting_for_another() {
        use std::net::{Shutdown, TcpListener, TcpStream};
        use std::os::unix::net::{UnixListener, UnixStream};
        let sight = |inode| {
            let mut search = Search::new(vec![inode]);
            search.tree(std::process::id() as i32, true);
            search.sight()
        };
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let inode = SocketInode::of(&listener).expect("fstat");
            let port = listener.local_addr().expect("its address").port();
            let _client = match address {
                "[::1]:0" => TcpStream::connect(("::1", port)),
                _ => TcpStream::connect(("127.0.0.1", port)),
            };
            assert_eq!(
                sight(inode),
                Sight::NotYet,
                "{address}: it waits in the queue"
            );
            let (accepted, _) = listener.accept().expect("accept");
            assert_eq!(sight(inode), Sight::Seen, "{address}");
            // As one that has answered and waits for the client's end.
            accepted.shutdown(Shutdown::Write).expect("shutdown");
            assert_eq!(sight(inode), Sight::Seen, "{address}: half closed");
        }
        let path = std::env::temp_dir().join(format!("listend seen.{}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("bind");
        let inode = SocketInode::of(&listener).expect("fstat");
        let client = UnixStream::connect(&path);
        fs::remove_file(&path).expect("remove");
        let _client = client.expect("connect");
        assert_eq!(sight(inode), Sight::NotYet);
        let _accepted = listener.accept().expect("accept");
        assert_eq!(sight(inode), Sight::Seen);
    }

    #[test]
    fn only_a_socket_has_a_sockets_name() {
        assert_eq!(socket_number("socket:[1234]"), Some(1234));
        assert_eq!(socket_number("pipe:[1234]"), None);
        assert_eq!(socket_number("/tmp/socket:[1234]"), None);
    }
}
