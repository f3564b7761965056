//! The keeper: who started listend, and holds copies of its descriptors (`FDSTORE=1`,
//! sd_pid_notify_with_fds(3)).
//!
//! Nothing here waits. What the keeper has no room for yet stays in a queue of names; the descriptors
//! are looked up when a message is sent, so that what was dropped meanwhile is not sent at all.
//!
//! A keeper closes what is more than it may keep, and tells nobody. So it is counted here, and what is less
//! important ([`Name`]) is given up for what is more: the keeper has the first of what there is, in that order.

use super::name::Name;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};
use nix::unistd::pipe2;
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// The kernel takes so many descriptors in one message (SCM_MAX_FD, unix(7)).
pub const MOST_PER_MESSAGE: usize = 253;

/// How often it is tried to send, by who waits for it, in milliseconds.
const AGAIN: u8 = 5;

/// The variables that say how many descriptors are kept: of systemd 254 and the guard, and of a unit for an older
/// systemd. `Environment=` of a unit would hide what systemd says, so that it is another one.
pub const LIMITS: [&str; 2] = ["FDSTORE", "LISTEND_FDSTORE"];

/// How what hangs up when sockets are closed is watched: once. A child on its way to exec may have a copy, which would
/// have the event come again and again after it was closed here (epoll(7)).
pub const HANGS_UP: EpollFlags = EpollFlags::EPOLLONESHOT;

/// The way to a keeper.
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    to: UnixAddr,
    queue: VecDeque<Change>,
    /// How many descriptors it keeps at most.
    most: usize,
    /// How many it has, by name, and in all.
    kept: BTreeMap<Name, usize>,
    count: usize,
    /// How many it has no room for.
    refused: BTreeMap<Name, usize>,
    /// It was told to give up sockets, and not asked whether it has closed them.
    has_given_up: bool,
    /// Hangs up when it has closed what it was told to before.
    barrier: Option<OwnedFd>,
    /// Whether there was room for something when it was last tried to send.
    takes: bool,
}

/// Descriptors for which there is no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    /// Of listeners, and the snapshot.
    pub sockets: usize,
    /// Of listend's own, of processes, and what workers have stored.
    pub others: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add(Name),
    Remove(Name),
}

impl Keeper {
    /// The one that the environment names: the first of [`LIMITS`] says how many descriptors it keeps, and
    /// `NOTIFY_SOCKET` where. `None` where there is none.
    ///
    /// # Errors
    ///
    /// The errors of socket(2), and EINVAL where `NOTIFY_SOCKET` is no address of a unix socket.
    pub fn from_environment() -> Result<Option<Keeper>, Errno> {
        let said = LIMITS.iter().find_map(|name| std::env::var(name).ok());
        let most = said.and_then(|most| most.trim().parse().ok());
        let name = std::env::var_os("NOTIFY_SOCKET");
        match most.filter(|most| *most > 0).zip(name) {
            Some((most, name)) => Keeper::at(name.as_bytes(), most).map(Some),
            None => Ok(None),
        }
    }

    /// The one with this address: a path, or a name of the abstract namespace behind an `@`.
    fn at(name: &[u8], most: usize) -> Result<Keeper, Errno> {
        let to = match name {
            [b'@', rest @ ..] => UnixAddr::new_abstract(rest),
            path => UnixAddr::new(path),
        }?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(Keeper {
            socket: socket(AddressFamily::Unix, SockType::Datagram, flags, None)?,
            to,
            queue: VecDeque::new(),
            most,
            kept: BTreeMap::new(),
            count: 0,
            refused: BTreeMap::new(),
            has_given_up: false,
            barrier: None,
            takes: false,
        })
    }

    /// How many descriptors it keeps at most.
    pub fn most(&self) -> usize {
        self.most
    }

    /// What it has no room for.
    pub fn refused(&self) -> Refused {
        let mut refused = Refused::default();
        for (name, count) in &self.refused {
            match name {
                Name::Snapshot | Name::Sockets(_) => refused.sockets += count,
                _ => refused.others += count,
            }
        }
        refused
    }

