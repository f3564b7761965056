//! The launches of one definition of a worker, as far as they are the same for every connection.

use super::prepare::{
    DaemonContext, MOST_OF_ONE, Numbers, Preparation, Served, SpawnInputs, of_common, push_of_one,
};
use crate::config::{Output, Piece, Template};
use crate::handoff::belongs_to_a_handoff;
use crate::plan::WorkerPlan;
use crate::sys::{CStrings, Common, Prepared};
use std::cell::OnceCell;
use std::rc::Rc;

/// What the processes of all connections of one definition have in common, laid out for the first of them. It
/// belongs to the definition, and goes with it.
#[derive(Debug, Default)]
pub struct Pattern(OnceCell<Option<Shared>>);

#[derive(Debug)]
struct Shared {
    common: Rc<Common>,
    /// The variables but for those of one process.
    environment: CStrings,
    /// How many numbers the connection gets.
    places: usize,
}

impl Pattern {
    /// Lays the process of a connection out; `None` where that has to be done for each by itself.
    pub fn prepare(
        &self,
        worker: &WorkerPlan,
        given: &SpawnInputs<'_>,
        numbers: Numbers,
        around: &DaemonContext,
    ) -> Option<Prepared> {
        let served = given.connection.filter(|_| gets_nothing_else(given))?;
        let shared = self.0.get_or_init(|| Shared::of(worker, served, around));
        let Shared {
            common,
            environment: shared,
            places,
        } = shared.as_ref()?;
        let mut environment = CStrings::with_room_beside(MOST_OF_ONE, shared);
        let of_one = (worker.name.as_str(), numbers, around.pid);
        push_of_one(&mut environment, Some(served.ends), of_one).ok()?;
        environment.append(shared);
        let fds = vec![served.fd; *places];
        Some(of_common(Rc::clone(common), environment, fds))
    }
}

impl Shared {
    fn of(worker: &WorkerPlan, served: Served<'_>, around: &DaemonContext) -> Option<Shared> {
        if !are_alike(worker) {
            return None;
        }
        let given = SpawnInputs {
            connection: Some(served),
            ..SpawnInputs::default()
        };
        let first = Numbers {
            instance: 0,
            generation: 1,
        };
        let preparation = Preparation::new(worker, given, first, around).ok()?;
        let (common, environment, fds) = preparation.of_all().ok()?;
        Some(Shared {
            common: Rc::new(common),
            environment,
            places: fds.len(),
        })
    }
}

/// Whether the process has the connection, and nothing beside it but what its plan says.
fn gets_nothing_else(given: &SpawnInputs<'_>) -> bool {
    given.stored.is_empty()
        && given.notify.is_none()
        && given.acknowledge_at.is_none()
        && given.ready.is_none()
}

/// Whether the processes of all connections differ in nothing but the variables of [`push_of_one`].
fn are_alike(worker: &WorkerPlan) -> bool {
    let values = worker.environment.iter().map(|(_, value)| value);
    let command = worker.command.iter().chain(&worker.argv0);
    let mut templates = command
        .chain(&worker.launch.working_directory)
        .chain(values);
    let mut names = worker.environment.iter().map(|(name, _)| name);
    let mut dialects = worker.handoff.dialects().iter();
    matches!(worker.output, Output::Inherit | Output::Null)
        && worker.sandbox.is_none()
        && has_path(worker)
        && templates.all(is_fixed)
        // One that is set for some connections would take the place of the worker's own.
        && !names.any(|name| belongs_to_a_handoff(name))
        && dialects.all(|dialect| dialect.connections)
}

/// Whether the program stands there with a path: a bare name may be found somewhere else the next time.
fn has_path(worker: &WorkerPlan) -> bool {
    let has_slash = |piece: &Piece| match piece {
        Piece::Text(text) => text.contains('/'),
        _ => false,
    };
    let program = worker.command.first();
    program.is_some_and(|program| program.pieces.iter().any(has_slash))
}

