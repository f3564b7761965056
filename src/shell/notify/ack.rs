//! The socket of einhorn's protocol, at which workers say that they are up: one line for each connection, and
//! no answer.

use super::socket::{MODE, beside};
use crate::config::UnixKind;
use crate::core::{Mono, ProcessId};
use crate::listener::{BoundSocket, SocketRecord};
use crate::plan::Plan;
use crate::report::describe;
use crate::shell::clock;
use crate::shell::own_socket::{OwnRepair, OwnSocket};
use crate::shell::token::{NotifyPart, Token};
use crate::sys::{self, SharedFd};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::SockRef;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// What messages call it.
const NAME: &str = "einhorn socket";
/// So many have connected, and not said anything yet; one more, and the oldest has to go.
const MOST_CLIENTS: usize = 64;
/// The longest line in bytes, as a notification has it.
const LONGEST: usize = 4096;
/// How long one may take to say it.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long nobody is accepted where there are no descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// Dropped, its path is removed.
#[derive(Debug)]
pub(in crate::shell) struct AckSocket {
    own: OwnSocket,
    address: String,
    pub(super) clients: AckClients,
    /// Until when nobody is accepted.
    paused: Option<Mono>,
}

/// Those who have connected, in the order in which they have come.
#[derive(Debug, Default)]
pub(super) struct AckClients {
    all: BTreeMap<u64, AckClient>,
    last: u64,
}

/// Who has connected.
#[derive(Debug)]
struct AckClient {
    socket: SharedFd,
    /// The process that it belongs to.
    process: ProcessId,
    line: Vec<u8>,
    /// Until when it may say something.
    until: Mono,
}

/// What a client has said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A line, without its end.
    Line(Vec<u8>),
    /// None, and none will come.
    Nothing,
    /// More than a line may have.
    TooLong,
}

impl AckSocket {
    /// Makes it beside the control socket, where every worker can get at it: its clients know paths only.
    ///
    /// # Errors
    ///
    /// There is no such path, or it cannot be bound.
    pub(super) fn new(control: Option<&Path>, plan: &Plan) -> io::Result<AckSocket> {
        let path = control.and_then(|control| beside(control, plan, "einhorn"));
        let path = path.ok_or_else(|| {
            io::Error::other(
                "there is no path beside the control socket that every worker can reach \
                 (`--control`)",
            )
        })?;
        let bound = OwnSocket::bind(NAME, UnixKind::Stream, &path, (None, MODE));
        let own = bound.map_err(|failed| io::Error::from_raw_os_error(failed.0.errno))?;
        AckSocket::of(own, path.to_string_lossy().into_owned())
    }

    /// The socket that another listend had at this address: its descriptor, and what is known of its file.
    pub(in crate::shell) fn restore(
        address: String,
        record: SocketRecord,
        fd: OwnedFd,
    ) -> Result<AckSocket, String> {
        let path = Path::new(&address);
        let own = OwnSocket::restore(NAME, UnixKind::Stream, path, (None, MODE), (fd, record));
        let own = own.map_err(|failed| describe(failed.0.errno))?;
        AckSocket::of(own, address).map_err(|error| error.to_string())
    }

    fn of(own: OwnSocket, address: String) -> io::Result<AckSocket> {
        if let Some(socket) = own.socket() {
            set_up(socket)?;
        }
        Ok(AckSocket {
            own,
            address,
            clients: AckClients::default(),
            paused: None,
        })
    }

    /// The value of EINHORN_SOCK_PATH.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What is known of its file.
    pub(super) fn record(&self) -> Option<SocketRecord> {
        self.own.socket().map(BoundSocket::record)
    }

