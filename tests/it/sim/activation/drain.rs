//! The ends of a life: a storm while time stands still, calm in which all must be served, the stop.

use crate::sim::activation::life::{Life, Misery, Mood};
use crate::sim::random::signal;
use listend::core::{ExitStatus, Input};

/// More moments than any backlog takes that can come up: there are at most 12 sockets with 8
/// clients, at worst one in ten seconds, and cool-downs of a minute.
const MOMENTS: usize = 2000;

impl Life {
    /// Everything fails, and not a nanosecond passes. What has a limit must come to rest.
    pub(crate) fn storm(&mut self) {
        self.seen.storms += 1;
        self.mood = Mood::Useless;
        // A program that ends well and has done nothing is the worst of all.
        self.misery = self.rng.pick(&[
            Misery::Ends(ExitStatus::Code(0)),
            Misery::Ends(ExitStatus::Code(0)),
            Misery::Ends(signal(15)),
            Misery::Ends(ExitStatus::Code(1)),
            Misery::Ends(signal(9)),
            Misery::Launches,
            Misery::Accepts,
        ]);
        self.settle();
        self.mood = Mood::Wild;
    }

    /// Runs everything that can happen at this moment.
    fn settle(&mut self) {
        let most = 100
            + 40 * self
                .sockets
                .iter()
                .map(|s| 1 + s.queue.len())
                .sum::<usize>();
        for _ in 0..most {
            if !self.anything_happens() {
                return;
            }
        }
        panic!("it spins: {:#?}\n{:#?}", self.core, self.sockets);
    }

    /// Everything that can happen happens once; whether there was anything.
    fn anything_happens(&mut self) -> bool {
        self.take_effects();
        self.work();
        let mut any = !self.answers.is_empty();
        while !self.answers.is_empty() {
            self.answer();
        }
        self.work();
        let known: Vec<_> = self.processes.keys().copied().collect();
        for process in known {
            any = true;
            if self.processes.contains_key(&process) {
                self.move_on(process);
                self.work();
            }
        }
        for socket in self.ready() {
            any = true;
            self.client_waits(socket);
            self.work();
        }
        if self.core.deadline().is_some_and(|at| at <= self.now) {
            any = true;
            self.give(Input::Tick);
            self.work();
        }
        any
    }

    /// All behave well, nobody comes any more, and time passes only to where the core wants to be
    /// woken. Everybody must be served, and every socket watched again.
    pub(crate) fn calm_down(&mut self) {
        self.seen.drained += 1;
        let waiting = self.sockets.iter().map(|s| s.queue.len() as u64);
        self.seen.waited += waiting.sum::<u64>();
        self.mood = Mood::Good;
        for _ in 0..MOMENTS {
            self.settle();
            let Some(at) = self.core.deadline() else {
                break;
            };
            self.now = self.now.max(at);
            self.give(Input::Tick);
        }
        for socket in &self.sockets {
            assert!(
                socket.queue.is_empty() && socket.watched,
                "a client waits for ever: {socket:?}\n{:#?}",
                self.core
            );
        }
        assert_eq!(self.core.deadline(), None, "there is nothing to wait for");
        assert!(self.processes.is_empty(), "{:?}", self.processes);
        for (id, connection) in &self.connections {
            assert!(!connection.open, "{id:?} is left open");
        }
        self.mood = Mood::Wild;
    }

    /// The end: whatever state things are in, a stop leads to Exit.
    pub(crate) fn end(&mut self) {
        if self.stop_at.is_none() {
            self.give(Input::Stop);
        }
        for round in 0..400 {
            self.take_effects();
            self.work();
            self.answer();
            if self.exited && self.processes.is_empty() {
                break;
            }
            for _ in 0..30 {
                self.kernel();
                self.take_effects();
                self.work();
            }
            if round == 200 {
                // Those that may take for ever and are deaf.
                self.give(Input::Stop);
            }
            if let Some(at) = self.core.deadline() {
                self.now = self.now.max(at);
            }
            self.give(Input::Tick);
        }
        assert!(self.exited, "it never ends: {:#?}", self.core);
        for input in [Input::Start, Input::Stop, Input::Tick] {
            self.give(input);
        }
        self.take_effects();
        assert!(self.todo.is_empty(), "{:?} after Exit", self.todo);
        assert!(self.processes.is_empty(), "{:?}", self.processes);
    }
}
