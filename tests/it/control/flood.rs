//! Clients of the control socket that mean no good, while a worker serves its own.

use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    Daemon, Puppet, World, children, client, descriptors, eventually, exists, require_root,
    require_tool, resident_kib, skip,
};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

const YAML: &str = "
listeners:
  web: '127.0.0.1:0'
  deaf: '127.0.0.1:0'
workers:
  app: { command: [$PROBE, serve], listeners: [web] }
  puppet: { command: [$PROBE, puppet, $EVENTS], listeners: [deaf] }
";

/// A frame of an allowed length that asks for nothing.
const LONG: usize = 60 << 10;

/// A daemon that serves, and a client of its worker that connects again and again.
struct Siege {
    world: World,
    daemon: Daemon,
    puppet: Puppet,
    over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    visitor: Option<JoinHandle<()>>,
}

impl Siege {
    fn begin() -> Siege {
        let world = World::new();
        let daemon = varlink::run(&world, YAML);
        let address = daemon.address("web");
        let puppet = world.puppet();
        daemon.line(&["app.0", "started"]);
        let (over, served) = (Arc::default(), Arc::default());
        let visitor = {
            let (over, served) = (Arc::clone(&over), Arc::clone(&served));
            std::thread::spawn(move || visit(address, &over, &served))
        };
        Siege {
            world,
            daemon,
            puppet,
            over,
            served,
            visitor: Some(visitor),
        }
    }

    fn connect(&self) -> UnixStream {
        Varlink::connect(&self.world);
        client::unix(&varlink::path(&self.world)).expect("connect")
    }

    /// Whoever asks properly is answered, however many others there are.
    #[track_caller]
    fn answers(&self) {
        let status = Varlink::connect(&self.world).ask("Status", json!({}));
        assert_eq!(status["workers"][0]["state"], "running");
        let before = self.served.load(Ordering::Relaxed);
        eventually("the worker goes on serving", || {
            self.served.load(Ordering::Relaxed) > before
        });
    }

    #[track_caller]
    fn end(mut self) {
        self.answers();
        self.over.store(true, Ordering::Relaxed);
        let visitor = self.visitor.take().expect("one");
        visitor.join().expect("no client was lost");
        assert!(exists(self.puppet.pid()));
        let starts = self.daemon.lines_so_far(&["started, pid"]);
        assert_eq!(starts.len(), 2, "{starts:?}");
        self.daemon.stop();
    }
}

fn visit(address: SocketAddr, over: &AtomicBool, served: &AtomicUsize) {
    while !over.load(Ordering::Relaxed) {
        let report = client::ask_tcp(address);
        assert!(report.pid > 0);
        served.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends until the daemon takes no more; whether it is still there then.
fn pour(stream: &mut UnixStream, bytes: &[u8]) -> bool {
    stream.set_nonblocking(true).expect("O_NONBLOCK");
    for _ in 0..1024 {
        match stream.write(bytes) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
    true
}

#[test]
fn a_thousand_idle_clients_disturb_nobody() {
    let siege = Siege::begin();
    let before = crate::harness::settled_descriptors(siege.daemon.pid());
    let idle: Vec<UnixStream> = (0..1000).map(|_| siege.connect()).collect();
    eventually("all are accepted", || {
        descriptors(siege.daemon.pid()) >= before + 1000
    });
    siege.answers();
    drop(idle);
    eventually("all are gone", || {
        descriptors(siege.daemon.pid()) <= before + 2
    });
    siege.end();
}

#[test]
fn requests_without_end_are_answered_in_turn() {
    let siege = Siege::begin();
    let over = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..8)
        .map(|number| {
            let mut client = Varlink::connect(&siege.world);
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                let method = ["Status", "org.varlink.service.GetInfo"][number % 2];
                let mut count = 0;
                while !over.load(Ordering::Relaxed) {
                    client.ask(method, json!({}));
                    count += 1;
                }
                count
            })
        })
        .collect();
    for _ in 0..5 {
        siege.answers();
    }
    over.store(true, Ordering::Relaxed);
    for asker in askers {
        assert!(asker.join().expect("answered to the end") > 0);
    }
    siege.end();
}

#[test]
fn who_never_reads_costs_its_own_connection_only() {
    let siege = Siege::begin();
    let call = b"{\"method\":\"org.varlink.service.GetInterfaceDescription\",\
        \"parameters\":{\"interface\":\"io.listend.Manager\"}}\0";
    let before = resident_kib(siege.daemon.pid());
    let mut deaf: Vec<UnixStream> = (0..200).map(|_| siege.connect()).collect();
    for stream in &mut deaf {
        assert!(pour(stream, &call.repeat(100)), "its calls wait");
    }
    siege.answers();
    // A client that asks in advance waits in the socket: the daemon keeps little for it.
    let grown = resident_kib(siege.daemon.pid()).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB");
    siege.end();
}

#[test]
fn a_watcher_that_never_reads_is_dropped() {
    let world = World::new();
    // Its name is in each event three times, so that not too many are needed.
    let name = "w".repeat(200);
    let daemon = varlink::run(
        &world,
        &format!("workers: {{ {name}: {{ command: [sleep, '1000'] }} }}"),
    );
    daemon.line(&[".0: started"]);
    let mut watcher = Varlink::connect(&world);
    watcher.call_with("Watch", json!({}), json!({ "more": true }));
    let mut client = Varlink::connect(&world);
    let log = ["control socket: closed", "does not read"];
    let mut rounds = 0;
    // 4 MiB and what the socket holds may wait.
    while daemon.lines_so_far(&log).is_empty() {
        for instances in [100, 1] {
            client.ask("Scale", json!({ "worker": name, "instances": instances }));
        }
        rounds += 1;
        assert!(rounds < 100, "it is still there");
    }
    // It gets what is in its socket, and then the end, in the middle of an event.
    daemon.stop();
}

