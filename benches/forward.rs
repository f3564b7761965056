//! `forward`: connections through listend's forwarder, and through those of others, to one and the same
//! server.

use crate::load::connect;
use crate::machine::{self, Addresses, Result};
use crate::peers::find;
use crate::process::Process;
use crate::statistics::{Numbers, median_ratio};
use crate::table::{Row, Target};
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The rounds, in each of which every contestant has its turn.
const ROUNDS: usize = 15;
/// Connections of a transfer, and the bytes of each.
const STREAMS: u32 = 4;
const BYTES: u64 = 64 << 20;
/// Questions and answers over one connection, and their length.
const EXCHANGES: u32 = 2_000;
const MESSAGE: usize = 64;

const MIN_SPEED: f64 = 1.0;
const MAX_PROCESSOR_TIME: f64 = 1.0;
const MAX_ADDED_LATENCY: f64 = 1.1;

const OURS: &str = "listend";
const PROXYD: &str = "systemd-socket-proxyd";
const PROXYD_PATH: &str = "/usr/lib/systemd/systemd-socket-proxyd";

/// Should the benchmark be killed, they end by themselves after this many seconds.
const LIFETIME: &str = "600";
/// How long a program may take until it forwards.
const START_PATIENCE: Duration = Duration::from_secs(10);
const START_STEP: Duration = Duration::from_millis(5);

/// A forwarder, and what each round has shown.
struct Contestant {
    name: &'static str,
    /// What keeps it running.
    process: Process,
    address: SocketAddr,
    /// MiB in a second.
    speeds: Vec<f64>,
    /// Milliseconds of processor time for a transfer.
    processor: Vec<f64>,
    /// Microseconds for an exchange.
    exchanges: Vec<f64>,
    /// Microseconds of processor time for an exchange.
    exchange_processor: Vec<f64>,
}

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let server = serve()?;
    let addresses = Addresses::for_sockets(4)?;
    let mut contestants = start_all(rows, addresses, server)?;
    let mut direct = Vec::new();
    for one in &contestants {
        one.wait_until_forwarding()?;
        // Pays for the first pipes and pages.
        transfer(one.address)?;
    }
    for _ in 0..ROUNDS {
        direct.push(exchange(server)?);
        for one in &mut contestants {
            one.measure()?;
        }
        contestants.reverse();
    }
    report(rows, &contestants, &Numbers::new(direct));
    Ok(())
}

/// A server in threads of its own: of each connection the first byte says what it is for.
fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> Option<()> {
    let mut kind = [0];
    stream.set_nodelay(true).ok()?;
    stream.read_exact(&mut kind).ok()?;
    let mut buffer = vec![0; 256 << 10];
    match kind[0] {
        b'd' => {
            let mut left = BYTES;
            while left > 0 {
                // No more than the buffer.
                let count = left.min(buffer.len() as u64) as usize;
                stream.write_all(&buffer[..count]).ok()?;
                left -= count as u64;
            }
        }
        _ => loop {
            stream.read_exact(&mut buffer[..MESSAGE]).ok()?;
            stream.write_all(&buffer[..MESSAGE]).ok()?;
        },
    }
    Some(())
}

/// All streams at once; MiB in a second.
fn transfer(address: SocketAddr) -> Result<f64> {
    let start = Instant::now();
    let streams = (0..STREAMS).map(|_| {
        thread::spawn(move || -> std::io::Result<u64> {
            let mut stream = connect(address)?;
            stream.write_all(b"d")?;
            let mut buffer = vec![0; 256 << 10];
            let mut got = 0;
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(got),
                    count => got += count as u64,
                }
            }
        })
    });
    // All of them are started before one is waited for.
    let streams: Vec<_> = streams.collect();
    let mut got = 0;
    for stream in streams {
        got += stream.join().map_err(|_| "a client panicked")??;
    }
    let time = start.elapsed();
    if got != BYTES * u64::from(STREAMS) {
        return Err(format!("{got} bytes came through").into());
    }
    Ok(got as f64 / f64::from(1 << 20) / time.as_secs_f64())
}

/// One question after the other; microseconds for each.
fn exchange(address: SocketAddr) -> Result<f64> {
    let mut stream = connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(b"e")?;
    let mut message = [7; MESSAGE];
    let start = Instant::now();
    for _ in 0..EXCHANGES {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(EXCHANGES))
}

impl Contestant {
    fn new(name: &'static str, process: Process, address: SocketAddrV4) -> Contestant {
        Contestant {
            name,
            process,
            address: address.into(),
            speeds: Vec::new(),
            processor: Vec::new(),
            exchanges: Vec::new(),
            exchange_processor: Vec::new(),
        }
    }

