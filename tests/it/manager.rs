//! What listend tells the service manager that started it (sd_notify(3)).

use crate::harness::reloading::ask;
use crate::harness::varlink::Varlink;
use crate::harness::{DEADLINE, World, container, eventually, kill, require_tool};
use nix::sys::signal::Signal;
use serde_json::json;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// A service manager, at `$DIR/notify`.
struct Manager(UnixDatagram);

impl Manager {
    fn of(world: &World) -> Manager {
        Manager::at(&world.path("notify"))
    }

    fn at(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).expect("bind");
        socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
        Manager(socket)
    }

    /// The next message of any kind.
    #[track_caller]
    fn hears_any(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// The next message but those that ask for more time.
    #[track_caller]
    fn hears(&self) -> String {
        loop {
            let message = self.hears_any();
            if !asks_for_time(&message) {
                return message;
            }
        }
    }

    /// Waits for this message; what came before it.
    #[track_caller]
    fn hears_at_last(&self, wanted: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let message = self.hears();
            if message == wanted {
                return before;
            }
            before.push(message);
            assert!(before.len() < 100, "no {wanted:?} in {before:#?}");
        }
    }

    /// What came and was not heard yet.
    fn rest(&self) -> Vec<String> {
        self.0.set_nonblocking(true).expect("O_NONBLOCK");
        let mut buffer = [0; 4096];
        let next = || {
            let length = self.0.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        std::iter::from_fn(next)
            .filter(|message| !asks_for_time(message))
            .collect()
    }

    /// Waits until more time is asked for.
    #[track_caller]
    fn is_asked_for_time(&self) {
        while !asks_for_time(&self.hears_any()) {}
    }
}

fn asks_for_time(message: &str) -> bool {
    message == "EXTEND_TIMEOUT_USEC=30000000\n"
}

const TWO: &str = "
listeners: { web: '127.0.0.1:0', admin: 'unix:$DIR/admin' }
workers:
  app: { command: [$PROBE, puppet, $EVENTS], listeners: [web], instances: 2 }
  lazy: { command: [$PROBE, puppet, $EVENTS], listeners: [admin], activation: on-demand }
";

#[test]
fn it_is_ready_when_its_workers_are_and_says_when_it_stops() {
    let world = World::new();
    let manager = Manager::of(&world);
    let daemon = world.run_with(TWO, |start| {
        start.env("NOTIFY_SOCKET", "$DIR/notify");
    });
    let ready = "READY=1\nSTATUS=2 listeners, 2 of 2 workers ready, 2 instances\n";
    let before = manager.hears_at_last(ready);
    assert!(
        before
            .iter()
            .all(|one| one.starts_with("STATUS=starting; ")),
        "{before:#?}"
    );
    let puppets = world.puppets(2);
    for puppet in &puppets {
        let variables = puppet.report.env.keys();
        let told: Vec<_> = variables.filter(|name| name.contains("NOTIFY")).collect();
        assert!(told.is_empty(), "{told:?}");
    }
    daemon.stop();
    let before = manager.hears_at_last("STOPPING=1\nSTATUS=stopping: 2 instances are left\n");
    assert!(before.is_empty(), "{before:#?}");
    assert!(manager.rest().iter().all(|one| !one.contains("READY")));
}

const NEVER: &str = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$DIR/nothing]
    listeners: [web]
    restart: { limit: 1 in 1h, backoff: 1ms }
";

// Or the manager's TimeoutStartSec= ends the workers that serve, for the sake of one that does not.
#[test]
fn it_is_ready_although_a_worker_has_failed_and_is_started_again() {
    let world = World::new();
    let manager = Manager::of(&world);
    let daemon = world.run_with(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app: { command: [$DIR/nothing], listeners: [web], restart: { backoff: 1h } }
",
        |start| {
            start.env("NOTIFY_SOCKET", "$DIR/notify");
        },
    );
    let before = manager.hears_at_last(
        "READY=1\nSTATUS=degraded: app; 1 listener, 0 of 1 worker ready, 0 instances\n",
    );
    assert!(
        before
            .iter()
            .all(|one| one.starts_with("STATUS=starting; ")),
        "{before:#?}"
    );
    daemon.line(&["startup complete, but 1 instance failed to start"]);
    daemon.stop();
}

