//! What must not happen however long it goes on.

use crate::sim::random::SECOND;
use listend::config::{Ready, Restart, RestartPolicy};
use listend::core::{Core, Effect, ExitStatus, Input, Mono, Notice, WhenDone};
use listend::plan::Lifecycle;
use std::time::Duration;

/// A worker that is ready, and dies a moment later, again and again.
#[test]
fn who_flips_between_ready_and_dead_is_slowed_down() {
    let life = Lifecycle {
        ready: Ready::Notify,
        restart: Restart {
            policy: RestartPolicy::Always,
            limit: None,
            ..Restart::default()
        },
        ..Lifecycle::default()
    };
    let mut core = Core::new(vec![life], WhenDone::Hold);
    let mut now = Mono(SECOND);
    core.handle(now, Input::Start);
    let mut starts = 0;
    while now < Mono(600 * SECOND) {
        while let Some(effect) = core.next_effect() {
            if let Effect::Spawn { process, .. } = effect {
                starts += 1;
                let (notice, status) = (Notice::Ready, ExitStatus::Code(1));
                core.handle(now, Input::Spawned { process });
                core.handle(now, Input::ExecSucceeded { process });
                core.handle(now, Input::Notified { process, notice });
                now = now + Duration::from_millis(10);
                core.handle(now, Input::Exited { process, status });
            }
        }
        now = core.deadline().expect("it is started again");
        core.handle(now, Input::Tick);
    }
    // Nine until the delay is as long as it gets, and then one in 22 seconds at most.
    assert!((15..=40).contains(&starts), "{starts}");
}
