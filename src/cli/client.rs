//! The client's end of the control socket.

use super::exit::Exit;
use super::output;
use super::socket::default_path;
use crate::control::INTERFACE;
use crate::listener;
use crate::report::reason;
use crate::sys::{self, SharedFd};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, getsockopt, sendmsg};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Map, Value, json};
use socket2::{Domain, Socket, Type};
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time in which a daemon has to answer a request that takes no time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A reply may be as long as the configuration of the daemon makes it, and a listener has some
/// hundred bytes in it. What is longer is no daemon's.
const MAX_REPLY: usize = 256 << 20;

/// The time to wait for the next reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Half a minute.
    Patiently,
    /// Without a limit; the daemon waits for something itself.
    ForEver,
    /// At most so long.
    AtMost(Duration),
    /// Not at all: what has not come yet is left to poll(2).
    Never,
}

/// What most methods take the name of.
const WORKER: &str = "worker";

/// Why the daemon was not asked, or did not do it.
#[derive(Debug)]
pub enum Failure {
    /// There is no default path for this user.
    NoPath(String),
    /// No daemon answers at the path.
    NoDaemon(PathBuf, io::Error),
    /// The socket's permissions keep us out.
    NoEntry(PathBuf),
    /// The daemon closed the connection, or did not answer in time.
    Broken(PathBuf, io::Error),
    /// The daemon closed the connection over which it told what happens.
    Ended(PathBuf),
    /// The reply is not of the protocol.
    Protocol(PathBuf, String),
    /// The daemon answered with an error.
    Denied(Denied),
}

/// An error that the daemon answered with.
#[derive(Debug, Clone, PartialEq)]
pub struct Denied {
    /// The name of the error, with its interface.
    pub error: String,
    /// The parameters of the error.
    pub parameters: Map<String, Value>,
    /// What the method that was called takes the name of.
    subject: &'static str,
}

/// The members of a reply. Unknown ones are ignored, as varlink requires.
#[derive(Deserialize)]
struct Members<T> {
    parameters: Option<T>,
    continues: Option<bool>,
    error: Option<String>,
}

/// A reply that is no error.
#[derive(Debug)]
pub struct Answer<T> {
    /// The parameters of the reply.
    pub of: T,
    /// Whether this is the last reply.
    pub is_last: bool,
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    socket: BufReader<UnixStream>,
    path: PathBuf,
    /// The part of the next reply that has been received.
    received: Vec<u8>,
    /// What the last method takes the name of.
    subject: &'static str,
}

impl Client {
    /// Connects to the daemon at the path, or at the default one.
    ///
    /// # Errors
    ///
    /// [`Failure`], of which only the first three.
    pub fn connect(control: Option<&Path>, wait: Wait) -> Result<Client, Failure> {
        let path = match control {
            Some(path) => path.to_owned(),
            None => default_path().map_err(Failure::NoPath)?,
        };
        match open(&path, wait) {
            Ok(socket) => Ok(Client::over(socket, path)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Err(Failure::NoEntry(path))
            }
            Err(error) => Err(Failure::NoDaemon(path, error)),
        }
    }

    /// A connection that the daemon has given to this process.
    ///
    /// # Errors
    ///
    /// [`Failure::Broken`].
    pub fn inherited(socket: OwnedFd, wait: Wait) -> Result<Client, Failure> {
        let mut client = Client::over(socket.into(), PathBuf::from("the other end"));
        client.wait(wait)?;
        Ok(client)
    }

    fn over(socket: UnixStream, path: PathBuf) -> Client {
        Client {
            socket: BufReader::with_capacity(65_536, socket),
            path,
            received: Vec::new(),
            subject: WORKER,
        }
    }