    fn wait_until_forwarding(&self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let error = match connect(self.address).map(|mut stream| {
                stream.write_all(b"e")?;
                stream.write_all(&[0; MESSAGE])?;
                stream.read_exact(&mut [0; MESSAGE])
            }) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) | Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(format!("{} does not forward: {error}", self.name).into());
            }
            thread::sleep(START_STEP);
        }
    }

    /// The processor time of it and of what it has started. A process that has ended in between is
    /// missing; only socat has those.
    fn processor_time(&self) -> Result<Duration> {
        let mut all = vec![self.process.pid()];
        let mut sum = Duration::ZERO;
        while let Some(pid) = all.pop() {
            sum += machine::processor_time(pid)?;
            all.extend(machine::children(pid));
        }
        Ok(sum)
    }

    fn measure(&mut self) -> Result<()> {
        let before = self.processor_time()?;
        self.speeds.push(transfer(self.address)?);
        let between = self.processor_time()?;
        self.exchanges.push(exchange(self.address)?);
        let after = self.processor_time()?;
        let used = between.saturating_sub(before);
        self.processor.push(used.as_secs_f64() * 1e3);
        let used = after.saturating_sub(between);
        let each = used.as_secs_f64() * 1e6 / f64::from(EXCHANGES);
        self.exchange_processor.push(each);
        Ok(())
    }
}

/// Each forwards from an address of its own, and does nothing while another has its turn.
fn start_all(rows: &mut Vec<Row>, all: Addresses, to: SocketAddr) -> Result<Vec<Contestant>> {
    let ours = format!(
        "listeners: {{ web: '{}' }}\nworkers: {{ app: {{ listeners: [web], forward: '{to}' }} }}\n",
        all.get(0)
    );
    let config = machine::write_config("forward", &ours)?;
    let mut contestants = vec![Contestant::new(
        OURS,
        Process::listend(&config)?,
        all.get(0),
    )];
    let haproxy = machine::write_file(
        "forward",
        "haproxy.cfg",
        &format!(
            "global\n  nbthread 1\n  maxconn 1000\ndefaults\n  mode tcp\n  option splice-auto\n  timeout connect 5s\n  \
             timeout client 60s\n  timeout server 60s\nfrontend web\n  bind {}\n  default_backend app\n\
             backend app\n  server app {to}\n",
            all.get(2)
        ),
    )?;
    let haproxy = haproxy.to_str().ok_or("the target folder is not UTF-8")?;
    let (ip, port) = (all.get(3).ip().to_string(), all.get(3).port().to_string());
    let socat = format!("TCP4-LISTEN:{port},bind={ip},reuseaddr,fork,backlog=4096,nodelay");
    let (listen, to) = (format!("--listen={}", all.get(1)), to.to_string());
    let connect = format!("TCP4:{to},nodelay");
    for (index, name, program, words) in [
        (
            1,
            PROXYD,
            "systemd-socket-activate",
            &[&*listen, PROXYD_PATH, &to][..],
        ),
        (2, "haproxy", "haproxy", &["-db", "-f", haproxy]),
        (3, "socat", "socat", &[&socat, &connect]),
    ] {
        let is_there = name != PROXYD || Path::new(PROXYD_PATH).exists();
        let Some(program) = find(program).filter(|_| is_there) else {
            rows.push(Row::skipped(
                &format!("forward: against {name}"),
                "not installed",
            ));
            continue;
        };
        let mut command = Command::new("timeout");
        command
            .arg("--foreground")
            .arg(LIFETIME)
            .arg(program)
            .args(words);
        contestants.push(Contestant::new(
            name,
            Process::peer(command)?,
            all.get(index),
        ));
    }
    Ok(contestants)
}

fn report(rows: &mut Vec<Row>, contestants: &[Contestant], direct: &Numbers) {
    let Some(ours) = contestants.iter().find(|one| one.name == OURS) else {
        return;
    };
    let numbers = |values: &[f64]| Numbers::new(values.iter().copied());
    let added = |one: &Contestant| {
        let both = one.exchanges.iter().zip(direct.each());
        Numbers::new(both.map(|(through, direct)| through - direct))
    };
    for name in [PROXYD, "haproxy", "socat"] {
        let Some(other) = contestants.iter().find(|one| one.name == name) else {
            continue;
        };
        let target = |target: Target| (name == PROXYD).then_some(target);
        let mut compare = |what: &str, ours: &Numbers, theirs: &Numbers, unit, limit| {
            rows.push(Row::compared(
                &format!("forward: {what}, against {name}"),
                ours.show(1, unit),
                theirs.show(1, unit),
                median_ratio(ours, theirs),
                target(limit),
            ));
        };
        let (mine, theirs) = (numbers(&ours.speeds), numbers(&other.speeds));
        compare(
            "MiB per second",
            &mine,
            &theirs,
            "",
            Target::AtLeast(MIN_SPEED),
        );
        let (mine, theirs) = (added(ours), added(other));
        let limit = Target::AtMost(MAX_ADDED_LATENCY);
        compare("latency added to an exchange", &mine, &theirs, " µs", limit);
        // socat has a process for each connection, which has ended when it is looked at.
        if name == "socat" {
            continue;
        }
        let limit = Target::AtMost(MAX_PROCESSOR_TIME);
        let (mine, theirs) = (numbers(&ours.processor), numbers(&other.processor));
        compare("processor time of 256 MiB", &mine, &theirs, " ms", limit);
        let mine = numbers(&ours.exchange_processor);
        let theirs = numbers(&other.exchange_processor);
        compare(
            "processor time of an exchange",
            &mine,
            &theirs,
            " µs",
            limit,
        );
    }
}
