//! Looking at what other processes have, in a process that may wait for it.
//!
//! The memory of a process can lie on a file system that never answers, and so can the files that it
//! has open: who reads of them in /proc may wait without end, in a state that no signal ends. So the
//! loop never does. A copy of this process looks, and has its time; one that does not answer is left
//! behind, and what it was to see counts as hidden.

use super::{Diagnosis, Failed, Look, Tell};
use crate::config::Ready;
use crate::core::{Evidence, Input, ProcessId, Ticket};
use crate::diagnose::{self, Machine};
use crate::evidence::{self, Sight, SocketInode};
use crate::listener::BindError;
use crate::plan::{ListenerId, Plan};
use crate::report::{self, Problem, Report, Style};
use crate::shell::control::helper::Purpose;
use crate::shell::control::helper_query::MAX_LATE;
use crate::shell::definitions::HeldSocket;
use crate::shell::event_text;
use crate::shell::problem_line::one_line;
use crate::shell::turn::Shell;
use crate::sys;
use nix::libc;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// So many look at once.
const MOST: usize = 4;
/// How long a look may take. It is limited to what takes a fraction of that on a busy machine.
const TIME: Duration = Duration::from_secs(5);

impl Shell {
    /// Has somebody look whether an instance takes clients.
    pub(in crate::shell) fn look_for_evidence(&mut self, process: ProcessId) {
        if let Some(known) = self.processes.get(process) {
            let worker = known.instance.worker;
            self.look(Look::Evidence(process, worker));
        }
    }

    /// Has somebody find out why listeners could not be bound.
    pub(in crate::shell) fn diagnose(
        &mut self,
        plan: &Rc<Plan>,
        errors: Vec<BindError>,
        tell: Tell,
    ) {
        let plan = Rc::clone(plan);
        if let Tell::Start(listener) = tell {
            self.looks.unbound.insert(listener);
        }
        let failed = Box::new(Failed { plan, errors, tell });
        self.look(Look::Diagnosis(failed));
    }

    pub(super) fn look(&mut self, look: Look) {
        self.looks.waiting.push_back(look);
        self.start_looks();
    }

    fn start_looks(&mut self) {
        let looks = |shell: &Shell| {
            let queries = shell.control.queries.values();
            let looks =
                queries.filter(|one| !one.is_late && matches!(one.purpose, Purpose::Look(_)));
            looks.count()
        };
        while looks(self) < MOST
            && let Some(look) = self.looks.waiting.pop_front()
        {
            let started = match self.is_pointless(&look) {
                Some(why) => Err(io::Error::other(why)),
                None => self.start_look(&look),
            };
            match started {
                Ok(None) => {}
                Ok(Some(started)) => {
                    let awaited = self.await_query(started, Purpose::Look(look), TIME);
                    // What is not watched and what does not answer come to the same.
                    if let Err((error, Some(Purpose::Look(look)))) = awaited {
                        log::debug!("cannot watch the helper process: {error}");
                        self.has_looked(look, None);
                    }
                }
                Err(error) => {
                    log::debug!("cannot start a helper process: {error}");
                    self.has_looked(look, None);
                }
            }
        }
    }

