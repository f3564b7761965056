//! What workers say about themselves (sd_notify(3)), and what follows from it.
//!
//! There is one socket for all of them. It is read before any child is reaped, so that what a process
//! has said last still counts, and so that whoever sent something can still be looked up.

use super::socket::NotifySocket;
use super::who::FoundProcess;
use super::{Complaint, ComplaintSubject, NotifyCounters, Ways, WorkerStatus, watch_socket, who};
use crate::config::{NotifyAccess, Ready};
use crate::core::{Input, InstanceId, Mono, Notice, ProcessId};
use crate::notify::{self, Message, STORED, Watchdog};
use crate::output::visible;
use crate::plan::{Activation, WorkerId};
use crate::shell::clock;
use crate::shell::fd_store::{How, RefusedFds};
use crate::shell::process::Processes;
use crate::shell::token::{NotifyPart, Token};
use crate::shell::turn::SLICE;
use crate::shell::turn::Shell;
use crate::shell::{event_text, watch};
use crate::stage::{LaunchFailure, Stage};
use crate::sys::{self, Datagram, PeerProcess, Sender, SharedFd};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::{Pid, getsid, pipe2, read};
use std::io;
use std::os::fd::OwnedFd;

/// The longest message in bytes, as systemd has it (PIPE_BUF). What is longer is dropped there, too.
const LONGEST: usize = 4096;
/// How many messages a turn takes if nobody is to be reaped; the rest stays for the next.
const PER_TURN: usize = 64;
/// So many barriers are held at a time. With what one more message can bring (SCM_MAX_FD), they fit into the
/// descriptors that are kept for it ([`crate::shell::reserve`]).
const MOST_BARRIERS: usize = 64;
/// How many reads of that size it takes to empty a pipe (pipe(7)): whoever writes on and on does not
/// hold up the loop.
const READS: usize = 16;
/// So many strangers are remembered.
const MOST_STRANGERS: usize = 4096;

impl Shell {
    /// The messages that were received, and those of them that counted for nothing.
    pub fn notify_counters(&self) -> NotifyCounters {
        self.notify.counters
    }

    /// What a process has told for people to read; `None` for one that is not there.
    pub fn told(&self, process: ProcessId) -> Option<&WorkerStatus> {
        self.processes.get(process).map(|process| &process.told)
    }

    /// Gives up what the instances of a worker have left for their successors: it is stopped for
    /// good, or there are to be none.
    pub fn forget_store(&mut self, worker: WorkerId) {
        self.notify.store.forget(&self.epoll, worker);
    }

    /// Only the definition of a worker that the plan has is needed any more: what its instances have
    /// left is to fit.
    pub(in crate::shell) fn trim_store(&mut self, worker: WorkerId) {
        let plan = self.definitions.worker(worker);
        let given_up = self.notify.store.trim(&self.epoll, worker, plan.fd_store);
        if given_up > 0 {
            log::warn!(
                "{}: closed {given_up} of the descriptors that its instances had stored: there is \
                 room for {} (`fd_store`)",
                plan.name,
                plan.fd_store
            );
        }
    }

    /// Gives up what was left by workers that somebody has stopped, as soon as nothing of them runs:
    /// until then they may leave more.
    pub(in crate::shell) fn forget_stores_of_stopped(&mut self) {
        for worker in self.notify.store.workers() {
            let runs = || {
                let mut all = self.processes.instances();
                all.any(|instance| instance.worker == worker)
            };
            if self.core.is_stopped(worker) && !runs() {
                self.forget_store(worker);
            }
        }
    }

