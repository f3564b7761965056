//! Real QUIC servers (aioquic, quinn) are replaced again and again under open connections.

#![expect(
    clippy::print_stderr,
    reason = "how many are left is for whoever runs the test"
)]

use super::may_steer;
use crate::harness::reloading::{ask, run};
use crate::harness::{World, free_port, require_tool, skip};
use crate::servers::source::{are_crates_built, crates};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const CONNECTIONS: usize = 100;

/// A Python that has aioquic.
fn python() -> Option<String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let own = own.to_str().expect("UTF-8").to_owned();
    let mut all = [own, "python3".to_owned()].into_iter();
    let has_it = |python: &String| {
        let mut command = Command::new(python);
        command.args(["-c", "import aioquic"]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let found = all.find(has_it);
    if found.is_none() {
        skip("no python3 has aioquic");
    }
    found
}

struct Clients {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Clients {
    fn start(python: &str, world: &World, port: u16, patience: u32) -> Clients {
        let script = world.write("client.py", include_str!("client.py"));
        let mut child = Command::new(python)
            .arg(script)
            .args([
                port.to_string(),
                CONNECTIONS.to_string(),
                patience.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the clients");
        let ask = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Clients {
            child,
            ask,
            answers,
        }
    }

    /// How many are still served by who served them first, and how many answers there were in all.
    fn kept(&mut self) -> (usize, usize) {
        self.ask.write_all(b"\n").expect("ask the clients");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("read the answer");
        let (kept, answers) = line.trim().split_once(' ').expect("two numbers");
        let number = |text: &str| text.parse().expect("a number");
        (number(kept), number(answers))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A server that answers each question with its pid.
#[derive(Debug, Clone, Copy)]
enum Server {
    Aioquic,
    Quinn,
}

impl Server {
    /// The program and its words, to which certificate and key are added.
    fn command(self, python: &str, world: &World) -> String {
        match self {
            Server::Aioquic => {
                let script = world.write("server.py", include_str!("server.py"));
                format!("{python}, {}", script.display())
            }
            Server::Quinn => format!("{}, quinn", crates().join("server").display()),
        }
    }
}

/// How many of the connections, which all are asking meanwhile, are left after so many rolling restarts.
fn left_after(restarts: usize, python: &str, server: Server, flows: &str, patience: u32) -> usize {
    let world = World::new();
    let (key, certificate) = (world.path("key.pem"), world.path("cert.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-subj", "/CN=localhost", "-days", "2", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl").success());
    let command = server.command(python, &world);
    let port = free_port();
    let yaml = format!(
        "listeners:\n  web: {{ address: 'udp://127.0.0.1:{port}'{flows} }}\nworkers:\n  app:\n    \
         command: [{command}, {}, {}]\n    listeners: [web]\n    ready: notify\n    \
         stop_timeout: 600s\n    rollout: {{ min_ready: 0s }}\n",
        certificate.display(),
        key.display()
    );
    let daemon = run(&world, &yaml);
    daemon.line(&["app.0: ready"]);
    let mut clients = Clients::start(python, &world, port, patience);
    let (kept, before) = clients.kept();
    assert_eq!(kept, CONNECTIONS);
    for _ in 0..restarts {
        ask(&world, "restart app").expect_code(0);
    }
    let (kept, answers) = clients.kept();
    eprintln!(
        "{server:?}, {restarts} restarts{flows}: {kept} of {CONNECTIONS} connections are left, {} answers meanwhile",
        answers - before
    );
    drop(clients);
    daemon.stop();
    kept
}

fn a_hundred_connections_survive(server: Server) {
    let world = World::new();
    if !may_steer(&world) || require_tool("openssl").is_none() {
        return;
    }
    let Some(python) = python() else { return };
    let sticky = ", flows: sticky, flow_key: quic, flow_timeout: 600s";
    assert_eq!(left_after(10, &python, server, sticky, 60), CONNECTIONS);
    // Beside it: what it is for.
    assert_eq!(left_after(10, &python, server, "", 5), 0);
}

#[test]
fn a_hundred_connections_survive_ten_new_servers_of_aioquic() {
    a_hundred_connections_survive(Server::Aioquic);
}

#[test]
fn a_hundred_connections_survive_ten_new_servers_of_quinn() {
    if std::env::var_os("LISTEND_TEST_LONG").is_none() {
        skip("LISTEND_TEST_LONG is not set: the server takes minutes to build");
        return;
    }
    assert!(are_crates_built(), "cargo cannot build tests/servers/rust");
    a_hundred_connections_survive(Server::Quinn);
}
