//! Each protocol of `handoff:` with the servers that speak it: a TCP and a unix listener, by the server's
//! own reader of the variables, over a restart under load.

use crate::harness::load::{Answer, Counts, Load, Question, Target};
use crate::harness::rollout::tell;
use crate::harness::servers::{apps, fastcgi, server, server_that_says};
use crate::harness::{World, client, eventually, free_port, require_tool};
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

/// What a server does with clients when it stops.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    /// All are answered.
    Drains,
    /// Each client may lose a connection that was just accepted.
    CutsTheLast,
    /// It removes the path of its unix socket: clients are refused until that is restored.
    RemovesThePath,
}

/// A worker with a listener `web` at a port and `app` at `app.sock`.
struct Served<'a> {
    address: SocketAddr,
    /// `handoff` and further keys.
    lines: &'a str,
    command: &'a [&'a str],
    question: Question,
    clients: usize,
    stop: Stop,
}

impl Served<'_> {
    fn yaml(&self) -> String {
        let mut yaml = format!(
            "
listeners:
  web: '{}'
  app: {{ address: 'unix:$DIR/app.sock', mode: 0666 }}
workers:
  app:
    listeners: [web, app]
    command:
",
            self.address
        );
        for word in self.command {
            let _ = writeln!(yaml, "    - '{word}'");
        }
        if !self.lines.contains("ready:") {
            yaml.push_str("    ready: accepting\n");
        }
        for line in self.lines.lines() {
            let _ = writeln!(yaml, "    {line}");
        }
        yaml
    }

    /// Asks at both sockets while the server is restarted and restarted again.
    fn serves_at_both_sockets(self, world: &World) {
        let daemon = world.run_with(&self.yaml(), |start| {
            start.words_behind(["--control", "$DIR/control.sock"]);
            start.env("HOME", "$DIR");
        });
        daemon.line(&["every eager worker is ready"]);
        let path = world.path("app.sock");
        let inode = || fs::metadata(&path).map(|metadata| metadata.ino()).ok();
        // A server that does not know the socket for its own would have bound another one.
        let held = inode();
        assert!(held.is_some(), "{}", path.display());
        let asking = |target: Target| Load::asking(target, self.clients, self.question.clone());
        let loads = [asking(self.address.into()), asking(path.as_path().into())];
        for _ in 0..2 {
            loads.iter().for_each(|load| load.wait_for_answers(50));
            tell(world, &["restart", "app"]).expect_code(0);
            // The old server has gone, and nothing is started that would repair anything.
            eventually("the path is there", || inode() == held);
            client::unix(&path).expect("a listener");
        }
        loads.iter().for_each(|load| load.wait_for_answers(50));
        let [tcp, unix] = loads.map(Load::stop);
        let cut = match self.stop {
            Stop::CutsTheLast => 2 * self.clients,
            Stop::Drains | Stop::RemovesThePath => 0,
        };
        for (summary, may_be_refused) in [(tcp, false), (unix, self.stop == Stop::RemovesThePath)] {
            let Counts {
                answered: _,
                refused,
                reset,
                short,
                timed_out,
                wrong,
                others,
            } = summary.counts;
            assert_eq!((timed_out, wrong, others), (0, 0, 0), "{summary}");
            assert!(reset + short <= cut, "{summary}");
            assert!(refused == 0 || may_be_refused, "{summary}");
        }
        daemon.stop();
        assert!(!path.exists(), "{}", path.display());
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

#[test]
fn nginx_serves_the_sockets_of_its_variable() {
    let Some(nginx) = server_that_says("nginx", "-v") else {
        return;
    };
    let (world, address) = (World::new(), any_port());
    let configuration = format!(
        "pid $DIR/nginx.pid; error_log stderr; worker_processes 2;
events {{ }}
http {{
    access_log off;
    client_body_temp_path $DIR; proxy_temp_path $DIR; fastcgi_temp_path $DIR;
    uwsgi_temp_path $DIR; scgi_temp_path $DIR;
    server {{ listen {address}; listen unix:$DIR/app.sock; location / {{ return 200 'pid 0'; }} }}
}}
"
    );
    world.write("nginx.conf", &configuration);
    let nginx = nginx.to_str().expect("UTF-8");
    let served = Served {
        address,
        lines: "handoff: nginx\nstop_signal: SIGQUIT",
        command: &[nginx, "-e", "stderr", "-c", "$DIR/nginx.conf"],
        question: Question::http(),
        clients: 3,
        stop: Stop::Drains,
    };
    served.serves_at_both_sockets(&world);
}

// Starman takes every socket of Server::Starter for TCP (Net::Server::SS::PreFork 0.05), and so serves
// no unix listener.
#[test]
fn starlet_serves_the_sockets_of_server_starter() {
    let Some(plackup) = server_that_says("plackup", "--version") else {
        return;
    };
    let world = World::new();
    let app = "sub { [200, ['Content-Length', 3], ['pid']] }\n";
    world.write("app.psgi", app);
    let plackup = plackup.to_str().expect("UTF-8");
    let file = "$DIR/app.psgi";
    let served = Served {
        address: any_port(),
        lines: "handoff: server-starter",
        command: &[plackup, "-s", "Starlet", "--max-workers", "4", "-a", file],
        question: Question::http(),
        clients: 1,
        stop: Stop::CutsTheLast,
    };
    served.serves_at_both_sockets(&world);
}

/// As Server::Starter itself reads them.
#[test]
fn server_starter_reads_what_it_is_told() {
    let Some(perl) = require_tool("perl") else {
        return;
    };
    if require_tool("start_server").is_none() {
        return;
    }
    let (world, address) = (World::new(), any_port());
    let script = "use Server::Starter qw(server_ports);
open my $out, '>', \"$ARGV[0].new\" or die;
my $ports = server_ports();
print $out \"$_ $ports->{$_}\\n\" for sort keys %$ports;
print $out \"generation $ENV{SERVER_STARTER_GENERATION}\\n\";
close $out;
rename \"$ARGV[0].new\", $ARGV[0];
sleep;
";
    world.write("ports.pl", script);
    let perl = perl.to_str().expect("UTF-8");
    let served = Served {
        address,
        lines: "handoff: server-starter",
        command: &[perl, "$DIR/ports.pl", "$DIR/told"],
        question: Question::http(),
        clients: 1,
        stop: Stop::Drains,
    };
    let yaml = served.yaml().replace("ready: accepting", "ready: started");
    let daemon = world.run(&yaml);
    let told = world.path("told");
    eventually("it has read them", || told.exists());
    let told = fs::read_to_string(told).expect("a file");
    let path = world.path("app.sock");
    let mut expected = [format!("{} 4", path.display()), format!("{address} 3")];
    expected.sort();
    assert_eq!(told, format!("{}\ngeneration 1\n", expected.join("\n")));
    daemon.stop();
}

#[test]
fn puma_serves_the_sockets_of_its_variables() {
    let Some(puma) = server("puma") else {
        return;
    };
    let (world, address) = (World::new(), any_port());
    let puma = puma.to_str().expect("UTF-8");
    let rackup = format!("{}/config.ru", apps());
    let tcp = format!("tcp://{address}");
    let unix = "unix://$DIR/app.sock";
    let served = Served {
        address,
        lines: "handoff: puma",
        command: &[puma, "--bind", &tcp, "--bind", unix, &rackup],
        question: Question::http(),
        clients: 2,
        stop: Stop::CutsTheLast,
    };
    served.serves_at_both_sockets(&world);
}

/// php-fpm with pools at these, as in FPM_SOCKETS.
fn php_fpm(lines: &str, unix: &str, stop: Stop) {
    let names = ["php-fpm", "php-fpm8.4", "php-fpm8.2"];
    let mut names = names.iter();
    let Some(fpm) = names.find_map(|name| server_that_says(name, "-v")) else {
        return;
    };
    let (world, address) = (World::new(), any_port());
    // More children than clients: one that waits for clients is seen then.
    let pool = |name: &str, listen: &str| {
        format!("[{name}]\nlisten = {listen}\nuser = nobody\npm = static\npm.max_children = 6\n")
    };
    let configuration = format!(
        "[global]
pid = $DIR/fpm.pid
error_log = /proc/self/fd/2
process_control_timeout = 20s
{}{}",
        pool("tcp", &address.to_string()),
        pool("unix", unix)
    );
    world.write("fpm.conf", &configuration);
    world.write("pid.php", "pid <?php echo getmypid();");
    let script = world.path("pid.php");
    let fpm = fpm.to_str().expect("UTF-8");
    let served = Served {
        address,
        lines: &format!(
            "{}\nstop_signal: SIGQUIT",
            lines.replace("ADDRESS", &address.to_string())
        ),
        command: &[fpm, "--nodaemonize", "--fpm-config", "$DIR/fpm.conf"],
        question: Question {
            send: fastcgi(script.to_str().expect("UTF-8")),
            answer: Answer::Bytes(b"pid ".to_vec()),
            ..Question::http()
        },
        clients: 2,
        stop,
    };
    served.serves_at_both_sockets(&world);
}

// sapi/fpm/fpm/fpm_sockets.c, fpm_sockets_cleanup: unlink(ls->key).
#[test]
fn a_path_that_php_fpm_removes_is_restored_before_the_next_start() {
    php_fpm("handoff: php-fpm", "$DIR/app.sock", Stop::RemovesThePath);
}

#[test]
fn php_fpm_that_is_told_a_path_which_does_not_exist_loses_nobody() {
    let lines = "handoff: none
environment: { FPM_SOCKETS: 'ADDRESS={fd:web},/nonexistent/app.sock={fd:app}' }";
    php_fpm(lines, "/nonexistent/app.sock", Stop::Drains);
}

/// A worker of einhorn, in this language, which says at einhorn's socket that it is up.
fn einhorn_serves(interpreter: &str, app: &str) {
    let Some(interpreter) = require_tool(interpreter) else {
        return;
    };
    let (world, address) = (World::new(), any_port());
    let served = Served {
        address,
        lines: "handoff: einhorn\nready: einhorn\nstop_signal: SIGUSR2\nnonblocking: true",
        command: &[
            interpreter.to_str().expect("UTF-8"),
            &format!("{}/{app}", apps()),
        ],
        question: Question::http(),
        clients: 3,
        stop: Stop::Drains,
    };
    served.serves_at_both_sockets(&world);
}

#[test]
fn a_worker_of_einhorn_in_python_serves_the_sockets_of_its_variables() {
    einhorn_serves("python3", "einhorn.py");
}

#[test]
fn a_worker_of_einhorn_in_ruby_serves_the_sockets_of_its_variables() {
    einhorn_serves("ruby", "einhorn.rb");
}
