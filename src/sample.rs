//! The sample worker, `listend hello-worker`: a small HTTP server that binds nothing.
//!
//! It takes its listeners with the crate `listenfd`, as any program may, and so shows all that a
//! worker has to do. One thread per client and one request per connection: an example, no server.

use listenfd::ListenFd;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;
use std::time::Duration;

/// A client that says nothing for this long is let go, so that it cannot hold up the others.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest request head that is read.
const LONGEST_HEAD: u64 = 64 * 1024;

/// Serves every inherited stream listener for ever.
///
/// # Errors
///
/// No listener was inherited, or one cannot be used.
pub fn run() -> io::Result<()> {
    let mut inherited = ListenFd::from_env();
    let mut listeners: Vec<Accept> = Vec::new();
    for index in 0..inherited.len() {
        // take_* look at the socket's family and type, and leave it to the next on a mismatch.
        // Another worker may have left O_NONBLOCK behind: listend clears it, others may not.
        if let Ok(Some(listener)) = inherited.take_tcp_listener(index) {
            listener.set_nonblocking(false)?;
            listeners.push(Box::new(move || {
                let (client, _) = listener.accept()?;
                client.set_read_timeout(Some(PATIENCE))?;
                client.set_write_timeout(Some(PATIENCE))?;
                Ok(Box::new(client))
            }));
        } else if let Ok(Some(listener)) = inherited.take_unix_listener(index) {
            listener.set_nonblocking(false)?;
            listeners.push(Box::new(move || {
                let (client, _) = listener.accept()?;
                client.set_read_timeout(Some(PATIENCE))?;
                client.set_write_timeout(Some(PATIENCE))?;
                Ok(Box::new(client))
            }));
        }
    }
    let Some(first) = listeners.pop() else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no stream listener was inherited; start it from listend, for example with \
             `listend exec -l web=127.0.0.1:8080 -- listend hello-worker`",
        ));
    };
    for accept in listeners {
        thread::Builder::new().spawn(move || serve(accept.as_ref()))?;
    }
    serve(first.as_ref())
}

/// A connected client of any family.
trait Client: Read + Write + Send {}
impl<T: Read + Write + Send> Client for T {}

/// Waits for the next client of one listener.
type Accept = Box<dyn Fn() -> io::Result<Box<dyn Client>> + Send>;

/// Answers the clients of one listener, each in a thread, so that a silent one holds up nobody.
fn serve(accept: &(dyn Fn() -> io::Result<Box<dyn Client>> + Send)) -> io::Result<()> {
    loop {
        match accept() {
            Ok(client) => {
                let answered = thread::Builder::new().spawn(move || answer(client));
                if let Err(error) = answered {
                    log::warn!("hello-worker: no thread for a client: {error}");
                }
            }
            Err(error) if is_the_clients_fault(&error) => {}
            Err(error) => {
                log::error!("hello-worker: cannot accept clients: {error}");
                return Err(error);
            }
        }
    }
}

/// accept(2): network errors that were pending on the new socket are to be retried.
fn is_the_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    ) || error.raw_os_error() == Some(nix::libc::EPROTO)
}

/// Reads one request head, and answers it. A client that goes away is its own affair.
fn answer(mut client: Box<dyn Client>) -> io::Result<()> {
    let mut lines = BufReader::new((&mut client).take(LONGEST_HEAD)).lines();
    let Some(request) = lines.next().transpose()? else {
        return Ok(());
    };
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    let body = format!(
        "hello from pid {}, which inherited this listener and bound nothing\nyou asked for {path}\n",
        std::process::id()
    );
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(response.as_bytes())
}