    /// Asks, and takes the one reply there is.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub fn ask<T: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: &Value,
    ) -> Result<T, Failure> {
        self.send(method, parameters, false)?;
        Ok(self.next()?.of)
    }

    /// Asks what every varlink service answers.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub fn ask_service<T: DeserializeOwned>(&mut self, method: &str) -> Result<T, Failure> {
        let method = format!("org.varlink.service.{method}");
        self.call(&json!({ "method": method }))?;
        Ok(self.next()?.of)
    }

    /// Asks. With `more` the daemon may answer several times.
    ///
    /// # Errors
    ///
    /// [`Failure::Broken`].
    pub fn send(&mut self, method: &str, parameters: &Value, more: bool) -> Result<(), Failure> {
        self.subject = match method {
            "Status" => "worker or listener",
            "TakeListener" => "listener",
            _ => WORKER,
        };
        let method = format!("{INTERFACE}.{method}");
        let mut call = json!({ "method": method, "parameters": parameters });
        if more {
            call["more"] = Value::Bool(true);
        }
        self.call(&call)
    }

    /// Asks for one reply, and sends descriptors with the call.
    ///
    /// # Errors
    ///
    /// [`Failure::Broken`].
    pub fn send_with(
        &mut self,
        method: &str,
        parameters: &Value,
        descriptors: &[OwnedFd],
    ) -> Result<(), Failure> {
        let call = json!({ "method": format!("{INTERFACE}.{method}"), "parameters": parameters });
        let frame = call.to_string().into_bytes();
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let socket = self.socket.get_ref().as_raw_fd();
        let part = [IoSlice::new(&frame)];
        let sent = sendmsg::<UnixAddr>(socket, &part, &rights, MsgFlags::MSG_NOSIGNAL, None);
        let sent = sent.map_err(io::Error::from);
        let rest = sent.and_then(|sent| {
            let rest = [frame.get(sent..).unwrap_or_default(), &[0]].concat();
            self.socket.get_mut().write_all(&rest)
        });
        rest.map_err(|error| self.broken(error))
    }

    fn call(&mut self, call: &Value) -> Result<(), Failure> {
        let mut frame = call.to_string().into_bytes();
        frame.push(0);
        let sent = self.socket.get_mut().write_all(&frame);
        // A daemon that refuses the connection may have said why before it closed it.
        match sent {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(self.broken(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Sets the time that [`Client::next`] waits.
    ///
    /// # Errors
    ///
    /// [`Failure::Broken`].
    pub fn wait(&mut self, wait: Wait) -> Result<(), Failure> {
        apply(self.socket.get_ref(), wait).map_err(|error| self.broken(error))
    }

    /// The next reply.
    ///
    /// # Errors
    ///
    /// [`Failure`], of which none of the first three.
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Answer<T>, Failure> {
        match self.poll()? {
            Some(answer) => Ok(answer),
            None => Err(self.broken(ErrorKind::TimedOut.into())),
        }
    }

    /// The next reply, if it came in time.
    ///
    /// # Errors
    ///
    /// [`Failure`], of which none of the first three.
    pub fn poll<T: DeserializeOwned>(&mut self) -> Result<Option<Answer<T>>, Failure> {
        match self.frame() {
            Ok(Some(frame)) => self.understand(&self.text(frame)?).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// The parameters of the next reply, and all of it as it came.
    ///
    /// # Errors
    ///
    /// As for [`Client::next`].
    pub fn next_with_text<T: DeserializeOwned>(&mut self) -> Result<(T, String), Failure> {
        match self.frame() {
            Ok(Some(frame)) => {
                let text = self.text(frame)?;
                Ok((self.understand(&text)?.of, text))
            }
            Ok(None) => Err(self.broken(ErrorKind::TimedOut.into())),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// The next reply, and the descriptors that come with it, behind those that are there. To be used for
    /// each reply of a connection, or for none.
    ///
    /// # Errors
    ///
    /// [`Failure`], of which none of the first three.
    pub fn next_with<T: DeserializeOwned>(
        &mut self,
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<Answer<T>, Failure> {
        let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::NONE);
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == 0) {
                let rest = self.received.split_off(end + 1);
                let mut frame = std::mem::replace(&mut self.received, rest);
                frame.pop();
                return self.understand(&self.text(frame)?);
            }
            let received = self.receive(limit);
            let (bytes, passed) = received.map_err(|error| self.broken(error))?;
            if bytes.is_empty() {
                return Err(self.broken(ErrorKind::UnexpectedEof.into()));
            }
            self.received.extend(bytes);
            descriptors.extend(passed);
        }
    }

    fn receive(&mut self, limit: PollTimeout) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut polled = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        if poll(&mut polled, limit)? == 0 {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut buffer = vec![0; 65_536];
        let received = sys::receive_datagram(self.as_fd(), &mut buffer, true)?;
        if received.is_truncated {
            return Err(Errno::EMFILE.into());
        }
        buffer.truncate(received.length);
        let passed = received.descriptors.into_iter();
        Ok((buffer, passed.map(SharedFd::into_owned).collect()))
    }

    fn text(&self, frame: Vec<u8>) -> Result<String, Failure> {
        let text = String::from_utf8(frame);
        text.map_err(|error| self.misunderstood(&serde_json::Error::custom(error)))
    }

    fn understand<T: DeserializeOwned>(&self, frame: &str) -> Result<Answer<T>, Failure> {
        let parse = |error| self.misunderstood(&error);
        // In one go, and not into a tree first: the status of thousands is megabytes.
        let read: serde_json::Result<Members<T>> = serde_json::from_str(frame);
        let members = match read {
            Ok(members) if members.error.is_none() => members,
            // The parameters of an error are others.
            read => {
                let members: Members<Value> = serde_json::from_str(frame).map_err(parse)?;
                if let Some(error) = members.error {
                    let parameters = members.parameters.as_ref().and_then(Value::as_object);
                    let parameters = parameters.cloned().unwrap_or_default();
                    return Err(Failure::Denied(Denied {
                        error,
                        parameters,
                        subject: self.subject,
                    }));
                }
                read.map_err(parse)?
            }
        };
        let of = match members.parameters {
            Some(of) => of,
            None => serde_json::from_value(json!({})).map_err(parse)?,
        };
        Ok(Answer {
            of,
            is_last: members.continues != Some(true),
        })
    }

    /// The next frame, without its NUL.
    fn frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let room = MAX_REPLY.saturating_sub(self.received.len());
        let mut reader = self.socket.by_ref().take(room as u64);
        match reader.read_until(0, &mut self.received) {
            Ok(_) if self.received.last() == Some(&0) => {
                self.received.pop();
                Ok(Some(std::mem::take(&mut self.received)))
            }
            Ok(_) if self.received.len() >= MAX_REPLY => {
                let long = "the reply does not end";
                Err(io::Error::new(ErrorKind::InvalidData, long))
            }
            Ok(_) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The failure of a reply whose parameters cannot be read.
    pub fn misunderstood(&self, error: &serde_json::Error) -> Failure {
        Failure::Protocol(self.path.clone(), error.to_string())
    }

    /// The failure of a reply that not all descriptors came with.
    pub fn lost_descriptors(&self, promised: usize, came: usize) -> Failure {
        let why = format!("it promised {promised} descriptors, and {came} came");
        Failure::Protocol(self.path.clone(), why)
    }

    fn broken(&self, error: io::Error) -> Failure {
        Failure::Broken(self.path.clone(), error)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

/// What to do about a daemon that does not answer.
fn what_it_does(path: &Path) -> String {
    // Who has called listen(2) (unix(7)); connect(2) needs no answer.
    let peer = open(path, Wait::Never).and_then(|socket| Ok(getsockopt(&socket, PeerCredentials)?));
    let Ok(peer) = peer else {
        return "look at its log".to_owned();
    };
    let pid = peer.pid();
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
    match stat.map(|stat| stat.state) {
        Ok('T' | 't') => {
            format!("process {pid} is stopped: `kill -CONT {pid}` has it go on")
        }
        Ok(state) => {
            format!("look at its log, and at what process {pid} does (state {state}, as in ps(1))")
        }
        Err(_) => "look at its log".to_owned(),
    }
}

/// connect(2) waits for room in the queue of the daemon, for as long as a send may wait.
fn open(path: &Path, wait: Wait) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let socket = UnixStream::from(OwnedFd::from(socket));
    apply(&socket, wait)?;
    listener::connect_to(&socket, path)?;
    Ok(socket)
}

fn apply(socket: &UnixStream, wait: Wait) -> io::Result<()> {
    let limit = match wait {
        Wait::Patiently => Some(PATIENCE),
        Wait::AtMost(limit) => Some(limit),
        Wait::ForEver | Wait::Never => None,
    };
    socket.set_nonblocking(wait == Wait::Never)?;
    socket.set_read_timeout(limit)?;
    // Calls are short; a daemon that does not take one in this time never will.
    socket.set_write_timeout(limit.or(Some(PATIENCE)))
}

impl Denied {
    /// What a daemon answers that has no worker of this name.
    pub fn no_worker(name: &str) -> Denied {
        let parameters = Map::from_iter([("name".to_owned(), name.into())]);
        Denied {
            error: format!("{INTERFACE}.NoSuchThing"),
            parameters,
            subject: WORKER,
        }
    }

    fn parameter(&self, name: &str) -> &str {
        self.parameters
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or("?")
    }

    /// The message and the hint.
    fn words(&self) -> (String, Option<String>) {
        let (_, error) = self.error.rsplit_once('.').unwrap_or(("", &self.error));
        match error {
            "NoSuchThing" => {
                let name = self.parameter("name");
                let suggestion = self.parameters.get("suggestion").and_then(Value::as_str);
                let hint = match suggestion {
                    Some(other) => format!("did you mean `{other}`?"),
                    None => "`listend status` lists what there is".to_owned(),
                };
                (
                    format!("no {} is called `{name}` here", self.subject),
                    Some(hint),
                )
            }
            "Refused" | "Failed" => (self.parameter("reason").to_owned(), None),
            "NotReloaded" => {
                let rendered = self.parameter("rendered").trim_end();
                (format!("{}\n{rendered}", self.parameter("reason")), None)
            }
            "PermissionDenied" => (
                "the daemon does not permit this".to_owned(),
                Some(
                    "root and the user of the daemon may do everything, the group of its control \
                     socket may only query it"
                        .to_owned(),
                ),
            ),
            "InvalidParameter" => (
                format!(
                    "the daemon does not accept this value of `{}`",
                    self.parameter("parameter")
                ),
                None,
            ),
            "MethodNotFound" | "MethodNotImplemented" | "InterfaceNotFound" => (
                "the daemon cannot do this".to_owned(),
                Some("its version may differ from that of this command".to_owned()),
            ),
            _ => {
                let mut words = format!("the daemon answered with {}", self.error);
                if !self.parameters.is_empty() {
                    // Writing to a String does not fail.
                    let _written = write!(words, " {}", Value::from(self.parameters.clone()));
                }
                (words, None)
            }
        }
    }
}

impl Failure {
    /// The exit code of the command.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::NoPath(_)
            | Failure::NoDaemon(..)
            | Failure::Broken(..)
            | Failure::Ended(_) => Exit::Unavailable,
            Failure::NoEntry(_) => Exit::NotPermitted,
            Failure::Protocol(..) => Exit::Internal,
            Failure::Denied(denied) if denied.error.ends_with(".PermissionDenied") => {
                Exit::NotPermitted
            }
            Failure::Denied(_) => Exit::Refused,
        }
    }

    /// The same, where the daemon would have gone on telling what happens.
    pub fn of_followed(self) -> Failure {
        match self {
            Failure::Broken(path, error) if is_end(&error) => Failure::Ended(path),
            other => other,
        }
    }

    /// The message and the hint.
    pub fn words(&self) -> (String, Option<String>) {
        match self {
            Failure::NoPath(why) => (
                format!("there is no default path of the control socket: {why}"),
                Some("name the socket with `--control PATH`".to_owned()),
            ),
            Failure::NoDaemon(path, error) => {
                let why = match error.kind() {
                    ErrorKind::NotFound => "there is no such socket".to_owned(),
                    ErrorKind::ConnectionRefused => match path.metadata() {
                        Ok(found) if found.is_dir() => "it is a directory".to_owned(),
                        Ok(found) if !found.file_type().is_socket() => "it is no socket".to_owned(),
                        _ => "it is stale: nothing listens on it".to_owned(),
                    },
                    ErrorKind::WouldBlock => "it no longer accepts connections".to_owned(),
                    _ => reason(error),
                };
                (
                    format!("no daemon answers at {}: {why}", path.display()),
                    Some(
                        "start one with `listend run`, or name another socket with \
                         `--control PATH`"
                            .to_owned(),
                    ),
                )
            }
            Failure::NoEntry(path) => (
                format!("not permitted to connect to {}", path.display()),
                Some(
                    "root and the user of the daemon may, and the group of the socket if it has \
                     one"
                    .to_owned(),
                ),
            ),
            Failure::Broken(path, error) => {
                let why = match error.kind() {
                    _ if is_end(error) => "closed the connection before answering".to_owned(),
                    ErrorKind::TimedOut => {
                        format!("has been silent for {} seconds", PATIENCE.as_secs())
                    }
                    _ => format!("cannot be reached: {}", reason(error)),
                };
                let hint = match error.kind() {
                    ErrorKind::TimedOut => what_it_does(path),
                    _ => "check `listend status` and its log".to_owned(),
                };
                (
                    format!("the daemon at {} {why}", path.display()),
                    Some(hint),
                )
            }
            Failure::Ended(path) => (
                format!("the daemon at {} closed the connection", path.display()),
                Some(
                    "it has ended or was upgraded, or what it said was not read for too long"
                        .to_owned(),
                ),
            ),
            Failure::Protocol(path, why) => (
                format!("what answers at {} is not listend: {why}", path.display()),
                None,
            ),
            Failure::Denied(denied) => denied.words(),
        }
    }

    /// Says it, about `what` if that is one of several, and answers with what to end with.
    pub fn tell(&self, what: Option<&str>) -> Exit {
        let (words, hint) = self.words();
        let of = what.map_or(String::new(), |name| format!("{name}: "));
        output::complain(&format!("{of}{words}"));
        if let Some(hint) = hint {
            output::hint(&hint);
        }
        self.exit()
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_at_the_path_in_place_of_a_daemon_is_told() {
        let words = |path: &Path| {
            let error = open(path, Wait::Never).unwrap_err();
            Failure::NoDaemon(path.to_owned(), error).words().0
        };
        assert!(words(Path::new("/")).ends_with("it is a directory"));
        assert!(words(Path::new("/etc/passwd")).ends_with("it is no socket"));
        assert!(words(Path::new("/no/such")).ends_with("there is no such socket"));
    }

    #[test]
    fn a_daemon_that_is_silent_is_named() {
        let name = format!("listend-silent-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let daemon = UnixListener::bind(&path).unwrap();
        let own = std::process::id();
        let hint = what_it_does(&path);
        assert!(hint.contains(&format!("what process {own} does")), "{hint}");
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(what_it_does(&path), "look at its log");
    }
}
