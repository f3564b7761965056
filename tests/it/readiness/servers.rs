//! Whether real servers are seen to take clients: not before they do, and then soon.

use crate::harness::servers::{apps, fastcgi, server, server_that_says};
use crate::harness::{DEADLINE, World, client, skip};
use listend::config::Every;
use listend::evidence::{Sight, SocketInode, Why, look};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The exit status of an application that lacks what it needs.
const LACKS: i32 = 77;

/// How a server is told its listener. In each way it is what `exec` runs in the end.
const NUMBER: &str = "exec 3<&0 0</dev/null; exec \"$@\"";
const LISTEN_FDS: &str =
    "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web; exec \"$@\"";
const STANDARD_INPUT: &str = "exec \"$@\"";

/// A server under way, with a listener that this process holds.
struct Server {
    child: Child,
    listener: TcpListener,
    /// Its files, gone when it is.
    _world: World,
    gate: UnixListener,
    since: Instant,
}

impl Server {
    /// Starts it, in a process group of its own. `$ADDRESS` and `$PORT` are the listener's.
    fn start(
        told: &str,
        command: &[&str],
        files: &[(&str, &str)],
        variables: &[(&str, &str)],
    ) -> Server {
        let world = World::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("an address");
        let fill = |text: &str| {
            let text = text.replace("$ADDRESS", &address.to_string());
            world.fill(&text.replace("$PORT", &address.port().to_string()))
        };
        for (name, text) in files {
            world.write(name, &fill(text));
        }
        let gate = UnixListener::bind(world.path("start")).expect("bind the gate");
        let held = OwnedFd::from(listener.try_clone().expect("dup"));
        let mut shell = Command::new("sh");
        shell.args(["-c", told, "sh"]);
        shell.args(command.iter().map(|word| fill(word)));
        shell
            .env("HOME", world.dir())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        shell.envs(variables.iter().map(|(name, value)| (*name, fill(value))));
        shell
            .current_dir(world.dir())
            .stdin(held)
            .stdout(Stdio::null());
        let since = Instant::now();
        let child = shell.process_group(0).spawn().expect("start sh");
        Server {
            child,
            listener,
            _world: world,
            gate,
            since,
        }
    }

    fn sight(&self) -> Sight {
        let inode = SocketInode::of(&self.listener).expect("fstat");
        look(self.child.id() as i32, &[[inode]], Every::All)
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    /// Waits until the application waits at the gate.
    fn at_the_gate(&self) -> UnixStream {
        let deadline = Instant::now() + DEADLINE;
        let mut fds = [PollFd::new(self.gate.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, PollTimeout::from(100_u8)) == Ok(0) {
            assert!(Instant::now() < deadline, "nobody came to the gate");
        }
        self.gate.accept().expect("accept").0
    }

    /// Looks until it is seen; None where it lacks something.
    fn seen(&mut self, name: &str) -> Option<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let sight = self.sight();
            if sight == Sight::Seen {
                break;
            }
            if let Some(status) = self.child.try_wait().expect("wait") {
                assert_eq!(status.code(), Some(LACKS), "{name} ended: {status}");
                skip(&format!("{name} is not installed"));
                return None;
            }
            if matches!(sight, Sight::Hidden(Why::Unreadable { .. }))
                && is_root_without_sys_ptrace()
            {
                skip("root has no CAP_SYS_PTRACE here, and the server takes another user");
                return None;
            }
            assert_eq!(sight, Sight::NotYet, "{name}");
            assert!(Instant::now() < deadline, "{name} is not seen");
            std::thread::sleep(Duration::from_millis(5));
        }
        told(name, self.since.elapsed());
        Some(())
    }