    /// Where it is in the file system.
    pub(in crate::shell) fn files(&self) -> Vec<Cow<'_, Path>> {
        self.own
            .socket()
            .map(BoundSocket::files)
            .unwrap_or_default()
    }

    /// The socket; `None` when it could not be had again.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.own.socket().map(|socket| socket.fd.as_fd())
    }

    /// Puts its path right, if something is wrong with it.
    pub(super) fn repair(&mut self) -> Option<OwnRepair> {
        self.own.repair(set_up)
    }

    /// Listens to whoever connects.
    pub(super) fn watch(&mut self, epoll: &Epoll) -> io::Result<()> {
        self.paused = None;
        let Some(fd) = self.fd() else { return Ok(()) };
        let token = Token::Notify(NotifyPart::Acks).pack();
        match epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next who wants to connect; `None`: there is nobody, or nobody is taken for now.
    pub(super) fn accept(&mut self, epoll: &Epoll) -> Option<SharedFd> {
        if self.paused.is_some() {
            return None;
        }
        let fd = self.fd()?;
        match SockRef::from(&fd).accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) {
            Ok((accepted, _)) => Some(OwnedFd::from(accepted).into()),
            Err(error) => {
                let errno = error.raw_os_error().map(Errno::from_raw);
                if let Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) = errno
                {
                    log::warn!("{NAME}: cannot accept a worker for now: {error}");
                    let _not_watched = epoll.delete(fd);
                    self.paused = Some(clock::now() + PAUSE);
                }
                None
            }
        }
    }

    /// When to look again, if nothing else happens before.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let clients = self.clients.deadline().into_iter();
        clients.chain(self.paused).min()
    }

    /// Accepts again, if that was put off until now.
    pub(super) fn resume(&mut self, epoll: &Epoll, now: Mono) {
        if self.paused.is_some_and(|until| until <= now)
            && let Err(error) = self.watch(epoll)
        {
            log::error!("cannot watch the {NAME}: {error}");
        }
    }
}

impl AckClients {
    /// Takes one in that belongs to this process. Answers by which number it is known, and whose place it has
    /// got if there was none left.
    pub(super) fn admit(
        &mut self,
        socket: SharedFd,
        process: ProcessId,
        now: Mono,
    ) -> (u64, Option<ProcessId>) {
        let displaced = match self.all.len() < MOST_CLIENTS {
            true => None,
            false => self.all.pop_first().map(|(_, client)| client.process),
        };
        self.last += 1;
        let client = AckClient {
            socket,
            process,
            line: Vec::new(),
            until: now + PATIENCE,
        };
        self.all.insert(self.last, client);
        (self.last, displaced)
    }

    /// What a client has said, and whose it is: it is let go. `None`: it has said nothing yet, and is listened to.
    pub(super) fn hear(&mut self, epoll: &Epoll, id: u64) -> Option<(ProcessId, Heard)> {
        let client = self.all.get_mut(&id)?;
        let heard = match client.read() {
            Some(heard) => heard,
            None => {
                let token = Token::Notify(NotifyPart::AckClient(id)).pack();
                let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
                match epoll.add(&client.socket, event) {
                    Ok(()) | Err(Errno::EEXIST) => return None,
                    Err(_) => Heard::Nothing,
                }
            }
        };
        let client = self.all.remove(&id)?;
        Some((client.process, heard))
    }

    /// When the next has had its time: all have as long.
    fn deadline(&self) -> Option<Mono> {
        let first = self.all.values().next();
        first.map(|client| client.until)
    }

    /// Lets the next go that has had its time. Answers whose it was.
    pub(super) fn let_go(&mut self, now: Mono) -> Option<ProcessId> {
        let first = self.all.first_entry()?;
        (first.get().until <= now).then(|| first.remove().process)
    }
}

impl AckClient {
    /// `None`: more is to come.
    fn read(&mut self) -> Option<Heard> {
        let mut bytes = [0; LONGEST];
        loop {
            match sys::receive_bytes(&self.socket, &mut bytes) {
                Ok(0) => return Some(Heard::Nothing),
                Ok(count) => {
                    let new = bytes.get(..count).unwrap_or_default();
                    if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
                        self.line.extend(new.iter().take(end));
                        let is_short = self.line.len() <= LONGEST;
                        let line = std::mem::take(&mut self.line);
                        return Some(match is_short {
                            true => Heard::Line(line),
                            false => Heard::TooLong,
                        });
                    }
                    self.line.extend_from_slice(new);
                    if self.line.len() > LONGEST {
                        return Some(Heard::TooLong);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return None,
                    _ => return Some(Heard::Nothing),
                },
            }
        }
    }
}

