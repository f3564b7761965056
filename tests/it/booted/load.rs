//! Clients of 127.0.0.1:20000 in a container.

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

impl Load {
    pub fn start(container: &Container) -> Load {
        let program = "
import os, socket
tally = [0, 0, 0]
while not os.path.exists('/run/load.stop'):
    try:
        with socket.create_connection(('127.0.0.1', 20000), 10) as server:
            server.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
            tally[0 if server.recv(65536).startswith(b'HTTP/1.') else 2] += 1
    except ConnectionRefusedError:
        tally[1] += 1
    except OSError:
        tally[2] += 1
    with open('/run/load.new', 'w') as file:
        print(*tally, file=file)
    os.rename('/run/load.new', '/run/load')
";
        let mut client = container.command(["python3", "-c", program]);
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
