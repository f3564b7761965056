//! `kill`: workers are killed in a loop under load, and no client is refused.

use crate::machine::{self, Addresses, Result};
use crate::process::{Process, started_pid};
use crate::statistics::{Samples, millis};
use crate::table::Row;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::SockRef;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const INSTANCES: usize = 2;
const CLIENTS: usize = 4;

/// Clients alone first: the latency to compare with.
const UNDISTURBED: Duration = Duration::from_secs(3);
/// Clients while workers are killed.
const DISTURBED: Duration = Duration::from_secs(10);
const KILL_EVERY: Duration = Duration::from_millis(50);

/// Fewer kills than this show nothing: the backoff of 100 ms and two instances allow twice as many.
const MIN_KILLS: usize = 100;

/// A client that waits longer than this has been lost, not delayed.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// More than any answer of the sample worker.
const MAX_ANSWER: usize = 64 << 10;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let addresses = Addresses::for_sockets(1)?;
    let config = machine::write_config("kill", &yaml(addresses)?)?;
    let mut listend = Process::listend(&config)?;
    let mut workers = VecDeque::new();
    while workers.len() < INSTANCES {
        let deadline = Instant::now() + CLIENT_PATIENCE;
        let line = listend
            .next_line(deadline)?
            .ok_or("no worker was started")?;
        workers.extend(started_pid(&line.text));
    }

    let address = SocketAddr::V4(addresses.get(0));
    let clients = start_clients(address, Instant::now() + UNDISTURBED);
    let undisturbed = join(clients)?;
    let end = Instant::now() + DISTURBED;
    let clients = start_clients(address, end);
    let kills = kill_workers(&mut listend, workers, end);
    // The clients are waited for in any case: they would disturb the next benchmark.
    let disturbed = join(clients)?;
    let kills = kills?;
    // What was measured counts, however listend ends.
    let stopped = listend.stop();
    report(rows, &undisturbed, &disturbed, kills)?;
    stopped?;
    Ok(())
}

fn yaml(addresses: Addresses) -> Result<String> {
    Ok(format!(
        "{}workers:\n  hello:\n    command: [{}, hello-worker]\n    listeners: [l0]\n    \
         instances: {INSTANCES}\n    \
         restart: {{ policy: always, backoff: 10ms..100ms, limit: none }}\n",
        addresses.yaml(1),
        machine::quoted(&machine::listend())?
    ))
}

fn report(rows: &mut Vec<Row>, undisturbed: &Tally, disturbed: &Tally, kills: usize) -> Result<()> {
    // The first thing to know, because without these nothing else means anything.
    for tally in [undisturbed, disturbed] {
        if tally.latencies.is_empty() {
            return Err(format!("no request was answered: {tally:?}").into());
        }
    }
    if kills < MIN_KILLS {
        let why = format!("{kills} workers killed, fewer than {MIN_KILLS}");
        rows.push(Row::failed("kill: workers killed", &why));
    } else {
        rows.push(Row::information("kill: workers killed", kills.to_string()));
    }

    let counts = [
        (
            "kill: connections refused",
            Tally::refused as fn(&Tally) -> usize,
        ),
        ("kill: clients lost (5 s)", Tally::lost),
        ("kill: other errors", Tally::others),
    ];
    for (name, count) in counts {
        let row = Row::at_most(name, count(disturbed) as f64, 0.0, "");
        rows.push(row.beside(count(undisturbed).to_string()));
    }
    // More than the clients had open at a kill cannot have been in the hands of the killed worker:
    // then connections were cut that still waited in the listen queue.
    let (cut, most) = (disturbed.cut as f64, (kills * CLIENTS) as f64);
    let row = Row::at_most("kill: cut with their worker", cut, most, "");
    rows.push(row.beside(undisturbed.cut.to_string()));
    let answered = Row::information("kill: answered", disturbed.per_second(DISTURBED));
    rows.push(answered.beside(undisturbed.per_second(UNDISTURBED)));

    let ours = Samples::new(disturbed.latencies.iter().copied());
    let alone = Samples::new(undisturbed.latencies.iter().copied());
    for (what, share) in [("median", 0.5), ("99 %", 0.99), ("worst", 1.0)] {
        let show = |samples: &Samples| format!("{:.2} ms", millis(samples.quantile(share)));
        let row = Row::information(&format!("kill: latency, {what}"), show(&ours));
        rows.push(row.beside(show(&alone)));
    }
    Ok(())
}