/// Non-blocking, and nobody sends it descriptors.
fn set_up(socket: &BoundSocket) -> io::Result<()> {
    fcntl(&socket.fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    sys::refuse_descriptors(&socket.fd);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::epoll::EpollCreateFlags;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn connected() -> (UnixStream, SharedFd) {
        let (theirs, ours) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("O_NONBLOCK");
        (theirs, OwnedFd::from(ours).into())
    }

    fn client() -> (UnixStream, AckClient) {
        let (theirs, socket) = connected();
        let client = AckClient {
            socket,
            process: ProcessId(1),
            line: Vec::new(),
            until: Mono(0),
        };
        (theirs, client)
    }

    #[test]
    fn who_says_nothing_goes_when_its_time_is_over_or_others_need_its_place() {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
        let mut clients = AckClients::default();
        let most = MOST_CLIENTS as u64;
        let admitted = |clients: &mut AckClients, number: u64| {
            let (theirs, ours) = connected();
            let (id, displaced) = clients.admit(ours, ProcessId(number), Mono(number));
            assert_eq!(clients.hear(&epoll, id), None);
            (theirs, id, displaced)
        };
        let all: Vec<_> = (1..=most)
            .map(|number| admitted(&mut clients, number))
            .collect();
        assert!(all.iter().all(|(_, _, displaced)| displaced.is_none()));
        let (mut last, id, displaced) = admitted(&mut clients, most + 1);
        assert_eq!(displaced, Some(ProcessId(1)));
        assert_eq!(clients.deadline(), Some(Mono(2) + PATIENCE));
        last.write_all(b"x\n").expect("write");
        let said = Some((ProcessId(most + 1), Heard::Line(b"x".to_vec())));
        assert_eq!(clients.hear(&epoll, id), said);
        assert_eq!(clients.let_go(Mono(1) + PATIENCE), None);
        assert_eq!(clients.let_go(Mono(3) + PATIENCE), Some(ProcessId(2)));
        assert_eq!(clients.let_go(Mono(3) + PATIENCE), Some(ProcessId(3)));
        assert_eq!(clients.let_go(Mono(3) + PATIENCE), None);
        assert_eq!(clients.all.len(), MOST_CLIENTS - 3);
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let (mut theirs, mut client) = client();
        assert_eq!(client.read(), None);
        theirs.write_all(b"{\"command\":").expect("write");
        assert_eq!(client.read(), None);
        theirs.write_all(b"1}\nmore\n").expect("write");
        assert_eq!(
            client.read(),
            Some(Heard::Line(b"{\"command\":1}".to_vec()))
        );
    }

    #[test]
    fn an_end_without_a_line_and_a_line_without_an_end_say_nothing() {
        let (mut theirs, mut one) = client();
        theirs.write_all(b"half").expect("write");
        drop(theirs);
        assert_eq!(one.read(), Some(Heard::Nothing));
        let (mut theirs, mut one) = client();
        theirs.write_all(&[b'x'; LONGEST]).expect("write");
        assert_eq!(one.read(), None);
        theirs.write_all(b"x").expect("write");
        assert_eq!(one.read(), Some(Heard::TooLong));
        // However it comes, and with its end.
        for (first, then, is_short) in [
            (LONGEST, "\n", true),
            (LONGEST, "x\n", false),
            (1, "\n", true),
        ] {
            let (mut theirs, mut one) = client();
            let first = vec![b'x'; first];
            theirs.write_all(&first).expect("write");
            assert_eq!(one.read(), None);
            theirs.write_all(then.as_bytes()).expect("write");
            let whole = Some(if is_short {
                Heard::Line(first)
            } else {
                Heard::TooLong
            });
            assert_eq!(one.read(), whole);
        }
    }
}