    /// Why nobody is sent to look: one who does not come back is enough.
    fn is_pointless(&self, look: &Look) -> Option<&'static str> {
        if self.control.late_queries() >= MAX_LATE {
            return Some("too many helper processes have not returned");
        }
        let (Look::Evidence(_, worker) | Look::Use(worker, _)) = look else {
            return None;
        };
        let mut queries = self.control.queries.values();
        let is_lost = queries.any(|one| match &one.purpose {
            Purpose::Look(Look::Evidence(_, of) | Look::Use(of, _)) => one.is_late && of == worker,
            Purpose::Look(_) | Purpose::Asked(_) => false,
        });
        is_lost.then_some("the last helper process for this worker has not returned")
    }

    fn start_look(&self, look: &Look) -> io::Result<Option<sys::Forked>> {
        match look {
            Look::Evidence(process, _) => {
                // It may have ended since.
                let Some(known) = self.processes.get(*process) else {
                    return Ok(None);
                };
                let definition = self.definition(known.instance, known.revision);
                let Ready::Accepting(which) = definition.plan.lifecycle.ready else {
                    return Ok(None);
                };
                let sockets = self.sockets_of(known.instance, known.revision, known.lane);
                let (pid, inodes) = (known.pid, inodes(&sockets));
                alone(|| to_words(evidence::look(pid, &inodes, which)).into_bytes()).map(Some)
            }
            Look::Diagnosis(failed) => {
                let daemon = std::process::id().cast_signed();
                alone(|| {
                    let machine = Machine::new();
                    let explain = |error: &BindError| {
                        diagnose::explain_for_daemon(error, &failed.plan, &machine, daemon)
                    };
                    serde_json::to_vec(&diagnosis(failed, explain)).unwrap_or_default()
                })
                .map(Some)
            }
            Look::Use(_, question) => alone(|| question.answer().into_bytes()).map(Some),
            Look::Nothing => Ok(None),
        }
    }

    /// A start has to do without this listener: whoever asked is told so, as soon as it is known why.
    pub(in crate::shell) fn tell_not_bound(
        &mut self,
        ticket: Ticket,
        listener: ListenerId,
        again_in: Option<Duration>,
    ) {
        if self.looks.unbound.contains(&listener) {
            self.looks.asked.push((ticket, listener, again_in));
        } else {
            self.fail_start(ticket, listener, again_in, None);
        }
    }

    fn explain_to_waiting(&mut self, listener: ListenerId, lines: &[String]) {
        self.looks.unbound.remove(&listener);
        let asked = std::mem::take(&mut self.looks.asked);
        for (ticket, of, again_in) in asked {
            if of == listener {
                self.fail_start(ticket, listener, again_in, lines.first());
            } else {
                self.looks.asked.push((ticket, of, again_in));
            }
        }
    }

    /// Handles the answer of a look; `None` if there was no answer.
    pub(in crate::shell) fn looked(&mut self, look: Look, said: Option<&[u8]>) {
        self.has_looked(look, said);
        self.start_looks();
    }

    fn has_looked(&mut self, look: Look, said: Option<&[u8]>) {
        match look {
            Look::Evidence(process, _) => self.has_evidence(process, said),
            Look::Diagnosis(failed) => {
                let said = said.and_then(|said| serde_json::from_slice(said).ok());
                let diagnosis = said.unwrap_or_else(|| {
                    diagnosis(&failed, |error| {
                        let cause = match error.errno {
                            // It took the helper's as well.
                            libc::EMFILE => {
                                "listend's limit on open files is reached (ulimit -n, LimitNOFILE=)"
                            }
                            _ => {
                                "the cause is not known: the helper process did not return; \
                                 `listend check` may say more"
                            }
                        };
                        diagnose::unexplained(error, &failed.plan).with_cause(cause)
                    })
                });
                match failed.tell {
                    Tell::Log => diagnosis.lines.iter().for_each(|line| log::warn!("{line}")),
                    Tell::Start(listener) => {
                        diagnosis.lines.iter().for_each(|line| log::warn!("{line}"));
                        self.explain_to_waiting(listener, &diagnosis.lines);
                    }
                    Tell::Reload(client, _) => self.refuse_unbound(client, diagnosis),
                }
            }
            Look::Use(worker, question) => self.has_seen_use(worker, &question, said),
            Look::Nothing => {}
        }
    }

    fn has_evidence(&mut self, process: ProcessId, said: Option<&[u8]>) {
        let Some(known) = self.processes.get(process) else {
            return;
        };
        let said = said.and_then(|said| std::str::from_utf8(said).ok());
        let evidence = match said {
            Some(SEEN) => Evidence::Seen,
            Some(NOT_YET) => Evidence::NotYet,
            said => {
                let name = event_text::instance_name(&self.definitions, known.instance);
                let why = said.and_then(|said| said.strip_prefix(HIDDEN));
                match why {
                    Some(why) => log::debug!("{name}: {why}"),
                    None => log::warn!(
                        "{name}: cannot detect whether it accepts clients: reading /proc/{} took \
                         longer than {}; its memory or its files may lie on a file system that \
                         does not answer",
                        known.pid,
                        event_text::duration(TIME)
                    ),
                }
                Evidence::Hidden
            }
        };
        self.feed(Input::Evidence { process, evidence });
    }
}

const SEEN: &str = "seen";
const NOT_YET: &str = "not yet";
const HIDDEN: &str = "hidden: ";

fn to_words(sight: Sight) -> String {
    match sight {
        Sight::Seen => SEEN.to_owned(),
        Sight::NotYet => NOT_YET.to_owned(),
        Sight::Hidden(why) => format!("{HIDDEN}{why}"),
    }
}

/// In a process that has nothing but a copy of the memory, and so no log.
fn alone(act: impl FnOnce() -> Vec<u8>) -> io::Result<sys::Forked> {
    sys::fork(|| {
        log::set_max_level(log::LevelFilter::Off);
        act()
    })
}

/// In the form that is wanted.
fn diagnosis(failed: &Failed, explain: impl Fn(&BindError) -> Problem) -> Diagnosis {
    let problems = failed.errors.iter().map(explain);
    let Tell::Reload(_, sources) = &failed.tell else {
        return Diagnosis {
            lines: problems.map(|problem| one_line(&problem)).collect(),
            ..Diagnosis::default()
        };
    };
    let mut report = Report::default();
    problems.for_each(|problem| report.add(problem));
    report.sort();
    let whole = report::to_json(&report, sources);
    Diagnosis {
        lines: Vec::new(),
        rendered: report::render(&report, sources, Style::Plain),
        errors: whole["errors"].as_array().cloned().unwrap_or_default(),
    }
}

/// The sockets of each listener, in order, as the kernel numbers them.
fn inodes(sockets: &[HeldSocket<'_>]) -> Vec<Vec<SocketInode>> {
    let mut listeners: Vec<(&str, Vec<SocketInode>)> = Vec::new();
    for socket in sockets {
        let Ok(inode) = SocketInode::of(&socket.held.fd) else {
            continue;
        };
        match listeners.last_mut() {
            Some((last, inodes)) if *last == socket.listener => inodes.push(inode),
            Some(_) | None => listeners.push((socket.listener, vec![inode])),
        }
    }
    listeners.into_iter().map(|(_, inodes)| inodes).collect()
}