#[test]
fn nonsense_ends_a_connection_and_nothing_else() {
    let siege = Siege::begin();
    let deep = format!("{{\"method\":{}\0", "[".repeat(LONG));
    let nonsense: [&[u8]; 8] = [
        b"\0",
        b"hello\0",
        b"{}\0",
        b"[]\0",
        b"{\"method\":\"io.listend.Manager.Status\",\"more\":true,\"oneway\":true}\0",
        b"{\"method\":\"io.listend.Manager.Status\",\"upgrade\":true}\0",
        b"GET / HTTP/1.1\r\n\r\n\0",
        deep.as_bytes(),
    ];
    for _ in 0..20 {
        for bytes in nonsense {
            let mut client = Varlink::connect(&siege.world);
            client.send(bytes).expect("send");
            assert_eq!(client.end(), Vec::<serde_json::Value>::new());
        }
    }
    siege.end();
}

#[test]
fn calls_that_are_too_long_or_never_end_are_bounded() {
    let siege = Siege::begin();
    let before = resident_kib(siege.daemon.pid());
    // 1 MiB in one frame, which is more than any call has.
    for _ in 0..50 {
        let mut client = Varlink::connect(&siege.world);
        let _closed = client.send(&vec![b' '; 1 << 20]);
        assert_eq!(client.end(), Vec::<serde_json::Value>::new());
    }
    let mut half: Vec<UnixStream> = (0..500).map(|_| siege.connect()).collect();
    for stream in &mut half {
        assert!(
            pour_once(stream, &[b' '; LONG]),
            "it is waited for the rest"
        );
    }
    siege.answers();
    let grown = resident_kib(siege.daemon.pid()).saturating_sub(before);
    assert!(grown < 100 << 10, "{grown} KiB");
    drop(half);
    siege.end();
}

// Each has sent less than a call may have, and all together more than is kept (64 MiB).
#[test]
fn what_is_kept_for_all_together_is_bounded() {
    let siege = Siege::begin();
    let before = resident_kib(siege.daemon.pid());
    let half: Vec<UnixStream> = (0..1200)
        .map(|_| {
            let mut stream = siege.connect();
            assert!(pour_once(&mut stream, &[b' '; LONG]));
            stream
        })
        .collect();
    siege.daemon.line(&["too much is buffered for clients"]);
    siege.answers();
    let grown = resident_kib(siege.daemon.pid()).saturating_sub(before);
    assert!(grown < 100 << 10, "{grown} KiB");
    drop(half);
    siege.end();
}

/// Sends all of it.
fn pour_once(stream: &mut UnixStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

// A reader whose questions take long, here because the configuration is a FIFO that nobody writes to.
#[test]
fn readers_with_questions_are_in_nobodys_way_who_may_act() {
    let python = Path::new("/usr/bin/python3");
    if !require_root() || require_tool("setpriv").is_none() {
        return;
    }
    if !python.exists() {
        return skip("needs /usr/bin/python3");
    }
    let world = World::new();
    let mut words = varlink::words(&world).to_vec();
    words.extend(["--control-group".to_owned(), "54321".to_owned()]);
    let daemon = world.run_with(YAML, |start| {
        start.words_behind(words.iter().map(String::as_str));
    });
    let _puppet = world.puppet();
    let file = world.path("listend.yaml");
    std::fs::remove_file(&file).expect("remove");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let script = world.write(
        "ask.py",
        "import socket, sys\n\
         asked = []\n\
         for _ in range(6):\n\
        \x20   s = socket.socket(socket.AF_UNIX)\n\
        \x20   s.connect(sys.argv[1])\n\
        \x20   s.sendall(b'{\"method\":\"io.listend.Manager.Explain\",\
         \"parameters\":{\"listener\":\"web\"}}\\0')\n\
        \x20   s.settimeout(0.5)\n\
        \x20   try: print(s.recv(4096).decode())\n\
        \x20   except TimeoutError: print('waits')\n\
        \x20   asked.append(s)\n\
         print('end', flush=True)\n\
         sys.stdin.read()\n",
    );
    let mut reader = Command::new("setpriv")
        .args(["--reuid", "12345", "--regid", "12345", "--groups", "54321"])
        .args([python, &script, &varlink::path(&world)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start setpriv");
    let lines = BufReader::new(reader.stdout.take().expect("a pipe")).lines();
    let lines: Vec<String> = lines
        .map(|line| line.expect("UTF-8"))
        .take_while(|line| line != "end")
        .collect();
    assert_eq!(lines.len(), 6, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| *line == "waits").count(), 2);
    let refused = |line: &&String| line.contains("Refused") && line.contains("of your user");
    assert_eq!(lines.iter().filter(refused).count(), 4, "{lines:?}");
    // Root's question takes as long, but is taken.
    let mut client = Varlink::connect(&world);
    client.call_with("Reload", json!({ "dry_run": true }), json!({}));
    assert_eq!(
        Varlink::connect(&world).ask("Status", json!({}))["workers"][0]["name"],
        "app"
    );
    let waits = || children(daemon.pid()).len();
    eventually("all three are asked", || waits() == 5);
    let text = world.fill(YAML);
    std::fs::remove_file(&file).expect("remove");
    std::fs::write(&file, text).expect("write");
    drop(client);
    drop(reader.stdin.take());
    reader.wait().expect("the reader");
    eventually(
        "whoever asked has gone, and so have those who were to answer",
        || waits() == 2,
    );
    let mut client = Varlink::connect(&world);
    let told = client.ask("Reload", json!({ "dry_run": true }));
    assert_eq!(told["changes"], json!([]));
    daemon.stop();
}
