//! Clients: each of them connects, reads to the end, and connects again.

use crate::machine::{self, Addresses, Result};
use crate::process::Process;
use socket2::SockRef;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Twice as many as the processors of a small machine, so that one is always waiting.
const CLIENTS: u32 = 4;

/// A client that waits longer than this has been forgotten.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a run may take in all; what was not reached by then is not counted.
const RUN_LIMIT: Duration = Duration::from_secs(15);

/// How long a program may take until its listeners answer.
const START_PATIENCE: Duration = Duration::from_secs(10);
const START_STEP: Duration = Duration::from_millis(5);

/// Consecutive clients are this many listeners apart: a prime, so that every listener has its turn
/// and none follows its neighbour.
const STRIDE: u32 = 7_919;

/// A program that answers on a range of addresses.
pub struct Server {
    process: Process,
    /// Whose processor time it is.
    measured: i32,
    range: Range,
}

/// Consecutive addresses of the sequence.
#[derive(Clone, Copy)]
struct Range {
    addresses: Addresses,
    first: u32,
    count: u32,
}

/// What one run of the clients showed.
#[derive(Clone, Copy)]
pub struct Run {
    /// Answered connections in a second.
    pub per_second: f64,
    /// Processor time of the program itself for one connection, in microseconds, without that of
    /// the processes it started; unknown where the kernel does not count it.
    pub micros: Option<f64>,
}

impl Server {
    /// A program that listens on `count` addresses of the sequence, from number `first` on.
    pub fn new(process: Process, addresses: Addresses, first: u32, count: u32) -> Server {
        let range = Range {
            addresses,
            first,
            count,
        };
        Server {
            measured: process.pid(),
            process,
            range,
        }
    }

    /// The same, where another process than the one that was started does the work.
    pub fn measured_at(self, pid: i32) -> Server {
        Server {
            measured: pid,
            ..self
        }
    }

    /// The process that was started.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Waits until the first address answers, as not every program says that it listens.
    pub fn wait_until_answering(&self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            match ask(self.range.address(0)) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(format!("does not answer: {error}").into());
                }
                Err(_) => thread::sleep(START_STEP),
            }
        }
    }

    /// Lets the clients make so many connections in all, spread over all addresses.
    pub fn run(&self, connections: u32) -> Result<Run> {
        let before = self.processor_time();
        let start = Instant::now();
        let answered = self.range.ask_all(connections, start + RUN_LIMIT)?;
        let time = start.elapsed();
        if answered == 0 {
            return Err("no connection was answered".into());
        }
        let used = before
            .zip(self.processor_time())
            .map(|(before, after)| after - before);
        Ok(Run {
            per_second: f64::from(answered) / time.as_secs_f64(),
            micros: used.map(|used| used.as_secs_f64() * 1e6 / f64::from(answered)),
        })
    }

    fn processor_time(&self) -> Option<Duration> {
        machine::processor_time(self.measured).ok()
    }
}

impl Range {
    fn address(self, turn: u32) -> SocketAddr {
        let spread = u64::from(turn) * u64::from(STRIDE) % u64::from(self.count);
        // Less than `count`, which is a u32.
        SocketAddr::V4(self.addresses.get(self.first + spread as u32))
    }

    /// All clients at once; answers with the number of connections that were answered.
    fn ask_all(self, connections: u32, deadline: Instant) -> Result<u32> {
        let each = connections / CLIENTS;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let turns = client * each..(client + 1) * each;
                thread::spawn(move || self.be_client(turns, deadline))
            })
            .collect();
        // All of them are waited for: the others would disturb what comes next.
        let results: Vec<_> = clients.into_iter().map(JoinHandle::join).collect();
        let mut answered = 0;
        for result in results {
            answered += result.map_err(|_| "a client panicked")??;
        }
        Ok(answered)
    }

    fn be_client(self, turns: std::ops::Range<u32>, deadline: Instant) -> io::Result<u32> {
        let mut answered = 0;
        for turn in turns {
            if Instant::now() > deadline {
                break;
            }
            let address = self.address(turn);
            ask(address)
                .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
            answered += 1;
        }
        Ok(answered)
    }
}

/// One connection from connect to the end of what the other side sends.
fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = connect(address)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// A connection whose reads end after a while, and whose close leaves nothing behind: after
/// thousands of ordinary ones a second, connect would run out of ports in TIME_WAIT.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CLIENT_PATIENCE)?;
    stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream)
}
