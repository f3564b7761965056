//! A daemon that is none: it speaks varlink, and a test tells it what to say.

use listend::control::{Access, Call, Error, Expects, Inbox, Reply, Request};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

/// What answers.
type Answer = dyn Fn(&Request, &mut Talk) + Send + Sync;

/// A connection on which a call waits for its replies.
pub struct Talk {
    stream: UnixStream,
    expects: Expects,
}

impl Talk {
    /// A reply that others follow.
    pub fn step(&mut self, parameters: &impl Serialize) {
        self.say(&Reply::continues(parameters));
    }

    /// The last reply.
    pub fn last(&mut self, parameters: &impl Serialize) {
        self.say(&Reply::last(parameters));
    }

    /// An error.
    pub fn error(&mut self, error: &Error) {
        self.say(&Reply::error(error));
    }

    /// No more replies: the connection ends.
    pub fn end(&mut self) {
        // The client may have gone.
        let _gone = self.stream.shutdown(Shutdown::Both);
    }

    fn say(&mut self, reply: &Reply) {
        if let Some(frame) = self.expects.frame(reply) {
            // The client may have gone; that is for its test to see.
            let _gone = self.stream.write_all(&[frame, &[0]].concat());
        }
    }
}

/// It stops answering at the end of the process; its socket goes with the folder.
pub struct StandIn {
    path: PathBuf,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl StandIn {
    /// Answers every call in this way, each connection on its own.
    pub fn listen(
        path: &Path,
        answer: impl Fn(&Request, &mut Talk) + Send + Sync + 'static,
    ) -> StandIn {
        let listener = UnixListener::bind(path).expect("bind the stand-in");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answer> = Arc::new(answer);
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("accept");
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        StandIn {
            path: path.to_owned(),
            requests,
        }
    }

    /// Its socket, for `--control`.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn serve(mut stream: UnixStream, seen: &Mutex<Vec<Request>>, answer: &Answer) {
    let mut inbox = Inbox::default();
    let mut chunk = [0; 4096];
    loop {
        while let Some(frame) = inbox.next_frame().expect("a short call") {
            let call = Call::read(&frame).expect("a call");
            let expects = call.expects;
            let stream = stream.try_clone().expect("dup");
            let mut talk = Talk { stream, expects };
            match Request::of(call, Access::Act) {
                Ok(request) => {
                    seen.lock().expect("no panic").push(request.clone());
                    answer(&request, &mut talk);
                }
                Err(error) => talk.error(&error),
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => inbox.receive(&chunk[..count]),
        }
    }
}
