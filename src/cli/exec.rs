//! `listend exec`: bind, hand over and supervise one command.

use super::args::{Exec, Policy};
use super::daemon::After;
use super::exit::Exit;
use super::kept::Leftover;
use super::load;
use super::run;
use crate::config::{
    self, Endpoint, Every, KillMode, Listener, Located, Ready, RestartPolicy, Worker,
};
use crate::core::WhenDone;
use crate::report::Place;
use crate::shell::logging::Sink;
use crate::shell::{ReadyWhen, clock};
use std::path::PathBuf;
use std::time::Duration;

/// How long a command that was changed has to accept clients before the one before it is stopped.
const SETTLES: Duration = Duration::from_millis(200);

/// Runs the command until it, or listend, is asked to stop.
pub fn exec(arguments: &Exec, sink: Sink) -> Exit {
    let started = clock::now();
    let inherited = run::inherit();
    let mut loaded = config::from_arguments(&arguments.listen, &arguments.command);
    if let Some(worker) = loaded.config.workers.first_mut() {
        worker.instances = arguments.instances;
        worker.restart.policy = match arguments.restart {
            Policy::Always => RestartPolicy::Always,
            Policy::OnFailure => RestartPolicy::OnFailure,
            Policy::Never => RestartPolicy::Never,
        };
        if arguments.restart != Policy::Always {
            // It ends with its command.
            worker.restart.cool_down = None;
        }
        if !arguments.watch.is_empty() {
            watch(worker, &loaded.config.listeners, &arguments.watch);
        }
        if arguments.nonblocking {
            worker.nonblocking = Some(located(true, worker.name.place));
        }
        if let Some(user) = &arguments.user {
            let file = loaded.sources.add("--user", user.as_str());
            let place = Place {
                file,
                line: 1,
                column: 1,
                length: user.chars().count().max(1) as u32,
            };
            worker.user = Some(located(user.clone(), place));
        }
    }
    let when_done = match arguments.restart {
        Policy::Always => WhenDone::Hold,
        Policy::OnFailure | Policy::Never => WhenDone::Exit,
    };
    let after = After {
        control: None,
        when_done,
        ready_when: ReadyWhen::Ready,
        keeper: None,
        left: Leftover::default(),
        takes_over: false,
    };
    run::start(load::resolve(loaded), inherited, after, sink, started)
}

/// Has the worker restarted when files change. A new one takes over once it accepts clients, however long it is
/// built before.
fn watch(worker: &mut Worker, listeners: &[Listener], paths: &[PathBuf]) {
    let place = worker.name.place;
    worker.watch = paths
        .iter()
        .map(|path| located(path.clone(), place))
        .collect();
    let mut addresses = listeners.iter().flat_map(|one| &one.addresses);
    let accepts = |endpoint: &Endpoint| endpoint.accepts();
    if addresses.all(|address| address.value.endpoints.iter().all(accepts)) {
        worker.ready.value = Ready::Accepting(Every::All);
        worker.start_timeout = None;
    }
    worker.rollout.min_ready = SETTLES;
    // What builds it has children.
    worker.kill_mode = KillMode::Group;
}

fn located<T>(value: T, place: Place) -> Located<T> {
    Located { value, place }
}
