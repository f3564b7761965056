//! The process that writes the files of `output: file:` for the workers of one user (`listend __write`).
//!
//! open(2) and write(2) take locks that whoever may open a folder or a file can hold for as long as he
//! likes, and a file system may not answer at all: then it is this process that waits, and not the loop.
//! It keeps no line back: an order is answered when it is carried out.

use crate::output::{Answer, LONGEST_ORDER, Order};
use crate::report::describe;
use crate::walk::{self, Output, Refused};
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Does what comes over the socket until its other end is closed, and all that came before is done.
///
/// # Errors
///
/// The socket is none.
pub fn serve(socket: &OwnedFd) -> io::Result<()> {
    // Who stops everything that belongs to a service or sits at a terminal stops listend, which has
    // lines to be written until its own end.
    SigSet::all().thread_block()?;
    let mut files = HashMap::new();
    let mut bytes = vec![0; LONGEST_ORDER];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let order = bytes.get(..length).and_then(Order::decode);
        let (answer, handle) = match order {
            Some(order) => carry_out(order, &mut files),
            None => (failed(Errno::EBADMSG, 0), None),
        };
        // Without the loop nobody wants to know, but the rest is still to be written.
        let _gone = tell(socket, &answer, handle.as_ref());
    }
}

fn carry_out(order: Order<'_>, files: &mut HashMap<u64, File>) -> (Answer, Option<OwnedFd>) {
    match order {
        Order::Open { file, user, path } => match walk::open_to_append(path, user) {
            Ok(Output::File(opened)) => {
                files.insert(file, opened);
            }
            Ok(Output::Special(handle)) => return (Answer::default(), Some(handle)),
            Err(refused) => {
                let answer = Answer {
                    words: cannot_open(path, &refused),
                    ..failed(refused.errno, 0)
                };
                return (answer, None);
            }
        },
        Order::Write { file, text } => {
            let answer = match files.get_mut(&file) {
                Some(file) => append(file, text),
                None => failed(Errno::EBADF, text.len()),
            };
            return (answer, None);
        }
        Order::Close { file } => {
            files.remove(&file);
        }
    }
    (Answer::default(), None)
}

fn append(file: &mut File, mut text: &[u8]) -> Answer {
    while !text.is_empty() {
        match file.write(text) {
            Ok(0) => return failed(Errno::EIO, text.len()),
            Ok(length) => text = text.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                return failed(errno, text.len());
            }
        }
    }
    Answer::default()
}

fn failed(errno: Errno, lost: usize) -> Answer {
    Answer {
        errno: errno as i32,
        lost: u32::try_from(lost).unwrap_or(u32::MAX),
        words: String::new(),
    }
}

fn tell(socket: &OwnedFd, answer: &Answer, handle: Option<&OwnedFd>) -> nix::Result<()> {
    let bytes = answer.encode();
    let data = [IoSlice::new(&bytes)];
    let numbers: Vec<_> = handle.iter().map(|handle| handle.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &data, control, flags, None).map(|_| ())
}

fn cannot_open(path: &Path, refused: &Refused) -> String {
    let errno = describe(refused.errno as i32);
    let denied = match refused.errno {
        Errno::EACCES => walk::denied(&refused.path),
        _ => None,
    };
    let words = match (refused.why, denied) {
        (None, Some(denied)) => format!("{errno}: {denied}"),
        (None, None) if refused.path == path => errno,
        (None, None) => format!("{}: {errno}", refused.path.display()),
        (Some(_), _) => refused.to_string(),
    };
    format!("cannot open {}: {words}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{passing_pair, receive_with_descriptor};
    use nix::sys::socket::send;
    use std::fs;

    struct Asker(OwnedFd);

    impl Asker {
        fn ask(&self, order: Order<'_>) -> (Answer, bool) {
            send(self.0.as_raw_fd(), &order.encode(), MsgFlags::empty()).unwrap();
            let mut bytes = [0; 1024];
            let none = MsgFlags::empty();
            let (length, handle) = receive_with_descriptor(&self.0, &mut bytes, none).unwrap();
            (Answer::decode(&bytes[..length]).unwrap(), handle.is_some())
        }

        fn write(&self, text: &str) -> Answer {
            let text = text.as_bytes();
            self.ask(Order::Write { file: 1, text }).0
        }
    }

    #[test]
    fn files_are_opened_again_on_request_and_kept_where_that_fails() {
        let folder = std::env::temp_dir().join(format!("listend-writer.{}", std::process::id()));
        let path = folder.join("log");
        fs::create_dir(&folder).unwrap();
        let (ours, theirs) = passing_pair().unwrap();
        let writer = std::thread::spawn(move || serve(&theirs).unwrap());
        let asker = Asker(ours);
        let open = || {
            asker.ask(Order::Open {
                file: 1,
                user: None,
                path: &path,
            })
        };
        let well = || (Answer::default(), false);
        assert_eq!(asker.write("none\n"), failed(Errno::EBADF, 5));
        assert_eq!(open(), well());
        assert_eq!(asker.write("one\n"), Answer::default());
        fs::rename(&path, folder.join("log.1")).unwrap();
        assert_eq!(asker.write("two\n"), Answer::default());
        assert_eq!(open(), well());
        assert_eq!(asker.write("three\n"), Answer::default());
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(
            (read("log.1").as_str(), read("log").as_str()),
            ("one\ntwo\n", "three\n")
        );
        fs::rename(&path, folder.join("log.2")).unwrap();
        fs::create_dir(&path).unwrap();
        let (answer, _) = open();
        assert_eq!(answer.errno, Errno::EISDIR as i32);
        assert!(answer.words.contains("EISDIR"), "{answer:?}");
        asker.write("four\n");
        fs::remove_dir(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(open(), (Answer::default(), true), "a handle on the FIFO");
        asker.write("five\n");
        assert_eq!(read("log.2"), "three\nfour\nfive\n");
        assert_eq!(asker.ask(Order::Close { file: 1 }), well());
        assert_eq!(asker.write("six\n"), failed(Errno::EBADF, 4));
        // What was asked before the end is done.
        open();
        drop(asker);
        writer.join().unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
