//! `flows`: datagrams through a socket whose flows stay with their generation, beside a plain one.
//!
//! listend is not on their way: what is compared is the kernel with and without the program that chooses the
//! socket. What the kernel does for a datagram is done in the time of who sends it, so that the processor time of
//! clients and server together has all of it, and nothing of what else the machine does meanwhile.

use crate::machine::{self, Addresses, Result, processor_time};
use crate::process::{Process, started_pid};
use crate::statistics::{Numbers, median_ratio};
use crate::table::{Row, Target};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Each client is a flow.
const CLIENTS: usize = 64;
/// As long as the packets of QUIC are at least at first.
const LENGTH: usize = 1200;
/// What each client sends in a round, and waits for.
const DATAGRAMS: usize = 25;
/// The rounds, in each of which every socket has its turn, in one order and then in the other.
const ROUNDS: usize = 401;
/// Of the datagrams in a second of processor time.
const MIN_RATIO: f64 = 0.97;
const PATIENCE: Duration = Duration::from_secs(10);

const SOCKETS: [(&str, &str); 3] = [
    ("plain", "flows: shared"),
    ("flow_key: tuple", "flows: sticky, flow_key: tuple"),
    ("flow_key: quic", "flows: sticky, flow_key: quic"),
];

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let all = sched_getaffinity(Pid::from_raw(0))?;
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false));
    one.set(first.ok_or("no processor")?)?;
    // What is started from here has it as well.
    sched_setaffinity(Pid::from_raw(0), &one)?;
    let done = compare(rows);
    sched_setaffinity(Pid::from_raw(0), &all)?;
    done
}

fn compare(rows: &mut Vec<Row>) -> Result<()> {
    let addresses = Addresses::for_sockets(SOCKETS.len() as u32)?;
    let address = |at: usize| SocketAddr::from(addresses.get(at as u32));
    let mut listend = start(&address)?;
    let (refused, pids) = (RefCell::new(None), RefCell::new([0; SOCKETS.len()]));
    listend.time_until(1, "every eager worker has started", |line| {
        if line.contains("cannot keep flows") {
            refused.replace(Some(line.to_owned()));
        }
        for (at, pid) in pids.borrow_mut().iter_mut().enumerate() {
            if line.contains(&format!("w{at}.0: started")) {
                *pid = started_pid(line).unwrap_or(0);
            }
        }
        line.contains("every eager worker has started")
    })?;
    if let Some(why) = refused.take() {
        rows.push(Row::skipped("flows", &why));
        return Ok(());
    }
    let pids = pids.into_inner();
    let mut clients = Vec::new();
    for at in 0..SOCKETS.len() {
        clients.push(connect(address(at))?);
    }
    let mut seen: [Vec<f64>; SOCKETS.len()] = Default::default();
    let mut order: Vec<usize> = (0..SOCKETS.len()).collect();
    for round in 0..=ROUNDS {
        for at in &order {
            let speed = exchange(&clients[*at], pids[*at])?;
            // The first one teaches the flows.
            if round > 0 {
                seen[*at].push(speed);
            }
        }
        order.reverse();
    }
    listend.stop()?;
    let [plain, rest @ ..] = seen.map(Numbers::new);
    for ((name, _), sticky) in SOCKETS[1..].iter().zip(&rest) {
        rows.push(Row::compared(
            &format!("flows: {name}, datagrams in a second of processor time"),
            sticky.show(0, ""),
            plain.show(0, ""),
            median_ratio(sticky, &plain),
            Some(Target::AtLeast(MIN_RATIO)),
        ));
    }
    Ok(())
}

fn start(address: &impl Fn(usize) -> SocketAddr) -> Result<Process> {
    let worker = machine::quoted(&machine::compile("echo")?)?;
    let (mut listeners, mut workers) = ("listeners:\n".to_owned(), "workers:\n".to_owned());
    for (at, (_, keys)) in SOCKETS.iter().enumerate() {
        let address = address(at);
        listeners += &format!("  l{at}: {{ address: 'udp://{address}', {keys} }}\n");
        workers += &format!("  w{at}: {{ command: [{worker}], listeners: [l{at}] }}\n");
    }
    let config = machine::write_config("flows", &(listeners + &workers))?;
    Process::listend(&config)
}

fn connect(address: SocketAddr) -> Result<Vec<UdpSocket>> {
    let one = |_| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    (0..CLIENTS).map(one).collect()
}

/// Each client sends one datagram and then waits for it, again and again; datagrams in a second of processor
/// time.
fn exchange(clients: &[UdpSocket], server: i32) -> Result<f64> {
    let mut buffer = [0; 2 * LENGTH];
    let time = || {
        Ok::<_, Box<dyn std::error::Error>>(processor_time(own_pid())? + processor_time(server)?)
    };
    let start = time()?;
    for _ in 0..DATAGRAMS {
        for (at, client) in clients.iter().enumerate() {
            // As a packet with a short header, that is for an ID of eight bytes.
            let mut packet = [0x40; LENGTH];
            packet[1..9].copy_from_slice(&(at as u64).to_ne_bytes());
            client.send(&packet)?;
        }
        for client in clients {
            let length = client.recv(&mut buffer)?;
            if length != LENGTH {
                return Err(format!("{length} bytes came back").into());
            }
        }
    }
    let count = clients.len() * DATAGRAMS;
    Ok(count as f64 / (time()? - start).as_secs_f64())
}

fn own_pid() -> i32 {
    Pid::this().as_raw()
}