    /// It has these from the listend before: of each name as often as it comes. What there was no room for may be
    /// among them, where this process has executed another binary and has them itself.
    pub fn has(&mut self, names: impl IntoIterator<Item = Name>) {
        for name in names {
            // These are only handed over.
            if !matches!(name, Name::Connection(_)) {
                *self.kept.entry(name).or_default() += 1;
                self.count += 1;
            }
        }
        while self.count > self.most
            && let Some((name, count)) = self.kept.pop_last()
        {
            let refused = count.min(self.count - self.most);
            self.count -= refused;
            self.refused.insert(name, refused);
            if refused < count {
                self.kept.insert(name, count - refused);
            }
        }
    }

    /// Whether nothing is to be sent.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether it has taken something of what was last sent, so that there is room again soon.
    pub fn takes(&self) -> bool {
        self.takes
    }

    /// Has what is called this kept from now on.
    pub fn add(&mut self, name: Name) {
        self.queue.push_back(Change::Add(name));
    }

    /// Has nothing kept that is called this.
    pub fn remove(&mut self, name: Name) {
        // What was not sent need not be, nor be taken back.
        let before = self.queue.len();
        self.queue.retain(|change| *change != Change::Add(name));
        let is_unsent = self.refused.remove(&name).is_some() || self.queue.len() < before;
        if !is_unsent || self.kept.contains_key(&name) {
            self.queue.push_back(Change::Remove(name));
        }
    }

    /// Sends what there is room for. `fds` answers with what a name stands for. Answers whether
    /// something is left, which is sent when this is called again.
    ///
    /// # Errors
    ///
    /// The errors of sendmsg(2) that do not pass by themselves: the keeper is gone. What was to be sent is still in
    /// the queue.
    pub fn send<'a>(
        &mut self,
        mut fds: impl FnMut(Name) -> Vec<BorrowedFd<'a>>,
    ) -> Result<bool, Errno> {
        self.takes = false;
        loop {
            while let Some(change) = self.queue.front().copied() {
                let sent = match change {
                    Change::Remove(name) => self.give_up(name),
                    // None where it was dropped since.
                    Change::Add(name) => self.hand_in(name, &fds(name)),
                };
                match sent {
                    Ok(()) => {
                        self.queue.pop_front();
                        self.takes = true;
                    }
                    Err(errno) if passes(errno) => return Ok(true),
                    Err(errno) => return Err(errno),
                }
            }
            // There may be room now for what there was none.
            match self.refused.first_key_value() {
                Some((name, _)) if self.count < self.most => {
                    self.queue.push_back(Change::Add(*name));
                }
                _ => return Ok(false),
            }
        }
    }

    fn give_up(&mut self, name: Name) -> Result<(), Errno> {
        self.message(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])?;
        self.count -= self.kept.remove(&name).unwrap_or(0);
        self.has_given_up |= matches!(name, Name::Sockets(_));
        Ok(())
    }

    /// Sends as many as there is room for, and what is less important goes for.
    fn hand_in(&mut self, name: Name, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        // A part of it, which nobody could tell from the rest.
        if self.kept.contains_key(&name) {
            self.give_up(name)?;
        }
        while self.count + fds.len() > self.most
            && let Some((last, count)) = self.kept.last_key_value()
            && *last > name
        {
            let (last, count) = (*last, *count);
            self.give_up(last)?;
            *self.refused.entry(last).or_default() += count;
        }
        let room = self.most.saturating_sub(self.count);
        let some = fds.get(..room).unwrap_or(fds);
        // FDPOLL: what a pipe has left is read although its writer is gone.
        let text = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        let mut messages = some.chunks(MOST_PER_MESSAGE);
        messages.try_for_each(|fds| self.message(&text, fds))?;
        if !some.is_empty() {
            self.kept.insert(name, some.len());
            self.count += some.len();
        }
        match fds.len() - some.len() {
            0 => drop(self.refused.remove(&name)),
            more => drop(self.refused.insert(name, more)),
        }
        Ok(())
    }

    /// Sends what is to be removed, and waits until the keeper has done so (`BARRIER=1`,
    /// sd_notify_barrier(3)), but not for longer than twice this time.
    ///
    /// # Errors
    ///
    /// As for [`Keeper::send`], and ETIMEDOUT.
    pub fn settle(&mut self, patience: Duration) -> Result<(), Errno> {
        let mut tries = patience.as_millis() / u128::from(AGAIN);
        // The socket has no peer of whose queue poll(2) could tell.
        while self.send(|_| Vec::new())? {
            tries = tries.checked_sub(1).ok_or(Errno::ETIMEDOUT)?;
            poll(&mut [], AGAIN)?;
        }
        let ours = self.ask()?;
        let mut closed = [PollFd::new(ours.as_fd(), PollFlags::empty())];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut closed, patience)? {
            0 => Err(Errno::ETIMEDOUT),
            _ => Ok(()),
        }
    }

    /// Asks it to tell when it has closed the sockets that it was told to give up, if there are any. Answers with the
    /// descriptor that hangs up then, to be watched as [`HANGS_UP`]. Where it cannot be asked nothing is known of it.
    ///
    /// # Errors
    ///
    /// It has no room for the question, which is to be asked again.
    pub fn ask_whether_closed(&mut self) -> Result<Option<BorrowedFd<'_>>, Errno> {
        if !self.has_given_up || !self.queue.is_empty() {
            return Ok(None);
        }
        self.barrier = match self.ask() {
            Err(errno) if passes(errno) => return Err(errno),
            asked => asked.ok(),
        };
        self.has_given_up = false;
        Ok(self.barrier.as_ref().map(AsFd::as_fd))
    }

    /// Whether it has not closed them yet.
    pub fn is_closing(&mut self) -> bool {
        let is_closed = |barrier: &OwnedFd| {
            let mut asked = [PollFd::new(barrier.as_fd(), PollFlags::empty())];
            poll(&mut asked, PollTimeout::ZERO) != Ok(0)
        };
        if self.barrier.as_ref().is_some_and(is_closed) {
            self.barrier = None;
        }
        self.barrier.is_some()
    }

    /// No longer waits for that.
    pub fn stop_waiting(&mut self) {
        self.barrier = None;
    }

    /// Sends `BARRIER=1`: the keeper closes the other end when it has done what it was told before.
    fn ask(&self) -> Result<OwnedFd, Errno> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        self.message("BARRIER=1", &[theirs.as_fd()])?;
        Ok(ours)
    }

    /// One datagram, which goes as a whole or not at all.
    fn message(&self, text: &str, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let bytes = [IoSlice::new(text.as_bytes())];
        sendmsg(
            self.socket.as_raw_fd(),
            &bytes,
            rights,
            flags,
            Some(&self.to),
        )
        .map(drop)
    }
}

