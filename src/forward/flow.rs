//! What happens to one connection, decided without a socket: what to move next, in which direction, and
//! how it ends.
//!
//! A connection is two flows, one from each side to the other. Each ends by itself, so that a side which
//! has shut down its writing still gets its answer. Of a side that was reset nothing more is asked than
//! what it had sent before; then the other side is reset as well. What that sends meanwhile is taken and dropped:
//! one that waits until it is rid of an answer would never take the rest.

/// So many bytes are dropped of a side that takes nothing of what it is to have: it may send for ever.
const DROPPED_MAX: usize = 16 * 1024 * 1024;

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who has connected to the listener.
    Client,
    /// Who is connected to for it.
    Server,
}

impl Side {
    /// Both, in the order of their index.
    pub const BOTH: [Side; 2] = [Side::Client, Side::Server];

    /// The opposite one.
    pub const fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    /// 0 or 1.
    pub const fn index(self) -> usize {
        match self {
            Side::Client => 0,
            Side::Server => 1,
        }
    }
}

/// What to do next for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Take bytes of this side.
    Pull(Side),
    /// Give what was taken of this side to the other.
    Push(Side),
    /// This side sends nothing more: tell the other.
    PassEnd(Side),
    /// Take bytes of this side, and drop them: the other is gone.
    Drop(Side),
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// So many bytes were moved.
    Moved(usize),
    /// The side will send nothing more.
    End,
    /// Not now: the kernel tells when.
    Blocked,
    /// The socket reports an error: the connection to that side is gone.
    Broken,
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Still open.
    Open,
    /// Both sides have sent everything and received everything.
    Finished,
    /// One side was reset, and has had its last words: so is the other to be.
    Reset,
}

/// The bytes of one side on their way to the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Flow {
    /// Whether the source may have something to take.
    readable: bool,
    /// Whether the destination may have room.
    writable: bool,
    /// The number of bytes that were taken and not given yet.
    held: usize,
    /// Whether the source sends nothing more.
    ended: bool,
    /// Whether nothing is left to be done.
    over: bool,
}

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// By the index of their source.
    flows: [Flow; 2],
    broken: [bool; 2],
    /// Whose flow comes first at the next step, so that a long transfer leaves room for the other direction.
    first: Side,
    /// The number of bytes that were dropped of a side since it has taken any.
    dropped: usize,
}

impl Connection {
    /// A connection whose server has just been reached. What the client has sent with its connect is
    /// probably there.
    pub fn new() -> Connection {
        let writable = Flow {
            writable: true,
            ..Flow::default()
        };
        Connection {
            flows: [
                Flow {
                    readable: true,
                    ..writable
                },
                writable,
            ],
            broken: [false; 2],
            first: Side::Client,
            dropped: 0,
        }
    }

    /// Notes that a side may have something to take.
    pub fn readable(&mut self, side: Side) {
        self.flows[side.index()].readable = true;
    }

    /// Notes that a side may have room.
    pub fn writable(&mut self, side: Side) {
        self.flows[side.other().index()].writable = true;
    }

    /// Notes that the connection to a side is gone. What it had sent before can still be taken.
    pub fn broken(&mut self, side: Side) {
        self.broken[side.index()] = true;
        let to = &mut self.flows[side.other().index()];
        to.held = 0;
        to.over = true;
        self.flows[side.index()].readable = true;
        self.settle();
    }

    /// What is to be done now; `None` until the kernel tells more.
    pub fn next(&self) -> Option<Step> {
        [self.first, self.first.other()]
            .into_iter()
            .find_map(|from| self.next_of(from))
            .or_else(|| Side::BOTH.into_iter().find_map(|from| self.drop_of(from)))
    }

    /// Where a side does not take what the other had sent before its reset.
    fn drop_of(&self, from: Side) -> Option<Step> {
        let flow = &self.flows[from.index()];
        let is_lost = self.broken[from.other().index()] && !self.broken[from.index()];
        let is_of_use = !self.flows[from.other().index()].over;
        (is_lost && is_of_use && flow.readable && !flow.ended).then_some(Step::Drop(from))
    }

    fn next_of(&self, from: Side) -> Option<Step> {
        let flow = &self.flows[from.index()];
        if flow.over {
            None
        } else if flow.held > 0 {
            flow.writable.then_some(Step::Push(from))
        } else if flow.ended {
            Some(Step::PassEnd(from))
        } else {
            // What the destination has no room for stays in the source's socket, whose window then
            // closes: that is the back-pressure.
            (flow.readable && flow.writable).then_some(Step::Pull(from))
        }
    }

    /// Notes what came of a step.
    pub fn done(&mut self, step: Step, outcome: Outcome) {
        match step {
            Step::Pull(from) => self.pulled(from, outcome),
            Step::Push(from) => self.pushed(from, outcome),
            Step::PassEnd(from) => {
                self.flows[from.index()].over = true;
                self.first = from.other();
                if outcome == Outcome::Broken {
                    self.broken(from.other());
                }
            }
            Step::Drop(from) => self.dropped(from, outcome),
        }
    }

    fn dropped(&mut self, from: Side, outcome: Outcome) {
        let flow = &mut self.flows[from.index()];
        match outcome {
            Outcome::Moved(count) => {
                self.dropped += count;
                if self.dropped > DROPPED_MAX {
                    self.broken(from);
                }
            }
            Outcome::End => flow.ended = true,
            Outcome::Blocked => flow.readable = false,
            Outcome::Broken => self.broken(from),
        }
    }

    /// Notes that bytes were moved without being held in between.
    pub fn passed(&mut self, from: Side) {
        self.first = from.other();
    }

    fn pulled(&mut self, from: Side, outcome: Outcome) {
        let is_broken = self.broken[from.index()];
        let flow = &mut self.flows[from.index()];
        match outcome {
            Outcome::Moved(count) => flow.held += count,
            Outcome::End => flow.ended = true,
            Outcome::Blocked if is_broken => flow.ended = true,
            Outcome::Blocked => flow.readable = false,
            Outcome::Broken => {
                flow.ended = true;
                self.broken(from);
            }
        }
        self.settle();
    }

    fn pushed(&mut self, from: Side, outcome: Outcome) {
        let flow = &mut self.flows[from.index()];
        match outcome {
            Outcome::Moved(count) => {
                flow.held = flow.held.saturating_sub(count);
                self.dropped = 0;
                if flow.held == 0 {
                    self.first = from.other();
                }
            }
            Outcome::Blocked => flow.writable = false,
            Outcome::End | Outcome::Broken => self.broken(from.other()),
        }
        self.settle();
    }

    /// A side that is gone has an end that nobody needs to be told.
    fn settle(&mut self) {
        for side in Side::BOTH {
            let flow = &mut self.flows[side.index()];
            if self.broken[side.index()] && flow.ended && flow.held == 0 {
                flow.over = true;
            }
        }
    }

    /// Whether bytes of this side are held.
    pub fn holds(&self, from: Side) -> bool {
        self.flows[from.index()].held > 0
    }

    /// The number of bytes of this side that are held.
    pub fn held(&self, from: Side) -> usize {
        self.flows[from.index()].held
    }

    /// Where it is.
    pub fn verdict(&self) -> Verdict {
        if !self.flows.iter().all(|flow| flow.over) {
            Verdict::Open
        } else if self.broken.contains(&true) {
            Verdict::Reset
        } else {
            Verdict::Finished
        }
    }
}

impl Default for Connection {
    fn default() -> Connection {
        Connection::new()
    }
}

#[cfg(test)]
#[path = "flow/tests.rs"]
mod tests;
