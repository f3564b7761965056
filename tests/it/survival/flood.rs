//! The daemon is killed or replaced while there is more to do than one turn takes.

use super::{BLOWS, Blow, guarded};
use crate::harness::reloading::ask;
use crate::harness::{World, client, eventually};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const CLIENTS: usize = 4;

/// What became of the clients of a flood.
#[derive(Default)]
struct Flood {
    ends: AtomicBool,
    answered: AtomicUsize,
    cut: AtomicUsize,
}

impl Flood {
    /// A client after the other until the end. Whoever is refused, or not answered in time, fails the test.
    fn pour(&self, address: SocketAddr) {
        while !self.ends.load(Ordering::Relaxed) {
            let mut stream = client::tcp(address).expect("nobody is refused");
            let mut answer = String::new();
            match stream.read_to_string(&mut answer) {
                Ok(_) if answer == "hello\n" => self.answered.fetch_add(1, Ordering::Relaxed),
                Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
                    panic!("{error}")
                }
                Ok(_) | Err(_) => self.cut.fetch_add(1, Ordering::Relaxed),
            };
        }
    }

    fn wait_for_more(&self, more: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("clients are answered", || {
            self.answered.load(Ordering::Relaxed) >= before + more
        });
    }
}

/// The clients end with the test, also when that fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// Rule: an upgrade cuts nobody off; a kill those whom listend was accepting, and leaves no process behind.
#[test]
fn a_flood_of_connections_goes_on() {
    for blow in BLOWS {
        let world = World::new();
        let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [/bin/echo, hello]
    listeners: [web]
    activation: per-connection
    handoff: inetd
    accept_rate: none
    max_connections: 10
";
        let mut guarded = guarded(&world, yaml);
        let address = guarded.guard.address("web");
        let flood = Flood::default();
        let strikes = 5;
        thread::scope(|scope| {
            let _ends = Ends(&flood.ends);
            for _ in 0..CLIENTS {
                scope.spawn(|| flood.pour(address));
            }
            for _ in 0..strikes {
                flood.wait_for_more(20);
                match blow {
                    // It does not wait for a moment in which nothing is to be done.
                    Blow::Kill => guarded.kill(),
                    Blow::Upgrade => guarded.strike(blow),
                }
            }
            flood.wait_for_more(20);
        });
        let cut = flood.cut.load(Ordering::Relaxed);
        let most = match blow {
            // "connection that was being accepted: still in the queue, or lost with its descriptor".
            Blow::Kill => strikes * CLIENTS,
            Blow::Upgrade => 0,
        };
        assert!(cut <= most, "{blow:?}: {cut} cut");
        eventually("no process is left", || {
            guarded.processes() == [guarded.daemon]
        });
        guarded.stop();
    }
}

/// The lines that were not told once, of so many.
fn not_told_once(log: &str, lines: usize) -> Vec<(usize, usize)> {
    let mut times = vec![0; lines];
    for rest in log.split("line-").skip(1) {
        if let Some((number, _)) = rest.split_once('.')
            && let Ok(number) = number.parse::<usize>()
            && let Some(times) = times.get_mut(number)
        {
            *times += 1;
        }
    }
    let all = times.into_iter().enumerate();
    all.filter(|(_, times)| *times != 1).collect()
}

// Rule: lines that come faster than they are written are each told once; those that were read in the turn of
// a kill may be lost, at most 8 KiB of them.
#[test]
fn a_burst_of_lines_goes_on() {
    const LINES: usize = 30_000;
    // The shortest line.
    const LOST: usize = 8 * 1024 / "line-0.\n".len();
    for (blow, output) in BLOWS
        .iter()
        .flat_map(|blow| ["tag", "file:$DIR/log"].map(|output| (*blow, output)))
    {
        let world = World::new();
        let yaml = format!(
            "
workers:
  app:
    command: [/bin/sh, -c, 'i=0; while [ $i -lt {most} ]; do echo line-$i.; i=$((i+1)); done; touch $DIR/done; until [ -e $DIR/go ]; do sleep 0.05; done; echo line-$i.; exec sleep 600']
    output: {output}
",
            most = LINES - 1
        );
        let mut guarded = guarded(&world, &yaml);
        // Before it nothing is there to go on with.
        guarded.guard.line(&["app.0: started"]);
        let mut strikes = 0;
        while strikes < 4 && !world.path("done").exists() {
            match blow {
                Blow::Kill => guarded.kill(),
                Blow::Upgrade => guarded.strike(blow),
            }
            strikes += 1;
        }
        assert!(strikes > 0);
        eventually("all is written", || world.path("done").exists());
        // Written when nobody is killed any more: it cannot be among those that are lost.
        world.write("go", "");
        let last = format!("line-{}.", LINES - 1);
        eventually("all is read", || {
            ask(&world, "logs app").stdout.contains(&last)
        });
        guarded.stop();
        let log = match output {
            "tag" => guarded.guard.finish().stdout,
            _ => std::fs::read_to_string(world.path("log")).expect("read"),
        };
        let wrong = not_told_once(&log, LINES);
        let most = match blow {
            Blow::Kill => strikes * LOST,
            Blow::Upgrade => 0,
        };
        assert!(
            wrong.len() <= most && wrong.iter().all(|(_, times)| *times == 0),
            "{blow:?} {output}: {} of {wrong:?}",
            wrong.len()
        );
    }
}