/// Kills the worker that has lived longest, every [`KILL_EVERY`], and returns how many it killed.
fn kill_workers(listend: &mut Process, mut workers: VecDeque<i32>, end: Instant) -> Result<usize> {
    let mut kills = 0;
    let mut next = Instant::now();
    while next < end {
        next += KILL_EVERY;
        while let Some(line) = listend.next_line(next)? {
            workers.extend(started_pid(&line.text));
        }
        if let Some(pid) = workers.pop_front()
            && machine::is_running_child(pid, listend.pid())
        {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            kills += 1;
        }
    }
    Ok(kills)
}

/// What became of the requests of one or more clients.
#[derive(Debug, Default)]
pub struct Tally {
    /// Of the answered ones, from before connect to the whole answer.
    pub latencies: Vec<Duration>,
    /// ECONNREFUSED: the port was closed.
    refused: usize,
    /// The connection ended before the whole answer: its worker had accepted it and was killed.
    pub cut: usize,
    /// No answer within [`CLIENT_PATIENCE`].
    lost: usize,
    /// Anything else, in words.
    others: Vec<String>,
}

impl Tally {
    pub fn refused(&self) -> usize {
        self.refused
    }

    pub fn lost(&self) -> usize {
        self.lost
    }

    pub fn others(&self) -> usize {
        self.others.len()
    }

    fn add(&mut self, other: Tally) {
        self.latencies.extend(other.latencies);
        self.refused += other.refused;
        self.cut += other.cut;
        self.lost += other.lost;
        self.others.extend(other.others);
    }

    fn count(&mut self, result: io::Result<()>, latency: Duration) {
        match result.map_err(|error| (error.kind(), error)) {
            Ok(()) => self.latencies.push(latency),
            Err((ErrorKind::ConnectionRefused, _)) => self.refused += 1,
            Err((
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe,
                _,
            )) => self.cut += 1,
            // A blocking read that exceeds SO_RCVTIMEO ends with EAGAIN (socket(7)).
            Err((ErrorKind::TimedOut | ErrorKind::WouldBlock, _)) => self.lost += 1,
            Err((_, error)) => self.others.push(error.to_string()),
        }
    }

    fn per_second(&self, time: Duration) -> String {
        let rate = self.latencies.len() as f64 / time.as_secs_f64();
        format!("{} ({rate:.0}/s)", self.latencies.len())
    }
}

pub fn start_clients(address: SocketAddr, end: Instant) -> Vec<JoinHandle<Tally>> {
    let client = move || {
        let mut tally = Tally::default();
        while Instant::now() < end {
            let start = Instant::now();
            let result = request(address);
            tally.count(result, start.elapsed());
        }
        tally
    };
    (0..CLIENTS).map(|_| thread::spawn(client)).collect()
}

pub fn join(clients: Vec<JoinHandle<Tally>>) -> Result<Tally> {
    let mut sum = Tally::default();
    for client in clients {
        sum.add(client.join().map_err(|_| "a client panicked")?);
    }
    Ok(sum)
}

/// One connection, one request, one whole answer.
fn request(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, CLIENT_PATIENCE)?;
    stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
    // A close after the whole answer that resets instead of waiting: thousands of connections a
    // second would fill the ephemeral ports with TIME_WAIT (28,000 by default, a minute each), and
    // connect would then fail for a reason that has nothing to do with listend.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.write_all(REQUEST)?;
    read_answer(&mut stream)
}

/// Reads until the head's Content-Length is there, or, without one, until the connection ends. An
/// end before that is [`ErrorKind::UnexpectedEof`].
fn read_answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() < MAX_ANSWER {
        let count = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..count]);
        match (missing(&answer), count) {
            (Missing::Nothing, _) | (Missing::End, 0) => return check_status(&answer),
            (Missing::More, 0) => return Err(ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
    Err(io::Error::other("the answer does not end"))
}

/// What an answer still lacks.
enum Missing {
    Nothing,
    More,
    /// Only the end of the connection says that it is complete.
    End,
}

fn missing(answer: &[u8]) -> Missing {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Missing::More;
    };
    let body = answer.len() - head - 4;
    let length = String::from_utf8_lossy(&answer[..head])
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    match length {
        Some(length) if body >= length => Missing::Nothing,
        Some(_) => Missing::More,
        None => Missing::End,
    }
}

fn check_status(answer: &[u8]) -> io::Result<()> {
    if answer.starts_with(b"HTTP/1.1 200 ") || answer.starts_with(b"HTTP/1.0 200 ") {
        return Ok(());
    }
    let line = answer
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    Err(io::Error::other(format!("answered {line:?}")))
}
