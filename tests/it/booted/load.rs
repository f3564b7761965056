//! Clients of port 20000 in a container.

use crate::harness::container::Container;
use crate::harness::eventually;
use std::process::{Child, Stdio};

/// A client that connects again and again until it is told to stop.
pub struct Load {
    client: Child,
}

/// What became of the connections.
#[derive(Debug)]
pub struct Tally {
    pub answered: u64,
    pub refused: u64,
    /// Those that were accepted, and then not answered.
    pub broken: u64,
}

/// A UDP server that answers what it is sent, for `workers:`. Its listener is its only one.
pub const ECHO: &str = "
  echo:
    command: [perl, -e, 'open($s, \"+<&=3\"); send($s, $d, 0, $from) while defined($from = recv($s, $d, 99, 0))']
    listeners: [packets]
";

impl Load {
    /// Over TCP.
    pub fn start(container: &Container) -> Load {
        Load::at(container, &["tcp"])
    }

    /// In turn over TCP, at a path, and with datagrams to the same port.
    pub fn of_every_kind(container: &Container, path: &str) -> Load {
        Load::at(container, &["tcp", path, "udp"])
    }

    fn at(container: &Container, kinds: &[&str]) -> Load {
        let program = "
import os, socket, sys
tally = [0, 0, 0]
request = b'GET / HTTP/1.0\\r\\n\\r\\n'
there = ('127.0.0.1', 20000)
def connect(kind):
    if kind == 'tcp':
        return socket.create_connection(there, 10)
    family, of, address = (socket.AF_UNIX, socket.SOCK_STREAM, kind)
    if kind == 'udp':
        family, of, address = (socket.AF_INET, socket.SOCK_DGRAM, there)
    server = socket.socket(family, of)
    server.settimeout(10)
    server.connect(address)
    return server
turn = 0
while not os.path.exists('/run/load.stop'):
    kind = sys.argv[1:][turn % len(sys.argv[1:])]
    turn += 1
    expected = request if kind == 'udp' else b'HTTP/1.'
    try:
        with connect(kind) as server:
            server.sendall(request)
            tally[0 if server.recv(65536).startswith(expected) else 2] += 1
    except (ConnectionRefusedError, FileNotFoundError):
        tally[1] += 1
    except OSError:
        tally[2] += 1
    with open('/run/load.new', 'w') as file:
        print(*tally, file=file)
    os.rename('/run/load.new', '/run/load')
";
        let words = ["python3", "-c", program];
        let mut client = container.command(words.iter().chain(kinds).copied());
        let client = client.stdout(Stdio::null()).spawn().expect("start nsenter");
        let load = Load { client };
        load.goes_on(container);
        load
    }

    fn tally(&self, container: &Container) -> Option<Tally> {
        let text = container.read("/run/load")?;
        let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        let [answered, refused, broken] = numbers[..] else {
            return None;
        };
        Some(Tally {
            answered,
            refused,
            broken,
        })
    }

    /// Waits until more have been answered.
    #[track_caller]
    pub fn goes_on(&self, container: &Container) {
        let answered = || self.tally(container).map_or(0, |tally| tally.answered);
        let before = answered();
        eventually("clients are answered", || answered() > before + 20);
    }

    pub fn stop(mut self, container: &Container) -> Tally {
        container.write("/run/load.stop", "");
        self.client.wait().expect("wait for the client");
        self.tally(container).expect("a tally")
    }
}
