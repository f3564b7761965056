//! One connection between two ends that do what they like, in every order.

use super::*;
use proptest::prelude::*;

use Outcome::{Blocked, Broken, End, Moved};
use Side::{Client, Server};

/// Takes the next step, which has to be this one.
fn step(connection: &mut Connection, step: Step, outcome: Outcome) {
    assert_eq!(connection.next(), Some(step));
    connection.done(step, outcome);
}

#[test]
fn a_request_is_answered_and_both_ends_are_passed_on() {
    let mut one = Connection::new();
    step(&mut one, Step::Pull(Client), Moved(7));
    step(&mut one, Step::Push(Client), Moved(7));
    step(&mut one, Step::Pull(Client), Blocked);
    assert_eq!(one.next(), None);
    one.readable(Client);
    step(&mut one, Step::Pull(Client), End);
    step(&mut one, Step::PassEnd(Client), Moved(0));
    assert_eq!(one.verdict(), Verdict::Open);
    one.readable(Server);
    step(&mut one, Step::Pull(Server), Moved(100));
    step(&mut one, Step::Push(Server), Moved(40));
    step(&mut one, Step::Push(Server), Blocked);
    // Nothing is taken that could not be given.
    assert_eq!(one.next(), None);
    assert!(one.holds(Server));
    one.writable(Client);
    step(&mut one, Step::Push(Server), Moved(60));
    step(&mut one, Step::Pull(Server), End);
    step(&mut one, Step::PassEnd(Server), Moved(0));
    assert_eq!(one.verdict(), Verdict::Finished);
    assert_eq!(one.next(), None);
}

#[test]
fn a_long_transfer_leaves_room_for_the_other_direction() {
    let mut one = Connection::new();
    one.readable(Server);
    step(&mut one, Step::Pull(Client), Moved(9));
    step(&mut one, Step::Push(Client), Moved(9));
    step(&mut one, Step::Pull(Server), Moved(9));
    step(&mut one, Step::Push(Server), Moved(9));
    step(&mut one, Step::Pull(Client), Moved(9));
}

#[test]
fn what_a_side_sent_before_its_reset_is_delivered() {
    let mut one = Connection::new();
    step(&mut one, Step::Pull(Client), Moved(5));
    step(&mut one, Step::Push(Client), Broken);
    // Its answer is in our socket.
    step(&mut one, Step::Pull(Server), Moved(3));
    step(&mut one, Step::Push(Server), Moved(3));
    assert_eq!(one.verdict(), Verdict::Open);
    step(&mut one, Step::Pull(Server), Blocked);
    assert_eq!(one.verdict(), Verdict::Reset);
}

#[test]
fn a_reset_is_a_reset_on_either_side() {
    for side in Side::BOTH {
        let mut one = Connection::new();
        one.broken(side);
        step(&mut one, Step::Pull(side), Broken);
        assert_eq!(one.verdict(), Verdict::Reset, "{side:?}");
        let mut one = Connection::new();
        one.readable(side);
        while one.next() != Some(Step::Pull(side)) {
            let next = one.next().expect("a step");
            one.done(next, Blocked);
        }
        one.done(Step::Pull(side), Broken);
        assert_eq!(one.verdict(), Verdict::Reset, "{side:?}");
    }
}

#[test]
fn what_nobody_can_get_is_dropped_where_it_keeps_a_side_from_taking() {
    let mut one = Connection::new();
    one.readable(Server);
    step(&mut one, Step::Pull(Client), Moved(9));
    step(&mut one, Step::Push(Client), Blocked);
    step(&mut one, Step::Pull(Server), Moved(9));
    step(&mut one, Step::Push(Server), Blocked);
    // The server waits until it is rid of its answer.
    one.broken(Client);
    step(&mut one, Step::Drop(Server), Moved(100));
    step(&mut one, Step::Drop(Server), Blocked);
    assert_eq!((one.next(), one.verdict()), (None, Verdict::Open));
    one.writable(Server);
    step(&mut one, Step::Push(Client), Moved(9));
    step(&mut one, Step::Pull(Client), Blocked);
    assert_eq!(one.verdict(), Verdict::Reset);
}