/// Whether a message is to be sent again. The last: more descriptors are on their way than the user may have
/// open (unix(7)).
fn passes(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR | Errno::ETOOMANYREFS
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::cmsg_space;
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
    use nix::sys::socket::{ControlMessageOwned, recvmsg};
    use std::fs::File;
    use std::io::IoSliceMut;
    use std::os::fd::{AsFd, RawFd};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn pair(test: &str) -> (UnixDatagram, Keeper) {
        let name = format!("listend-keeper-{}-{test}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("bind");
        socket.set_nonblocking(true).expect("fcntl");
        let keeper = Keeper::at(format!("@{name}").as_bytes(), 16_384).expect("a keeper");
        (socket, keeper)
    }

    fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
        let mut bytes = [0; 4096];
        let mut space = cmsg_space!([RawFd; MOST_PER_MESSAGE]);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let got = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags);
        let got = match got {
            Ok(got) => got,
            Err(Errno::EAGAIN) => return None,
            Err(errno) => panic!("recvmsg: {errno}"),
        };
        let mut fds = Vec::new();
        for message in got.cmsgs().expect("whole messages") {
            if let ControlMessageOwned::ScmRights(numbers) = message {
                fds.extend(numbers);
            }
        }
        let length = got.bytes;
        let text = String::from_utf8(bytes[..length].to_vec()).expect("UTF-8");
        Some((
            text,
            fds.into_iter()
                .map(crate::sys::take_descriptor)
                .map(|fd| fd.expect("open"))
                .collect(),
        ))
    }

    #[test]
    fn many_descriptors_go_in_few_messages_and_arrive_in_order() {
        let (socket, mut keeper) = pair("many");
        let file = File::open("/dev/null").expect("open");
        keeper.add(Name::Sockets(7));
        keeper.remove(Name::Process(1));
        let left = keeper.send(|name| match name {
            Name::Sockets(7) => vec![file.as_fd(); 600],
            other => panic!("{other} is not added"),
        });
        assert_eq!(left, Ok(false));
        let mut counts = Vec::new();
        while let Some((text, fds)) = receive(&socket) {
            counts.push((text, fds.len()));
        }
        let add = "FDSTORE=1\nFDNAME=l.7\nFDPOLL=0".to_owned();
        let remove = "FDSTOREREMOVE=1\nFDNAME=p.1".to_owned();
        assert_eq!(
            counts,
            [
                (add.clone(), 253),
                (add.clone(), 253),
                (add, 94),
                (remove, 0)
            ]
        );
    }

    #[test]
    fn it_is_known_whether_a_keeper_that_has_no_room_reads() {
        let (socket, mut keeper) = pair("reads");
        let file = File::open("/dev/null").expect("open");
        for id in 0..2000 {
            keeper.add(Name::Process(id));
        }
        for takes in [true, false] {
            assert_eq!(keeper.send(|_| vec![file.as_fd()]), Ok(true));
            assert_eq!(keeper.takes(), takes);
        }
        assert!(receive(&socket).is_some());
        assert_eq!(keeper.send(|_| vec![file.as_fd()]), Ok(true));
        assert!(keeper.takes());
    }

    #[test]
    fn what_a_keeper_does_not_read_is_sent_later_and_nothing_waits() {
        let (socket, mut keeper) = pair("later");
        let file = File::open("/dev/null").expect("open");
        for id in 0..2000 {
            keeper.add(Name::Process(id));
        }
        assert_eq!(keeper.send(|_| vec![file.as_fd()]), Ok(true));
        keeper.remove(Name::Process(1999));
        let mut texts = Vec::new();
        loop {
            while let Some((text, _)) = receive(&socket) {
                texts.push(text);
            }
            if keeper.send(|_| vec![file.as_fd()]) == Ok(false) {
                break;
            }
        }
        while let Some((text, _)) = receive(&socket) {
            texts.push(text);
        }
        let wanted: Vec<String> = (0..1999)
            .map(|id| format!("FDSTORE=1\nFDNAME=p.{id:x}\nFDPOLL=0"))
            .collect();
        assert_eq!(texts, wanted);
    }

    /// What a keeper has that keeps so many and closes the others, as systemd does.
    #[derive(Default)]
    struct Keeps {
        all: Vec<(String, usize)>,
        most: usize,
        closed: usize,
    }

    impl Keeps {
        fn read(&mut self, socket: &UnixDatagram) {
            while let Some((text, fds)) = receive(socket) {
                let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
                let name = name.expect("a name").to_owned();
                if text.starts_with("FDSTOREREMOVE") {
                    self.all.retain(|(one, _)| *one != name);
                    continue;
                }
                let count: usize = self.all.iter().map(|(_, count)| count).sum();
                let kept = fds.len().min(self.most - count);
                self.closed += fds.len() - kept;
                self.all.push((name, kept));
            }
            self.all.sort();
        }

        fn has(&self, wanted: &[(&str, usize)]) {
            let all: Vec<_> = self.all.iter().map(|(name, n)| (&**name, *n)).collect();
            assert_eq!(all, wanted);
            assert_eq!(self.closed, 0);
        }
    }

    #[test]
    fn what_matters_most_is_kept_where_not_everything_can_be() {
        let (socket, mut keeper) = pair("room");
        keeper.most = 6;
        let mut keeps = Keeps {
            most: 6,
            ..Keeps::default()
        };
        let file = File::open("/dev/null").expect("open");
        let mut many = 2;
        let send = |keeper: &mut Keeper, many: usize| {
            let sent = keeper.send(|name| match name {
                Name::Sockets(_) => vec![file.as_fd(); many],
                Name::Process(_) => vec![file.as_fd(); 2],
                _ => vec![file.as_fd()],
            });
            assert_eq!(sent, Ok(false));
        };
        for name in [Name::Process(1), Name::Process(2), Name::Process(3)] {
            keeper.add(name);
        }
        send(&mut keeper, many);
        keeps.read(&socket);
        keeps.has(&[("p.1", 2), ("p.2", 2), ("p.3", 2)]);
        // Nothing that was sent before is in the way of a socket.
        for name in [Name::Control, Name::Sockets(0), Name::Snapshot] {
            keeper.add(name);
        }
        send(&mut keeper, many);
        keeps.read(&socket);
        keeps.has(&[
            ("l.0", 2),
            ("listend-control", 1),
            ("listend-snapshot", 1),
            ("p.1", 2),
        ]);
        assert_eq!(
            keeper.refused(),
            Refused {
                sockets: 0,
                others: 4
            }
        );
        // What has ended makes room; what is not there is not taken back.
        keeper.remove(Name::Process(1));
        keeper.remove(Name::Process(3));
        send(&mut keeper, many);
        keeps.read(&socket);
        keeps.has(&[
            ("l.0", 2),
            ("listend-control", 1),
            ("listend-snapshot", 1),
            ("p.2", 2),
        ]);
        assert_eq!(keeper.refused(), Refused::default());
        // More sockets than there is room for.
        many = 4;
        keeper.add(Name::Sockets(1));
        send(&mut keeper, many);
        keeps.read(&socket);
        keeps.has(&[("l.0", 2), ("l.1", 3), ("listend-snapshot", 1)]);
        assert_eq!(
            keeper.refused(),
            Refused {
                sockets: 1,
                others: 3
            }
        );
        keeper.remove(Name::Sockets(0));
        send(&mut keeper, many);
        keeps.read(&socket);
        keeps.has(&[("l.1", 4), ("listend-control", 1), ("listend-snapshot", 1)]);
    }

    #[test]
    fn what_an_earlier_listend_had_kept_counts() {
        let (socket, mut keeper) = pair("earlier");
        keeper.most = 4;
        // All of it comes from an upgrade, and not all is kept.
        let processes = [3, 2, 2, 1].map(Name::Process);
        keeper.has(
            processes
                .into_iter()
                .chain([Name::Snapshot, Name::Connection(1)]),
        );
        assert_eq!(
            keeper.refused(),
            Refused {
                sockets: 0,
                others: 1
            }
        );
        let file = File::open("/dev/null").expect("open");
        keeper.remove(Name::Process(2));
        assert_eq!(keeper.send(|_| vec![file.as_fd()]), Ok(false));
        let texts: Vec<String> = std::iter::from_fn(|| receive(&socket))
            .map(|(text, _)| text)
            .collect();
        assert_eq!(
            texts,
            [
                "FDSTOREREMOVE=1\nFDNAME=p.2",
                "FDSTORE=1\nFDNAME=p.3\nFDPOLL=0"
            ]
        );
    }

    #[test]
    fn a_part_of_what_an_earlier_listend_had_kept_counts() {
        let (_socket, mut keeper) = pair("part");
        keeper.most = 3;
        keeper.has([Name::Process(1), Name::Process(2), Name::Process(2)]);
        keeper.has([Name::Process(2)]);
        assert_eq!(keeper.kept.get(&Name::Process(2)), Some(&2));
        assert_eq!(keeper.count, 3);
        assert_eq!(keeper.refused().others, 1);
    }

    #[test]
    fn what_was_not_kept_is_not_taken_back() {
        let (socket, mut keeper) = pair("not-kept");
        keeper.most = 0;
        let file = File::open("/dev/null").expect("open");
        for _ in 0..2 {
            keeper.add(Name::Process(1));
            assert_eq!(keeper.send(|_| vec![file.as_fd()]), Ok(false));
        }
        assert!(receive(&socket).is_none());
        assert_eq!(keeper.refused().others, 1);
    }

    #[test]
    fn who_waits_has_everything_sent_before_the_barrier() {
        let (socket, mut keeper) = pair("full");
        // More than a socket holds (net.unix.max_dgram_qlen).
        for number in 0..10_000 {
            keeper.remove(Name::Process(number));
        }
        let waited = keeper.settle(Duration::from_millis(1));
        assert_eq!(waited, Err(Errno::ETIMEDOUT));
        assert!(!keeper.is_idle());
        while let Some((text, _)) = receive(&socket) {
            assert!(text.starts_with("FDSTOREREMOVE=1"), "{text}");
        }
    }

    #[test]
    fn who_waits_goes_on_when_the_keeper_has_closed_the_barrier() {
        let (socket, mut keeper) = pair("barrier");
        keeper.remove(Name::Sockets(3));
        let patience = Duration::from_secs(30);
        let waits = std::thread::spawn(move || keeper.settle(patience));
        let mut texts = Vec::new();
        while texts.len() < 2 {
            texts.extend(receive(&socket).map(|(text, _closed)| text));
        }
        assert_eq!(texts, ["FDSTOREREMOVE=1\nFDNAME=l.3", "BARRIER=1"]);
        assert_eq!(waits.join().expect("no panic"), Ok(()));
        let (_socket, mut keeper) = pair("no-barrier");
        let waited = keeper.settle(Duration::from_millis(1));
        assert_eq!(waited, Err(Errno::ETIMEDOUT));
    }

    /// Whether it was asked now.
    #[track_caller]
    fn asked(keeper: &mut Keeper) -> bool {
        keeper.ask_whether_closed().expect("room").is_some()
    }

    #[test]
    fn a_keeper_without_room_for_the_question_is_asked_again() {
        let (socket, mut keeper) = pair("no-room");
        keeper.remove(Name::Sockets(3));
        assert_eq!(keeper.send(|_| Vec::new()), Ok(false));
        // As many as a socket holds (net.unix.max_dgram_qlen).
        while keeper.message("STATUS=", &[]).is_ok() {}
        assert_eq!(keeper.ask_whether_closed().err(), Some(Errno::EAGAIN));
        assert!(!keeper.is_closing());
        while receive(&socket).is_some() {}
        assert!(asked(&mut keeper));
        assert!(keeper.is_closing());
    }

    #[test]
    fn a_copy_that_a_child_has_does_not_tell_for_ever_that_sockets_are_closed() {
        let (socket, mut keeper) = pair("copy");
        keeper.remove(Name::Sockets(3));
        assert_eq!(keeper.send(|_| Vec::new()), Ok(false));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
        let closed = keeper.ask_whether_closed().expect("room").expect("asked");
        let _copy = closed.try_clone_to_owned().expect("dup");
        let event = EpollEvent::new(HANGS_UP, 0);
        epoll.add(closed, event).expect("watch");
        while receive(&socket).is_some() {}
        assert!(!keeper.is_closing());
        let mut events = [EpollEvent::empty()];
        let mut told = || epoll.wait(&mut events, EpollTimeout::ZERO);
        assert_eq!((told(), told()), (Ok(1), Ok(0)));
    }

    #[test]
    fn a_keeper_is_asked_once_whether_sockets_are_closed() {
        let (socket, mut keeper) = pair("asked");
        let file = File::open("/dev/null").expect("open");
        keeper.add(Name::Sockets(3));
        keeper.remove(Name::Process(1));
        assert_eq!(keeper.send(|_| vec![file.as_fd()]), Ok(false));
        assert!(!asked(&mut keeper));
        keeper.remove(Name::Sockets(3));
        // It is not told yet.
        assert!(!asked(&mut keeper));
        assert_eq!(keeper.send(|_| Vec::new()), Ok(false));
        assert!(asked(&mut keeper));
        assert!(!asked(&mut keeper));
        assert!(keeper.is_closing());
        let mut last = None;
        while let Some(message) = receive(&socket) {
            last = Some(message);
        }
        let (text, fds) = last.expect("messages");
        assert_eq!(text, "BARRIER=1");
        assert!(keeper.is_closing());
        drop(fds);
        assert!(!keeper.is_closing());
    }

    #[test]
    fn a_keeper_that_is_gone_is_an_error() {
        let (socket, mut keeper) = pair("gone");
        drop(socket);
        keeper.remove(Name::Process(1));
        assert_eq!(keeper.send(|_| Vec::new()), Err(Errno::ECONNREFUSED));
    }
}