    fn answers(&self, name: &str) {
        let stream = client::tcp(self.address()).expect("connect");
        let answer = client::http(stream, "/").expect("an answer");
        assert!(
            answer.contains(" 200 ") && answer.contains("pid "),
            "{name}: {answer:?}"
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

#[expect(clippy::print_stdout, reason = "for the table in docs/readiness.md")]
fn told(name: &str, time: Duration) {
    println!("{name}: seen after {} ms", time.as_millis());
}

/// As in most containers. CAP_SYS_PTRACE is 19 (capabilities(7), linux/capability.h).
fn is_root_without_sys_ptrace() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("read /proc");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.expect("CapEff").trim(), 16);
    crate::harness::is_root() && effective.expect("a hexadecimal number") >> 19 & 1 == 0
}

/// It starts as far as to its application, is not seen there, then is, and answers.
fn is_seen_behind_the_gate(name: &str, told: &str, command: &[&str], variables: &[(&str, &str)]) {
    let gate = [("START", "$DIR/start")];
    let variables: Vec<_> = variables.iter().chain(&gate).copied().collect();
    let mut server = Server::start(told, command, &[], &variables);
    let at_the_gate = server.at_the_gate();
    // Its other processes settle meanwhile, so not one look only.
    for _ in 0..20 {
        assert_eq!(server.sight(), Sight::NotYet, "{name}");
        std::thread::yield_now();
    }
    drop(at_the_gate);
    let gate = server.gate.try_clone().expect("dup");
    // A server with more than one process has more than one that comes to the gate. Whoever opens it
    // ends with the test program, so that a test that fails waits for nobody.
    std::thread::spawn(move || gate.incoming().for_each(drop));
    if server.seen(name).is_some() {
        server.answers(name);
    }
}

/// It cannot be stopped half-way; it is seen, and answers.
fn is_seen(
    name: &str,
    told: &str,
    command: &[&str],
    files: &[(&str, &str)],
    variables: &[(&str, &str)],
) {
    let mut server = Server::start(told, command, files, variables);
    if server.seen(name).is_some() {
        server.answers(name);
    }
}

fn gunicorn(class: &str) {
    let Some(gunicorn) = server("gunicorn") else {
        return;
    };
    let apps = apps();
    let gunicorn = gunicorn.to_str().expect("UTF-8");
    let command = [
        gunicorn,
        "--chdir",
        &apps,
        "--workers",
        "2",
        "--log-level",
        "warning",
        "-k",
        class,
        "wsgi:app",
    ];
    is_seen_behind_the_gate(&format!("gunicorn {class}"), LISTEN_FDS, &command, &[]);
}

#[test]
fn gunicorn_with_processes() {
    gunicorn("sync");
}

#[test]
fn gunicorn_with_threads() {
    gunicorn("gthread");
}

fn uvicorn(more: &[&str]) {
    let Some(uvicorn) = server("uvicorn") else {
        return;
    };
    let apps = apps();
    let uvicorn = uvicorn.to_str().expect("UTF-8");
    let mut command = vec![
        uvicorn,
        "--app-dir",
        &apps,
        "--log-level",
        "warning",
        "--fd",
        "3",
    ];
    command.extend(more);
    command.push("asgi:app");
    is_seen_behind_the_gate(
        &format!("uvicorn {}", more.join(" ")),
        NUMBER,
        &command,
        &[],
    );
}

#[test]
fn uvicorn_alone() {
    uvicorn(&["--loop", "asyncio"]);
}

#[test]
fn uvicorn_with_processes() {
    uvicorn(&["--workers", "2"]);
}

#[test]
fn hypercorn() {
    let Some(hypercorn) = server_that_says("hypercorn", "--help") else {
        return;
    };
    let apps = apps();
    let hypercorn = hypercorn.to_str().expect("UTF-8");
    let command = [
        hypercorn,
        "--bind",
        "fd://3",
        "--log-level",
        "warning",
        "asgi:app",
    ];
    is_seen_behind_the_gate("hypercorn", NUMBER, &command, &[("PYTHONPATH", &apps)]);
}

#[test]
fn node() {
    let Some(node) = server("node") else {
        return;
    };
    let script = format!("{}/server.js", apps());
    let command = [node.to_str().expect("UTF-8"), &script, "3"];
    is_seen_behind_the_gate("node", NUMBER, &command, &[]);
}

fn python(way: &str) {
    let Some(python) = server("python3") else {
        return;
    };
    let script = format!("{}/listener.py", apps());
    let command = [python.to_str().expect("UTF-8"), &script, way];
    is_seen_behind_the_gate(&format!("python {way}"), NUMBER, &command, &[]);
}

#[test]
fn python_that_accepts() {
    python("accept");
}

#[test]
fn python_with_socketserver() {
    python("socketserver");
}

#[test]
fn python_with_asyncio() {
    python("asyncio");
}

#[test]
fn python_with_uvloop() {
    python("uvloop");
}

#[test]
fn python_with_gevent() {
    python("gevent");
}

#[test]
fn python_with_waitress() {
    python("waitress");
}

#[test]
fn python_with_tornado() {
    python("tornado");
}

#[test]
fn python_with_aiohttp() {
    python("aiohttp");
}

#[test]
fn java() {
    let Some(java) = server("java") else {
        return;
    };
    let source = format!("{}/Listener.java", apps());
    let command = [java.to_str().expect("UTF-8"), &source];
    is_seen_behind_the_gate("java", STANDARD_INPUT, &command, &[]);
}

fn puma(name: &str, more: &[&str]) {
    let Some(puma) = server("puma") else {
        return;
    };
    let rackup = format!("{}/config.ru", apps());
    let puma = puma.to_str().expect("UTF-8");
    let mut command = vec![puma, "--quiet", "--bind", "tcp://$ADDRESS"];
    command.extend(more);
    command.push(&rackup);
    is_seen_behind_the_gate(name, LISTEN_FDS, &command, &[]);
}

#[test]
fn puma_alone() {
    puma("puma", &[]);
}

#[test]
fn puma_with_processes() {
    puma("puma --workers 2", &["--workers", "2"]);
}

#[test]
fn unicorn() {
    let Some(unicorn) = server("unicorn") else {
        return;
    };
    let rackup = format!("{}/config.ru", apps());
    let command = [unicorn.to_str().expect("UTF-8"), &rackup];
    is_seen_behind_the_gate("unicorn", LISTEN_FDS, &command, &[]);
}

fn nginx(name: &str, events: &str) {
    let Some(nginx) = server_that_says("nginx", "-v") else {
        return;
    };
    let configuration = format!(
        "pid $DIR/nginx.pid; error_log stderr; worker_processes 2; daemon off;
events {{ {events} }}
http {{
    access_log off;
    client_body_temp_path $DIR; proxy_temp_path $DIR; fastcgi_temp_path $DIR;
    uwsgi_temp_path $DIR; scgi_temp_path $DIR;
    server {{ listen $ADDRESS; location / {{ return 200 'pid 0'; }} }}
}}
"
    );
    let files = [("nginx.conf", configuration.as_str())];
    let command = [
        nginx.to_str().expect("UTF-8"),
        "-e",
        "stderr",
        "-c",
        "$DIR/nginx.conf",
    ];
    is_seen(name, NUMBER, &command, &files, &[("NGINX", "3;")]);
}

#[test]
fn nginx_with_epoll() {
    nginx("nginx", "");
}

#[test]
fn nginx_with_a_mutex() {
    nginx("nginx accept_mutex", "accept_mutex on;");
}

#[test]
fn lighttpd() {
    let Some(lighttpd) = server_that_says("lighttpd", "-v") else {
        return;
    };
    let configuration = "server.systemd-socket-activation = \"enable\"
server.document-root = \"$DIR\"
index-file.names = ( \"index.txt\" )
";
    let files = [("lighttpd.conf", configuration), ("index.txt", "pid 0\n")];
    let command = [
        lighttpd.to_str().expect("UTF-8"),
        "-D",
        "-f",
        "$DIR/lighttpd.conf",
    ];
    is_seen("lighttpd", LISTEN_FDS, &command, &files, &[]);
}

fn haproxy(name: &str, mode: &str) {
    let Some(haproxy) = server_that_says("haproxy", "-v") else {
        return;
    };
    let configuration = "defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s
frontend web
    bind fd@3
    http-request return status 200 content-type text/plain string \"pid 0\"
";
    let files = [("haproxy.cfg", configuration)];
    let command = [
        haproxy.to_str().expect("UTF-8"),
        mode,
        "-f",
        "$DIR/haproxy.cfg",
    ];
    is_seen(name, NUMBER, &command, &files, &[]);
}

#[test]
fn haproxy_alone() {
    haproxy("haproxy -db", "-db");
}

#[test]
fn haproxy_with_a_master() {
    haproxy("haproxy -Ws", "-Ws");
}

#[test]
fn the_sample_worker() {
    let command = ["$LISTEND", "hello-worker"];
    is_seen("hello-worker", LISTEN_FDS, &command, &[], &[]);
}

#[test]
fn php_fpm() {
    // Debian has the version in the name.
    let names = ["php-fpm", "php-fpm8.4", "php-fpm8.2"];
    let is_there = |name: &&str| Path::new("/usr/sbin").join(name).exists();
    let name = names.into_iter().find(is_there).unwrap_or(names[0]);
    let Some(fpm) = server_that_says(name, "-v") else {
        return;
    };
    let configuration = "[global]
error_log = $DIR/fpm.log
daemonize = no
[www]
listen = $ADDRESS
pm = static
pm.max_children = 2
ping.path = /ping
user = www-data
";
    let files = [("fpm.conf", configuration)];
    let command = [
        fpm.to_str().expect("UTF-8"),
        "-F",
        "-R",
        "-y",
        "$DIR/fpm.conf",
    ];
    let variables = [("FPM_SOCKETS", "$ADDRESS=3")];
    let mut server = Server::start(NUMBER, &command, &files, &variables);
    if server.seen("php-fpm").is_some() {
        let mut stream = client::tcp(server.address()).expect("connect");
        stream.write_all(&fastcgi("/ping")).expect("write");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("read");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("pong"), "{answer:?}");
    }
}