/// Whether a template is the same text as long as the definition and listend are there.
fn is_fixed(template: &Template) -> bool {
    template.pieces.iter().all(|piece| match piece {
        Piece::Text(_)
        | Piece::Listend
        | Piece::RuntimeDir
        | Piece::ServerPort
        | Piece::SupervisorPid => true,
        Piece::Fd(_)
        | Piece::Fds(_)
        | Piece::Address(_)
        | Piece::Port(_)
        | Piece::Host(_)
        | Piece::Instance
        | Piece::Generation
        | Piece::Variable(_)
        | Piece::Words(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SocketRef;
    use crate::connection::{End, Ends, Protocol};
    use crate::handoff::{ALL, Handoff, PidfdInode};
    use crate::launch_spec::{Limit, Resource};
    use std::sync::Arc;

    fn text(words: &str) -> Template {
        Template {
            pieces: vec![Piece::Text(words.to_owned())],
        }
    }

    fn of(piece: Piece) -> Template {
        Template {
            pieces: vec![piece],
        }
    }

    fn around() -> DaemonContext {
        DaemonContext {
            listend: "/usr/bin/listend".to_owned(),
            pid: 7,
            inode: PidfdInode::Tell,
            signals: crate::sys::changed_signals(),
            open_files: Limit {
                resource: Resource::Nofile,
                soft: Some(1024),
                hard: Some(4096),
            },
        }
    }

    fn ends(remote: &str) -> Ends {
        let end = |address: &str| End::Inet(address.parse().expect("an address"));
        Ends {
            protocol: Protocol::Tcp,
            local: end("127.0.0.1:80"),
            remote: end(remote),
            credentials: None,
        }
    }

    fn worker() -> WorkerPlan {
        let mut worker = WorkerPlan {
            name: "echo".to_owned(),
            command: vec![text("/bin/echo"), text("a b"), of(Piece::SupervisorPid)],
            environment: Arc::new(vec![
                ("PATH".to_owned(), text("/bin")),
                ("SELF".to_owned(), of(Piece::Listend)),
            ]),
            ..WorkerPlan::default()
        };
        worker.launch.working_directory = Some(text("/tmp"));
        worker.launch.umask = Some(0o27);
        worker
    }

    fn given<'a>(fd: i32, ends: &'a Ends) -> SpawnInputs<'a> {
        SpawnInputs {
            connection: Some(Served { fd, ends }),
            ..SpawnInputs::default()
        }
    }

    /// Everything that the child works with.
    fn shown(prepared: &Prepared) -> String {
        let strings = |all: &CStrings| {
            let strings = all.strings();
            let strings = strings.map(|(text, slot)| (String::from_utf8_lossy(text).into(), slot));
            strings.collect::<Vec<(String, _)>>()
        };
        let Common {
            program,
            argv,
            targets,
            unused,
            output,
            spec,
            signals,
        } = &*prepared.common;
        format!(
            "{program:?} {:?} {targets:?} {unused:?} {output:?} {spec:?} {signals:?} {:?} {:?}",
            strings(argv),
            strings(&prepared.environment),
            prepared.fds
        )
    }

    #[test]
    fn each_connection_gets_what_it_would_get_by_itself() {
        let around = around();
        for dialect in ALL.iter().filter(|dialect| dialect.connections) {
            let mut worker = worker();
            worker.handoff = Handoff::one(dialect);
            let pattern = Pattern::default();
            for (instance, fd, remote) in [(0, 9, "[::1]:5"), (3, 11, "10.0.0.255:65535")] {
                let ends = ends(remote);
                let (given, numbers) = (
                    given(fd, &ends),
                    Numbers {
                        instance,
                        generation: 2,
                    },
                );
                let quick = pattern.prepare(&worker, &given, numbers, &around);
                let quick = quick.expect("all are alike");
                let alone = Preparation::new(&worker, given, numbers, &around);
                let alone = alone.and_then(|one| one.program(None)).expect("laid out");
                assert_eq!(shown(&quick), shown(&alone), "{dialect:?}");
            }
        }
    }

    #[test]
    fn what_differs_from_one_to_the_next_is_laid_out_for_each() {
        let around = around();
        let ends = ends("127.0.0.1:9");
        let numbers = Numbers {
            instance: 0,
            generation: 1,
        };
        let lays_out = |change: &dyn Fn(&mut WorkerPlan)| {
            let mut worker = worker();
            change(&mut worker);
            let pattern = Pattern::default();
            let prepared = pattern.prepare(&worker, &given(9, &ends), numbers, &around);
            prepared.is_some()
        };
        assert!(lays_out(&|_| {}));
        let listener = SocketRef {
            listener: "web".to_owned(),
            index: None,
        };
        for piece in [
            Piece::Instance,
            Piece::Generation,
            Piece::Variable("REMOTE_ADDR".to_owned()),
            Piece::Port(listener),
        ] {
            let piece = &piece;
            assert!(!lays_out(&|one| one.command.push(of(piece.clone()))));
            assert!(!lays_out(&|one| {
                Arc::make_mut(&mut one.environment)[0].1 = of(piece.clone());
            }));
            assert!(!lays_out(&|one| {
                one.launch.working_directory = Some(of(piece.clone()));
            }));
        }
        assert!(!lays_out(&|one| one.command[0] = text("echo")));
        assert!(!lays_out(&|one| one.output = Output::Tag));
        assert!(!lays_out(&|one| {
            Arc::make_mut(&mut one.environment).push(("REMOTE_ADDR".to_owned(), text("x")));
        }));
        let worker = worker();
        let told = SpawnInputs {
            notify: Some("/run/notify"),
            ..given(9, &ends)
        };
        let pattern = Pattern::default();
        assert!(pattern.prepare(&worker, &told, numbers, &around).is_none());
    }
}