// systemd.service(5): TimeoutStartSec= and TimeoutStopSec= count for the whole service. Each worker
// has its own limits, which may be longer.
#[test]
fn it_asks_for_time_for_as_long_as_something_moves() {
    let world = World::new();
    let manager = Manager::of(&world);
    let daemon = world.run_with(
        "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [web], ready: notify } }
",
        |start| {
            start.env("NOTIFY_SOCKET", "$DIR/notify");
            start.words_behind(["--control", "$DIR/control.sock"]);
        },
    );
    // Twice: while it starts, and again ten seconds later, because it is not ready yet.
    manager.is_asked_for_time();
    let mut puppet = world.puppet();
    manager.is_asked_for_time();
    puppet.ask("notify READY=1");
    manager.hears_at_last("READY=1\nSTATUS=1 listener, 1 of 1 worker ready, 1 instance\n");
    // A rollout.
    let restart = json!({ "worker": "app", "no_wait": true });
    Varlink::connect(&world).ask("Restart", restart);
    manager.is_asked_for_time();
    let mut new = world.puppet();
    new.ask("notify READY=1");
    daemon.line(&["app: generation 2 has taken over"]);
    // A stop.
    daemon.signal(Signal::SIGTERM);
    manager.hears_at_last("STOPPING=1\nSTATUS=stopping: 1 instance is left\n");
    manager.is_asked_for_time();
    daemon.finish().expect_code(0);
}

// Or a manager that waits for READY=1 would end the workers that are well for the sake of one.
#[test]
fn it_is_ready_without_a_worker_that_has_failed_for_good() {
    let world = World::new();
    let manager = Manager::of(&world);
    let yaml = format!("{NEVER}  well: {{ command: [$PROBE, puppet, $EVENTS], ready: notify }}\n");
    let daemon = world.run_with(&yaml, |start| {
        start.env("NOTIFY_SOCKET", "$DIR/notify");
    });
    let mut puppet = world.puppet();
    daemon.line(&["worker app: every instance has failed"]);
    assert!(manager.rest().iter().all(|one| !one.contains("READY=1")));
    manager.0.set_nonblocking(false).expect("O_NONBLOCK");
    puppet.ask("notify READY=1");
    manager.hears_at_last(
        "READY=1\nSTATUS=degraded: app; 1 listener, 1 of 2 workers ready, 1 instance\n",
    );
    daemon.stop();
}

// sd_notify(3): RELOADING=1 with MONOTONIC_USEC=, and READY=1 when that is over.
#[test]
fn a_reload_is_told_when_it_begins_and_when_it_is_over_however_it_went() {
    let world = World::new();
    let manager = Manager::of(&world);
    let daemon = world.run_with(TWO, |start| {
        start.env("NOTIFY_SOCKET", "$DIR/notify");
    });
    let status = "2 listeners, 2 of 2 workers ready, 2 instances";
    let ready = format!("READY=1\nSTATUS={status}\n");
    manager.hears_at_last(&ready);
    for text in [world.fill(TWO), "workers: {".to_owned()] {
        world.write("listend.yaml", &text);
        daemon.signal(Signal::SIGHUP);
        let heard = manager.hears();
        let time = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let time = time.and_then(|time| time.trim_end().parse::<u64>().ok());
        assert!(time.is_some_and(|time| time > 0), "{heard:?}");
        let before = manager.hears_at_last(&ready);
        assert!(
            before.iter().all(|one| one.starts_with("STATUS=")),
            "{before:#?}"
        );
    }
    daemon.stop();
    manager.hears_at_last("STOPPING=1\nSTATUS=stopping: 2 instances are left\n");
}