    /// The value of NOTIFY_SOCKET. The socket is made when it is asked for first.
    ///
    /// # Errors
    ///
    /// socket(2), bind(2) or epoll_ctl(2): no descriptors or no memory are left.
    pub(in crate::shell) fn notify_socket(&mut self) -> io::Result<&str> {
        let socket = match self.notify.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = NotifySocket::new(self.control.path(), &self.plan)?;
                self.store.touch();
                watch_socket(&self.epoll, &socket)?;
                let files = socket.files();
                self.watch.files(&self.epoll, watch::Owner::Notify, &files);
                log::debug!("workers send notifications to {}", socket.address());
                socket
            }
        };
        Ok(self.notify.socket.insert(socket).address())
    }

    /// Makes the notify socket at an address that workers of another listend know.
    pub(in crate::shell) fn notify_socket_again(&mut self, address: &str) -> Result<(), String> {
        if let Some(name) = address.strip_prefix('@') {
            let socket = NotifySocket::again(name).map_err(|error| error.to_string())?;
            let watched = self.notify.continue_with(&self.epoll, socket);
            self.store.touch();
            return watched.map_err(|error| error.to_string());
        }
        match self.notify_socket() {
            Ok(made) if made == address => Ok(()),
            Ok(made) => Err(format!("the notify socket is at {made} now")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Makes what an instance needs to tell what it is asked to.
    pub(in crate::shell) fn ways_to_tell(
        &mut self,
        access: Option<NotifyAccess>,
        acknowledges: bool,
        ready: Ready,
    ) -> Result<Ways, LaunchFailure> {
        let mut ways = Ways::default();
        if access.is_some() {
            let socket = self.notify_socket().map(str::to_owned);
            ways.socket = Some(socket.map_err(|error| no_way("the notify socket", &error))?);
        }
        match ready {
            Ready::Fd(_) => {
                let pipe = newline_pipe();
                ways.newline = Some(pipe.map_err(|error| no_way("the readiness pipe", &error))?);
            }
            Ready::Started | Ready::Notify | Ready::Accepting(_) | Ready::Einhorn => {}
        }
        if acknowledges {
            match self.ack_socket() {
                Ok(path) => ways.acknowledge_at = Some(path.to_owned()),
                Err(error) if ready == Ready::Einhorn => {
                    return Err(no_way("the socket of einhorn", &error));
                }
                // Nobody waits for what it says there.
                Err(error) => log::debug!("no EINHORN_SOCK_PATH: {error}"),
            }
        }
        Ok(ways)
    }

    pub(in crate::shell) fn notify_event(&mut self, part: NotifyPart) {
        match part {
            NotifyPart::Socket => self.take_some(PER_TURN, Some(clock::now() + SLICE)),
            NotifyPart::Newline(process) => self.newline(process, false),
            NotifyPart::Stored(id) => self.notify.store.hung_up(&self.epoll, id),
            NotifyPart::Acks => self.take_acks(),
            NotifyPart::AckClient(id) => self.hear_ack(id),
        }
    }

    /// Takes everything that a process has said before it ended.
    pub(in crate::shell) fn drain_notifications(&mut self, process: ProcessId) {
        self.take_notices();
        self.newline(process, true);
    }

    /// Takes every message that is there.
    pub(in crate::shell) fn take_notices(&mut self) {
        if let Some(socket) = &self.notify.socket {
            self.take_some(socket.most_waiting(), None);
        }
        self.take_acks();
    }

    /// Takes so many messages, but for the time of one no longer than until `end`.
    fn take_some(&mut self, at_most: usize, end: Option<Mono>) {
        let _reserve = self.reserve.lend();
        let mut buffer = [0; LONGEST];
        for _ in 0..at_most {
            let Some(socket) = &mut self.notify.socket else {
                return;
            };
            match socket.receive(&mut buffer) {
                Ok(datagram) => {
                    let bytes = buffer.get(..datagram.length).unwrap_or_default();
                    self.take_message(bytes, datagram);
                    sys::close_foreign();
                    if self.notify.barriers.len() >= MOST_BARRIERS {
                        self.record();
                        self.notify.end_barriers();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
            if end.is_some_and(|end| clock::now() >= end) {
                return;
            }
        }
    }

    /// Everything that came with the message and is not kept is closed at the end of this.
    fn take_message(&mut self, bytes: &[u8], datagram: Datagram) {
        self.notify.counters.received += 1;
        let whose = ComplaintSubject::sender(datagram.from.sender);
        if datagram.is_truncated {
            self.notify.counters.truncated += 1;
            let sender = describe_sender(datagram.from.sender);
            self.notify.complain(Complaint::Truncated, whose, &|| {
                format!(
                    "dropped a notification of {sender}: it is longer than {LONGEST} bytes, or no \
                     descriptors are left"
                )
            });
            return;
        }
        let message = notify::parse(bytes);
        // Whoever it is from: all that was sent before has been taken, and that is all it asks. It is told when
        // the descriptors are kept and the facts written. It sends one descriptor for that (sd_notify_barrier(3)).
        if message.barrier {
            let one = datagram.descriptors.into_iter().take(1);
            self.notify.barriers.extend(one);
            return;
        }
        let Some(process) = self.sender_of(&datagram.from) else {
            self.notify.counters.foreign += 1;
            let sender = describe_sender(datagram.from.sender);
            self.notify.complain(Complaint::Foreign, whose, &|| {
                format!(
                    "dropped a notification of {sender}, which may not send any: it is neither a \
                     main process nor of a worker with `notify_access: all`, or it exited before \
                     it could be looked up"
                )
            });
            return;
        };
        self.take_notice(process, &message, datagram);
    }

    fn is_main_process(&self, process: ProcessId, from: &PeerProcess) -> bool {
        let known = self.processes.get(process);
        let known = known.and_then(|known| known.pidfd.as_ref());
        let known = known.and_then(sys::pidfd_inode);
        let sender = from.pidfd.as_ref().and_then(sys::pidfd_inode);
        known.is_some() && known == sender
    }

    /// Of which process somebody may tell.
    fn sender_of(&mut self, from: &PeerProcess) -> Option<ProcessId> {
        let (process, is_main) = self.whose(from, Processes::may_tell_as)?;
        let may = match self.processes.get(process)?.access {
            None => false,
            Some(NotifyAccess::Main) => is_main,
            Some(NotifyAccess::All) => true,
        };
        may.then_some(process)
    }

    /// Of which process somebody is, and whether it is the main one. Others are looked for if a process of
    /// their user may be one. What costs little is asked first: any number of strangers may send any number of
    /// messages.
    pub(super) fn whose(
        &mut self,
        from: &PeerProcess,
        may_be_one: fn(&Processes, u32) -> bool,
    ) -> Option<(ProcessId, bool)> {
        let Sender { pid, uid } = from.sender?;
        // A main process that has ended is known by the inode of its pidfd, which no other gets: another process
        // may have reaped it while there was no listend.
        if let Some(process) = self.processes.by_pid(pid)
            && self.is_main_process(process, from)
        {
            return Some((process, true));
        }
        if pid <= 0 || from.is_gone {
            return None;
        }
        let found = match self.processes.by_pid(pid) {
            Some(process) => (process, true),
            None if may_be_one(&self.processes, uid) => (self.family_of(pid, from)?, false),
            None => return None,
        };
        // Only now: whoever has that number at this point has had it all the time.
        let is_the_same = from
            .pidfd
            .as_ref()
            .is_none_or(|pidfd| exists(sys::send_signal(pidfd, 0)));
        is_the_same.then_some(found)
    }

    /// Of which instance a process is that is no main one. A stranger is looked up once: its family
    /// does not change, but when an instance names another main process.
    fn family_of(&mut self, pid: i32, from: &PeerProcess) -> Option<ProcessId> {
        let inode = from.pidfd.as_ref().and_then(sys::pidfd_inode);
        let strangers = &mut self.notify.strangers;
        if inode.is_some_and(|inode| strangers.contains(&inode)) {
            return None;
        }
        let family = who::family(pid, &self.processes);
        if let (None, Some(inode)) = (family, inode) {
            if strangers.len() >= MOST_STRANGERS {
                strangers.clear();
            }
            strangers.insert(inode);
        }
        family
    }

    fn take_notice(&mut self, id: ProcessId, message: &Message, datagram: Datagram) {
        // Whatever it says, it runs its program, and that is to be known first.
        self.exec_status(id);
        let mut wrong = message.first_malformed.clone();
        let uid = datagram.from.sender.map(|sender| sender.uid);
        if let Some(pid) = message.main_pid
            && let Err(reason) = self.change_main(id, pid, uid)
        {
            wrong.get_or_insert_with(|| format!("MAINPID={pid}: {reason}"));
        }
        let Some(process) = self.processes.get(id) else {
            return;
        };
        let instance = process.instance;
        let mut told = process.told.clone();
        told.take(message);
        // What is lent out is written down again, and most messages are keep-alives.
        if told != process.told
            && let Some(process) = self.processes.get_mut(id)
        {
            process.told = told;
        }
        let notices = notices(message);
        if log::log_enabled!(log::Level::Debug) {
            let name = event_text::instance_name(&self.definitions, instance);
            log::debug!("{name}: sent {notices:?} with {}", shown(message));
        }
        for notice in notices {
            self.feed(Input::Notified {
                process: id,
                notice,
            });
        }
        if message.remove {
            match &message.name {
                Some(name) => {
                    self.notify.store.remove(&self.epoll, instance, name);
                }
                None => {
                    wrong.get_or_insert_with(|| "FDSTOREREMOVE=1 without FDNAME=".to_owned());
                }
            }
        }
        if message.store {
            self.store(instance, message, datagram.descriptors);
        }
        if let Some(wrong) = wrong {
            self.notify.counters.malformed += 1;
            let name = event_text::instance_name(&self.definitions, instance);
            let about = ComplaintSubject::Worker(instance.worker);
            self.notify.complain(Complaint::Malformed, about, &|| {
                let wrong = visible(wrong.as_bytes());
                format!("{name}: ignored `{wrong}`, which it has sent to NOTIFY_SOCKET")
            });
        }
    }

    fn store(&mut self, instance: InstanceId, message: &Message, fds: Vec<SharedFd>) {
        let worker = self.definitions.worker(instance.worker);
        let at_most = match worker.lifecycle.activation {
            Activation::Eager | Activation::OnDemand { .. } => worker.fd_store,
            // The process of a connection has no successor.
            Activation::PerConnection(_) => 0,
        };
        let name = message.name.as_deref().filter(|name| !name.is_empty());
        let how = How {
            name: name.unwrap_or(STORED),
            polled: !message.unpolled,
            at_most,
            below: self.reserve.first(),
        };
        let RefusedFds {
            no_room,
            may_wait,
            no_numbers,
        } = self.notify.store.add(&self.epoll, instance, fds, how);
        if no_room + may_wait + no_numbers == 0 {
            return;
        }
        let no_room_for = format!("there is room for {at_most} (`fd_store`)");
        let refused = [
            (
                Complaint::NoNumbers,
                no_numbers,
                "listend has none left but those that it needs for starts (RLIMIT_NOFILE)",
            ),
            (
                Complaint::MayWait,
                may_wait,
                "they are on a file system that may not answer (FUSE, NFS and the like), or on one \
                 mounted for others only",
            ),
            (Complaint::NoRoom, no_room, &no_room_for),
        ];
        for (complaint, count, why) in refused {
            if count == 0 {
                continue;
            }
            let name = event_text::instance_name(&self.definitions, instance);
            let about = ComplaintSubject::Worker(instance.worker);
            self.notify.complain(complaint, about, &|| {
                format!("{name}: closed {count} of the descriptors that it wanted to store: {why}")
            });
        }
    }

    /// Makes another process the main one of an instance.
    fn change_main(&mut self, id: ProcessId, pid: i32, uid: Option<u32>) -> Result<(), String> {
        let process = self.processes.get(id).ok_or("it is gone")?;
        if process.rest.is_some() {
            return Err("its main process has exited".to_owned());
        }
        if process.pid == pid {
            return Ok(());
        }
        let (before, instance) = (process.pid, process.instance);
        if self.processes.by_pid(pid).is_some() {
            return Err("another instance has that process".to_owned());
        }
        // First, so that what is found out is about the process that this is then.
        let pidfd = sys::open_pidfd(pid).map_err(|error| error.to_string())?;
        self.may_be_main(id, pid, uid)?;
        if !exists(sys::send_signal(&pidfd, 0)) {
            return Err("it has exited".to_owned());
        }
        let token = Token::Exit(id).pack();
        self.epoll
            .add(&pidfd, EpollEvent::new(EpollFlags::EPOLLIN, token))
            .map_err(|errno| errno.desc().to_owned())?;
        self.notify.strangers.clear();
        if let Some(old) = self.processes.replace_main(id, pid, pidfd) {
            // By hand: a child on its way to exec has a copy (epoll(7)). Its end is told by SIGCHLD.
            let _not_watched = self.epoll.delete(&old);
        }
        let name = event_text::instance_name(&self.definitions, instance);
        let about = ComplaintSubject::Worker(instance.worker);
        self.notify
            .say(log::Level::Info, Complaint::Main, about, &|| {
                format!("{name}: pid {pid} is the main process now, replacing {before}")
            });
        Ok(())
    }

    /// Whether a process is one of the instance's: in its session, or descended from its main
    /// process. One that has left the session and whose parent has ended has come to listend, which is
    /// all that is left of its descent: it has to run as whoever names it, or root names it. What listend has
    /// started for itself is in its own session.
    fn may_be_main(&self, id: ProcessId, pid: i32, uid: Option<u32>) -> Result<(), String> {
        let own = std::process::id() as i32;
        if pid == 1 || pid == own {
            return Err("it is not a worker".to_owned());
        }
        let found = who::find(pid).ok_or("there is no such process")?;
        if found.is_dead {
            return Err("it has exited".to_owned());
        }
        match who::family(pid, &self.processes) {
            Some(family) if family == id => Ok(()),
            Some(_) => Err("it belongs to another instance".to_owned()),
            None => {
                // Anew: its parent may have ended since, while its family was looked for.
                let session = getsid(None).map(Pid::as_raw);
                let is_left =
                    |found: FoundProcess| found.parent == own && session != Ok(found.session);
                if who::find(pid).is_some_and(is_left) && (uid == Some(0) || who::user(pid) == uid)
                {
                    return Ok(());
                }
                Err("it is not a descendant of the worker".to_owned())
            }
        }
    }

    /// Looks for the newline of a process, which may have ended.
    fn newline(&mut self, id: ProcessId, has_ended: bool) {
        let Some(pipe) = self.notify.newlines.get(&id) else {
            return;
        };
        let mut bytes = [0; LONGEST];
        let mut reads = 0..READS;
        let is_ready = loop {
            if reads.next().is_none() {
                return;
            }
            match read(pipe, &mut bytes) {
                Ok(0) => break false,
                Ok(count) if bytes.iter().take(count).any(|byte| *byte == b'\n') => break true,
                // What comes before it has no meaning.
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => break false,
            }
        };
        self.notify.forget_process(&self.epoll, id);
        self.exec_status(id);
        let Some(process) = self.processes.get(id) else {
            return;
        };
        if is_ready {
            log::debug!(
                "{}: sent [Ready] with a newline",
                event_text::instance_name(&self.definitions, process.instance)
            );
            self.feed(Input::Notified {
                process: id,
                notice: Notice::Ready,
            });
            return;
        }
        // Of one that ended or did not reach its program there is more to say.
        if !has_ended && process.launching.is_none() {
            log::warn!(
                "{}: closed the descriptor of `ready: fd` without a newline, and so will not count \
                 as ready",
                event_text::instance_name(&self.definitions, process.instance)
            );
        }
    }
}

/// What the core acts on, in the order in which systemd does. Who stops is not ready any more.
fn notices(message: &Message) -> Vec<Notice> {
    let mut notices = Vec::new();
    if message.stopping {
        notices.push(Notice::Stopping);
    } else {
        notices.extend(message.reloading.then_some(Notice::Reloading));
        notices.extend(message.ready.then_some(Notice::Ready));
    }
    notices.extend(message.extend_timeout.map(Notice::ExtendTimeout));
    notices.extend(message.busy.map(Notice::Busy));
    notices.extend(message.watchdog_interval.map(Notice::WatchdogInterval));
    notices.extend(message.watchdog.map(|watchdog| match watchdog {
        Watchdog::Alive => Notice::Alive,
        Watchdog::Trigger => Notice::Trigger,
    }));
    notices
}

/// What else there is in a message that people may want to know.
fn shown(message: &Message) -> String {
    let status = message.status.as_deref().unwrap_or_default();
    format!("status \"{}\"", visible(status.as_bytes()))
}

/// Whether a process is there, be it as a zombie: sending signal 0 says so even where it may not be
/// sent any (kill(2)).
fn exists(sent: io::Result<()>) -> bool {
    sent.map_or_else(|error| error.raw_os_error() != Some(libc::ESRCH), |()| true)
}

pub(super) fn describe_sender(sender: Option<Sender>) -> String {
    match sender {
        Some(Sender { pid, uid }) => format!("pid {pid} of uid {uid}"),
        None => "an unknown process".to_owned(),
    }
}

fn no_way(what: &str, error: &io::Error) -> LaunchFailure {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    LaunchFailure::new(Stage::Fork, errno, format!("cannot create {what}: {error}"))
}

fn newline_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((sys::out_of_the_way(ours), theirs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn notices_come_in_systemd_s_order() {
        let of = |text: &str| notices(&notify::parse(text.as_bytes()));
        assert_eq!(of("STATUS=x\nMAINPID=1"), []);
        assert_eq!(of("READY=1\nSTATUS=x"), [Notice::Ready]);
        let both = [Notice::Reloading, Notice::Ready];
        assert_eq!(of("READY=1\nRELOADING=1"), both);
        assert_eq!(of("RELOADING=1\nREADY=1"), both);
        let time = Duration::from_micros(5);
        let all = "WATCHDOG=1\nWATCHDOG_USEC=5\nEXTEND_TIMEOUT_USEC=5\nREADY=1\nSTOPPING=1";
        assert_eq!(
            of(all),
            [
                Notice::Stopping,
                Notice::ExtendTimeout(time),
                Notice::WatchdogInterval(time),
                Notice::Alive
            ]
        );
        assert_eq!(of("WATCHDOG=trigger"), [Notice::Trigger]);
    }

    #[test]
    fn what_is_told_stays_until_something_else_is() {
        let mut told = WorkerStatus::default();
        told.take(&notify::parse(b"STATUS=up\x1b[31m\nERRNO=2"));
        told.take(&notify::parse(b"EXIT_STATUS=3"));
        let expected = WorkerStatus {
            status: Some("up^[[31m".to_owned()),
            errno: Some(2),
            bus_error: None,
            exit_status: Some(3),
        };
        assert_eq!(told, expected);
        let words = "up^[[31m; error: no such file or directory (ENOENT); will exit with status 3";
        assert_eq!(told.words().as_deref(), Some(words));
        assert_eq!(WorkerStatus::default().words(), None);
        told.take(&notify::parse(b"STATUS="));
        assert_eq!(told.status, None);
    }
}
