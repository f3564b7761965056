//! Workers that nobody uses.

use super::crew::*;
use super::demand::{client, listening, on_demand};
use super::*;
use crate::core::scaling::Follows;

/// A worker that clients start, and that runs.
fn unused() -> Crew {
    let mut crew = listening(|life| {
        on_demand(life);
        life.idle_timeout = Some(seconds(10));
    });
    client(&mut crew);
    crew
}

/// It is looked who uses it, ten seconds after the last time.
fn look(crew: &mut Crew, seen: Use) {
    crew.forget();
    crew.pass(seconds(10));
    let looks = crew.count(|effect| matches!(effect, Effect::LookForUse { .. }));
    assert_eq!(looks, 1);
    crew.give(Input::UseSeen { worker: APP, seen });
}

fn is_stopped(crew: &Crew) -> bool {
    crew.signals(crew.program(app(0, 1))).contains(&SIGTERM)
}

#[test]
fn only_what_clients_start_is_stopped_for_want_of_them() {
    let mut crew = Crew::new(|life| life.idle_timeout = Some(seconds(10)));
    assert_eq!(crew.core.deadline(), None);
    crew.pass(seconds(60));
    assert!(!is_stopped(&crew));
}

#[test]
fn nobody_twice_is_nobody_and_so_is_nobody_after_somebody_who_has_gone() {
    for first in [Use::None, Use::Before] {
        let mut crew = unused();
        look(&mut crew, first);
        assert!(!is_stopped(&crew));
        look(&mut crew, Use::None);
        assert!(is_stopped(&crew), "{first:?}");
    }
}

#[test]
fn what_says_that_it_is_busy_while_it_is_looked_at_is_not_stopped() {
    for seen in [Use::None, Use::Before] {
        let mut crew = unused();
        look(&mut crew, Use::None);
        crew.forget();
        crew.pass(seconds(10));
        crew.says(app(0, 1), Notice::Busy(true));
        crew.give(Input::UseSeen { worker: APP, seen });
        crew.says(app(0, 1), Notice::Busy(false));
        assert!(!is_stopped(&crew));
        // What was known before counts no more.
        look(&mut crew, Use::None);
        assert!(!is_stopped(&crew), "{seen:?}");
        look(&mut crew, Use::None);
        assert!(is_stopped(&crew), "{seen:?}");
    }
}

#[test]
fn the_time_until_one_is_removed_is_at_its_longest_no_longer_than_it_has_to_be() {
    let mut follows = Follows::default();
    let mut learns = |now: Mono, time| {
        follows.removed_at = Some(now);
        follows.learn(now + time);
        follows.down_after()
    };
    for _ in 0..20 {
        learns(Mono(0), seconds(1));
    }
    assert_eq!(learns(Mono(0), seconds(1)), DOWN_AFTER_MAX);
    assert!(learns(Mono(0), MISSED_WITHIN) < DOWN_AFTER_MAX);
}