#[test]
fn bound_is_ready_without_the_workers() {
    let world = World::new();
    let manager = Manager::of(&world);
    let daemon = world.run_with(NEVER, |start| {
        start.env("NOTIFY_SOCKET", "$DIR/notify");
        start.words_behind(["--ready-when", "bound"]);
    });
    // Before anything is started.
    assert_eq!(
        manager.hears(),
        "READY=1\nSTATUS=1 listener, 0 of 1 worker ready, 0 instances\n"
    );
    assert_eq!(
        manager.hears(),
        "STATUS=degraded: app; 1 listener, 0 of 1 worker ready, 0 instances\n"
    );
    daemon.stop();
}

#[test]
fn a_worker_that_crashes_is_told_about_until_it_runs_again() {
    let world = World::new();
    let manager = Manager::of(&world);
    let daemon = world.run_with(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    # A status is told a second after the one before it at the earliest.
    restart: { backoff: 3s }
",
        |start| {
            start.env("NOTIFY_SOCKET", "$DIR/notify");
        },
    );
    manager.hears_at_last("READY=1\nSTATUS=1 listener, 1 of 1 worker ready, 1 instance\n");
    kill(world.puppet().pid(), Signal::SIGKILL);
    assert_eq!(
        manager.hears(),
        "STATUS=degraded: app; 1 listener, 0 of 1 worker ready, 0 instances\n"
    );
    let before = manager.hears_at_last("STATUS=1 listener, 1 of 1 worker ready, 1 instance\n");
    // It may have been on its way to its program just then.
    assert!(before.len() <= 1, "{before:#?}");
    daemon.stop();
}

#[test]
fn a_watchdog_is_fed_while_nothing_happens() {
    let world = World::new();
    let manager = Manager::of(&world);
    let daemon = world.run_with(TWO, |start| {
        start.env("NOTIFY_SOCKET", "$DIR/notify");
        start.env("WATCHDOG_USEC", "20000");
    });
    for _ in 0..3 {
        manager.hears_at_last("WATCHDOG=1\n");
    }
    daemon.stop();
}

// Rule: the manager does not wait for longer than it did for the listend before.
#[test]
fn whoever_goes_on_shows_at_once_that_it_lives() {
    let world = World::new();
    let manager = Manager::of(&world);
    let daemon = world.run_with(TWO, |start| {
        start.env("NOTIFY_SOCKET", "$DIR/notify");
        // The next is due in half an hour.
        start.env("WATCHDOG_USEC", "3600000000");
        start.words_behind(["--control", "$DIR/control.sock"]);
    });
    let _puppets = world.puppets(2);
    for _ in 0..2 {
        ask(&world, "upgrade").expect_code(0);
        manager.hears_at_last("WATCHDOG=1\n");
    }
    daemon.stop();
}

#[test]
fn a_manager_that_is_not_there_is_complained_about_once() {
    let world = World::new();
    let daemon = world.run_with(TWO, |start| {
        start.env("NOTIFY_SOCKET", "$DIR/nobody");
    });
    daemon.line(&["cannot notify the service manager", "nobody"]);
    let _puppets = world.puppets(2);
    daemon.stop();
    let complaints = daemon.lines_so_far(&["cannot notify the service manager"]);
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
}

// systemd.service(5), Type=notify: "the service manager will proceed with starting follow-up units
// after this notification message has been sent".
#[test]
fn a_booted_systemd_takes_it_as_type_notify() {
    if require_tool("systemd-nspawn").is_none() {
        return;
    }
    let Some(container) = container::boot_with_listend() else {
        return;
    };
    container.start_unit("Type=notify\nWatchdogSec=2\n");
    let show = |property| {
        let words = ["systemctl", "show", "-P", property, "listend.service"];
        container.run(words).trim().to_owned()
    };
    assert_eq!(
        show("StatusText"),
        "1 listener, 1 of 1 worker ready, 1 instance"
    );
    let fed = show("WatchdogTimestampMonotonic");
    eventually("the watchdog is fed", || {
        show("WatchdogTimestampMonotonic") != fed
    });
    container.run(["systemctl", "stop", "listend.service"]);
    assert_eq!(
        show("Result"),
        "success",
        "{}",
        container.journal("listend.service")
    );
}