#[test]
fn one_that_only_sends_to_a_side_that_is_gone_is_reset() {
    let mut one = Connection::new();
    one.readable(Server);
    step(&mut one, Step::Pull(Client), Moved(9));
    step(&mut one, Step::Push(Client), Blocked);
    one.broken(Client);
    step(&mut one, Step::Drop(Server), Moved(DROPPED_MAX));
    step(&mut one, Step::Drop(Server), Moved(1));
    while let Some(next) = one.next() {
        assert_eq!(next, Step::Pull(Server));
        one.done(next, Blocked);
    }
    assert_eq!(one.verdict(), Verdict::Reset);
}

#[test]
fn a_reset_after_the_end_is_a_reset() {
    let mut one = Connection::new();
    step(&mut one, Step::Pull(Client), End);
    step(&mut one, Step::PassEnd(Client), Moved(0));
    one.broken(Client);
    assert_eq!(one.verdict(), Verdict::Reset);
}

/// One end as a test plays it: what it still sends, and what it has room for.
#[derive(Debug, Clone)]
struct Peer {
    to_send: Vec<usize>,
    resets: bool,
    room: usize,
    got: usize,
    was_told_the_end: bool,
}

fn peer() -> impl Strategy<Value = Peer> {
    let sends = proptest::collection::vec(1_usize..100, 0..6);
    (sends, any::<bool>()).prop_map(|(to_send, resets)| Peer {
        to_send,
        resets,
        room: 0,
        got: 0,
        was_told_the_end: false,
    })
}

proptest! {
    /// Whatever the two ends do and in whichever order the kernel tells it: no byte is lost or made up, what
    /// is held is bounded, and it ends as the ends did.
    #[test]
    fn nothing_is_lost(
        client in peer(),
        server in peer(),
        order in proptest::collection::vec((0_u8..4, 1_usize..64), 1..400),
    ) {
        let sent: [usize; 2] = [client.to_send.iter().sum(), server.to_send.iter().sum()];
        let resets = [client.resets, server.resets];
        let mut peers = [client, server];
        let mut one = Connection::new();
        let forever = (0_u8..4).cycle().map(|what| (what, 50));
        for (what, amount) in order.into_iter().chain(forever.take(4_000)) {
            match what {
                0 => one.readable(Client),
                1 => one.readable(Server),
                _ => {
                    let side = if what == 2 { Client } else { Server };
                    peers[side.index()].room += amount;
                    one.writable(side);
                }
            }
            let mut steps = 0;
            while let Some(step) = one.next() {
                steps += 1;
                prop_assert!(steps < 1_000, "it never rests: {:?}", one);
                let outcome = match step {
                    Step::Pull(from) => {
                        prop_assert_eq!(one.held(from), 0);
                        let peer = &mut peers[from.index()];
                        match peer.to_send.pop() {
                            Some(count) => Moved(count),
                            None if peer.resets => Broken,
                            None => End,
                        }
                    }
                    Step::Push(from) => {
                        let held = one.held(from);
                        let peer = &mut peers[from.other().index()];
                        let count = held.min(peer.room);
                        peer.room -= count;
                        peer.got += count;
                        if count == 0 { Blocked } else { Moved(count) }
                    }
                    Step::PassEnd(from) => {
                        peers[from.other().index()].was_told_the_end = true;
                        Moved(0)
                    }
                    Step::Drop(from) => {
                        let peer = &mut peers[from.index()];
                        match peer.to_send.pop() {
                            Some(count) => Moved(count),
                            None if peer.resets => Broken,
                            None => End,
                        }
                    }
                };
                one.done(step, outcome);
            }
            if one.verdict() != Verdict::Open {
                break;
            }
        }
        prop_assert_ne!(one.verdict(), Verdict::Open);
        if resets == [false, false] {
            prop_assert_eq!(one.verdict(), Verdict::Finished);
            prop_assert_eq!([peers[1].got, peers[0].got], sent);
            prop_assert!(peers.iter().all(|peer| peer.was_told_the_end));
        } else {
            prop_assert_eq!(one.verdict(), Verdict::Reset);
            // The one that was not reset by anybody else has all that the other had sent.
            if resets == [true, false] {
                prop_assert_eq!(peers[1].got, sent[0]);
            }
            if resets == [false, true] {
                prop_assert_eq!(peers[0].got, sent[1]);
            }
        }
    }
}
