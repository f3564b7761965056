//! A server that binds its address itself: `probe backend ADDRESS`. What it does with a connection is said in
//! the connection's first line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;

const STACK: usize = 256 * 1024;

trait Stream: Read + Write + Send {
    fn clone_of(&self) -> io::Result<Box<dyn Stream>>;
    fn end(&self);
    fn reset(&self);
}

impl Stream for TcpStream {
    fn clone_of(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }

    fn end(&self) {
        let _gone = self.shutdown(Shutdown::Write);
    }

    fn reset(&self) {
        let _gone = socket2::SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl Stream for UnixStream {
    fn clone_of(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }

    fn end(&self) {
        let _gone = self.shutdown(Shutdown::Write);
    }

    fn reset(&self) {}
}

/// Serves for ever.
pub fn run(words: &[String]) -> i32 {
    let [address] = words else {
        return 64;
    };
    let each = |stream: Box<dyn Stream>| {
        let thread = thread::Builder::new().stack_size(STACK);
        thread
            .spawn(move || {
                // A client that has gone is its own affair.
                let _gone = converse(stream);
            })
            .expect("a thread");
    };
    if let Some(path) = address.strip_prefix("unix:") {
        let _ = std::fs::remove_file(path);
        for stream in UnixListener::bind(path).expect("bind").incoming() {
            each(Box::new(stream.expect("accept")));
        }
    } else {
        for stream in TcpListener::bind(address).expect("bind").incoming() {
            each(Box::new(stream.expect("accept")));
        }
    }
    0
}

/// The pattern that is sent: it says of each byte where it belongs.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn converse(mut stream: Box<dyn Stream>) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.clone_of()?);
    reader.read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        // Everything back, until the end of it.
        ["echo"] => {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = reader.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                stream.write_all(&buffer[..count])?;
            }
            stream.end();
        }
        // An answer only after the end of the question.
        ["count"] => {
            let mut all = Vec::new();
            reader.read_to_end(&mut all)?;
            writeln!(stream, "{}", all.len())?;
        }
        // The end first, and then listens on; what it has heard is in a file.
        ["end", path] => {
            stream.end();
            let mut all = String::new();
            reader.read_to_string(&mut all)?;
            write_file(path, &all);
        }
        // So many bytes of the pattern, and the sum of what comes meanwhile.
        ["duplex", count] => {
            let count: u64 = count.parse().map_err(io::Error::other)?;
            let sum = Arc::new(std::sync::Mutex::new(0_u64));
            let theirs = Arc::clone(&sum);
            let sums = thread::spawn(move || -> io::Result<()> {
                let mut buffer = vec![0; 256 * 1024];
                let mut at = 0_u64;
                let mut wrong = 0;
                loop {
                    let count = reader.read(&mut buffer)?;
                    if count == 0 {
                        break;
                    }
                    for byte in &buffer[..count] {
                        wrong += u64::from(*byte != pattern(at));
                        at += 1;
                    }
                }
                // Both in one number: neither is near 2^40.
                *theirs.lock().expect("a lock") = at | wrong << 48;
                Ok(())
            });
            let mut buffer = vec![0; 256 * 1024];
            let mut at = 0;
            while at < count {
                let room = (count - at).min(buffer.len() as u64) as usize;
                for (offset, byte) in (at..).zip(&mut buffer[..room]) {
                    *byte = pattern(offset);
                }
                stream.write_all(&buffer[..room])?;
                at += room as u64;
            }
            sums.join().expect("the reader")?;
            let sum = *sum.lock().expect("a lock");
            stream.write_all(&sum.to_le_bytes())?;
            stream.end();
        }
        // Says something, and resets.
        ["reset"] => {
            stream.write_all(b"bye\n")?;
            stream.reset();
        }
        // Says nothing more; what its client does in the end is in a file.
        ["silent", path] => {
            stream.write_all(b"listening\n")?;
            let mut rest = Vec::new();
            let end = match reader.read_to_end(&mut rest) {
                Ok(_) => "end".to_owned(),
                Err(error) => format!("{:?}", error.kind()),
            };
            write_file(path, &end);
        }
        // Says a part, and dies.
        ["die"] => {
            stream.write_all(b"half an ans")?;
            stream.end();
            // SAFETY: nothing else of this process matters any more.
            unsafe { nix::libc::_exit(3) };
        }
        ["pid"] => writeln!(stream, "{}", std::process::id())?,
        ["fds"] => {
            let fds = std::fs::read_dir("/proc/self/fd")?;
            let links = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
            let links: Vec<String> = links.map(|link| link.display().to_string()).collect();
            writeln!(stream, "{}", links.join(" "))?;
        }
        ["env", name] => writeln!(stream, "{}", std::env::var(name).unwrap_or_default())?,
        // The PROXY protocol, or nothing that is known: back as it came.
        _ => {
            stream.write_all(line.as_bytes())?;
            io::copy(&mut reader, &mut stream)?;
            stream.end();
        }
    }
    Ok(())
}

fn write_file(path: &str, text: &str) {
    let beside = format!("{path}.new");
    std::fs::write(&beside, text).expect("write");
    std::fs::rename(&beside, path).expect("rename");
}
