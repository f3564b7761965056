//! What the core knows, written down: so that another process of listend can go on where this one was.
//!
//! A snapshot is a set of *facts*, not the structs of the core: an object with a kind and a key each, of
//! types of its own. `docs/snapshot.md` documents them for readers of other programs. Only numbers name
//! workers and listeners in here, as everywhere in the core: the numbers stay the same from one process to
//! the next, and whose they are is a fact of the shell's (`name`).
//!
//! In the process that is to be survived, once each turn, when every effect is carried out:
//!
//! ```text
//! let changes = core.take_changes();           // the first time: everything
//! store.append(changes.iter().map(Change::text));
//! ```
//!
//! In the process that goes on:
//!
//! ```text
//! let Reading { snapshot, others } = Snapshot::read(lines)?;   // `others`: the shell's facts, and unknown ones
//! for (worker, revision) in snapshot.definitions() { … }       // read those from the texts in `others`
//! let mut core = Core::thaw(&snapshot, Known { … })?;
//! for process in core.processes() { … }                        // look for each, and tell what was found:
//! core.handle(now, Input::Exited { process, status });         //   it is gone (ExitStatus::Unknown)
//! core.handle(now, Input::ExecSucceeded { process });          //   it runs its program, and was not known to
//! core.handle(now, Input::ConnectionLost { connection });      //   a descriptor was not kept
//! core.handle(now, Input::ConnectionFound { worker, index, source }); // a process serves one that is not known
//! core.handle(now, Input::ListenerBound { listener });         //   or `ListenerMissing`: not as it was
//! core.handle(now, Input::Resumed);                            // instead of `Input::Start`
//! ```
//!
//! Between `thaw` and `Resumed` effects are taken as always. Every socket of a worker that clients start
//! is watched by then, as after a start: that somebody waits is told again.
//!
//! # What half-done things become
//!
//! - A *rollout* goes on where it was, forward or back, and so does a watch. Who waited for it does not.
//! - A *reload* under way is over: nobody waits for it any more, and what it has set in motion goes on as the
//!   rollouts, starts and stops that it consists of.
//! - A *command* (start, stop, restart, scale) likewise. Its client asks again, and joins or repeats it.
//! - A *launch* that no process came of has not happened: no start is counted, and no crash. It is made
//!   again at once, or, if it was to be stopped meanwhile, not at all. Of a process that ended before it
//!   was known whether it had reached its program it is taken that it had.
//! - A *stop* goes on, with the time of SIGKILL that it had.
//! - A *command beside an instance* goes on with the time that it had. One whose process is gone, or never
//!   was, has failed with unknown status.
//! - A *process that ended* while nobody looked ended with the status that the kernel kept, else with
//!   [`super::ExitStatus::Unknown`], which is a crash.
//! - A *process of listend's own that asks it* (the page, what watches files) has lost its connection and ends: that is no
//!   crash, and it is started again at once. One that does not end is killed when the time of a stop is over.
//! - A *connection* whose process lives counts as before. One without a process is held, and closed if its
//!   descriptor was not kept. One that was being accepted is still in the queue, or lost with its
//!   descriptor.
//! - A *look* whether an instance takes clients is made again; that who waits when a pool has ended is
//!   not, and nothing is held against it.
//! - A *look* who uses a worker is made again at once; since when nobody did is not known.
//! - A *bind* or *repair* under way is begun again.
//! - *Watchdogs* begin anew: a sign of life is due one interval after `Resumed`.
//! - Rate limits of accepts, activations and messages begin anew. Delays, crashes that count, cool-downs and
//!   pauses stay.

mod error;
pub(in crate::core) mod fact;
mod freeze;
pub(in crate::core) mod record;
mod text;
mod thaw;
mod words;

pub use error::ThawError;
pub use fact::{Change, Fact, Key};
pub use record::Lent;
pub use text::{FORMAT, Reading, Snapshot};
pub use thaw::Known;
