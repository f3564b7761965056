//! A client of the control socket that knows nothing but varlink: JSON texts, each ended by a NUL.

use super::{World, client, eventually};
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A connection.
pub struct Varlink {
    stream: UnixStream,
    /// What came behind the last reply.
    rest: Vec<u8>,
}

/// Where the daemon of this world is asked, if it was started with [`run`].
pub fn path(world: &World) -> PathBuf {
    world.path("control.sock")
}

/// The words for `World::run_with`.
pub fn words(world: &World) -> [String; 2] {
    let path = path(world).to_str().expect("UTF-8").to_owned();
    ["--control".to_owned(), path]
}

/// `listend run` with this YAML, and a control socket.
pub fn run(world: &World, yaml: &str) -> super::Daemon {
    let words = words(world);
    world.run_with(yaml, |start| {
        start.words_behind(words.iter().map(String::as_str));
    })
}

impl Varlink {
    /// Connects to the daemon of this world as soon as it can be asked.
    #[track_caller]
    pub fn connect(world: &World) -> Varlink {
        Varlink::to(&path(world))
    }

    /// Connects to a daemon as soon as it can be asked.
    #[track_caller]
    pub fn to(path: &Path) -> Varlink {
        let mut stream = None;
        eventually("somebody can be asked", || {
            stream = client::unix(path).ok();
            stream.is_some()
        });
        Varlink {
            stream: stream.expect("connected"),
            rest: Vec::new(),
        }
    }

    /// Waits so long for each reply.
    pub fn patient(self, time: Duration) -> Varlink {
        self.stream
            .set_read_timeout(Some(time))
            .expect("a time limit");
        self
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a call with these members besides the method, which is of listend's own interface if
    /// it has no dot.
    #[track_caller]
    pub fn call_with(&mut self, method: &str, parameters: Value, others: Value) {
        let method = match method.contains('.') {
            true => method.to_owned(),
            false => format!("io.listend.Manager.{method}"),
        };
        let mut call = json!({ "method": method, "parameters": parameters });
        for (name, value) in others.as_object().expect("members") {
            call[name] = value.clone();
        }
        let mut frame = call.to_string().into_bytes();
        frame.push(0);
        self.send(&frame).expect("send a call");
    }

    /// The next reply; `None` at the end.
    #[track_caller]
    pub fn next(&mut self) -> Option<Value> {
        let mut bytes = vec![0; 1 << 16];
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == 0) {
                let frame: Vec<u8> = self.rest.drain(..=at).collect();
                let reply = serde_json::from_slice(&frame[..at]);
                return Some(reply.expect("a reply is JSON"));
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.rest.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                // With a time limit, recv(2) is not restarted after a SIGSTOP and SIGCONT (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("no reply in time: {error}"),
            }
        }
    }

    /// One call and its reply.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.call_with(method, parameters, json!({}));
        self.next().expect("a reply")
    }

    /// What a call that succeeds replies.
    #[track_caller]
    pub fn ask(&mut self, method: &str, parameters: Value) -> Value {
        let mut reply = self.call(method, parameters);
        assert!(reply["error"].is_null(), "{method}: {reply}");
        reply["parameters"].take()
    }

    /// The name of the error that a call replies, and its parameters.
    #[track_caller]
    pub fn error(&mut self, method: &str, parameters: Value) -> (String, Value) {
        let mut reply = self.call(method, parameters);
        let name = reply["error"].as_str().unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or_default().to_owned();
        assert!(!name.is_empty(), "{method}: {reply}");
        (name, reply["parameters"].take())
    }

    /// All replies to a call with `more`, up to the one that does not continue.
    #[track_caller]
    pub fn more(&mut self, method: &str, parameters: Value) -> Vec<Value> {
        self.call_with(method, parameters, json!({ "more": true }));
        let mut replies = Vec::new();
        loop {
            let reply = self.next().expect("a reply");
            let continues = reply["continues"] == true;
            replies.push(reply);
            if !continues {
                return replies;
            }
        }
    }

    /// Waits for the other side to close; what it said before.
    #[track_caller]
    pub fn end(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next()).collect()
    }
}
