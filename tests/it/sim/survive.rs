//! Another process of listend goes on from what this one has written, at any step.

use crate::sim::life::{Due, Grammar, Life};
use crate::sim::seeds::Trace;
use listend::core::{Change, Core, ExitStatus, Input, Mono, ProcessId, Snapshot};
use listend::plan::Lifecycle;

/// The core of another process, which reads what this one has written.
pub(crate) fn thawed(written: &Snapshot, core: &Core) -> Core {
    let texts: Vec<String> = written.changes().map(|one| one.text()).collect();
    let head = r#"{"kind":"snapshot","format":1}"#;
    let lines = [head].into_iter().chain(texts.iter().map(String::as_str));
    let read = Snapshot::read(lines).expect("it was written here");
    Core::thaw(&read.snapshot, core.known()).expect("it is a core's")
}

impl<G: Grammar> Life<G> {
    /// The changes that were written add up to what there is to write.
    pub(crate) fn write(&mut self) {
        for change in self.core.take_changes() {
            self.written.apply(change);
        }
        assert!(
            self.written == self.core.freeze(),
            "{:#?}\nis written, and not\n{:#?}",
            self.written,
            self.core.freeze()
        );
    }

    /// Another process goes on. Processes have ended meanwhile if it was not planned.
    pub(crate) fn survive(&mut self) {
        self.end_turn();
        if self.exited {
            return;
        }
        if self.trace == Trace::Print {
            println!("{:>16} another process goes on", self.now.0);
        }
        self.write();
        self.core = thawed(&self.written, &self.core);
        assert!(self.core.freeze() == self.written, "it says the same again");
        self.written = Snapshot::default();
        self.held_up_until = Mono(0);
        self.due.clear();
        self.counts.survived += 1;
        G::survived(self);
        if self.rng.one_in(2) {
            for process in self.core.processes().collect::<Vec<_>>() {
                self.ends_unseen(process);
            }
            G::lost(self);
        }
        self.give(Input::Resumed);
        self.catch_up();
    }

    /// What the shell does within a turn is done.
    fn end_turn(&mut self) {
        loop {
            self.catch_up();
            if !self.stamps.is_empty() {
                continue;
            }
            let at_once = |due: &Due| matches!(due, Due::Accept(_) | Due::Look(_));
            if let Some(at) = self.due.iter().position(at_once) {
                let due = self.due.remove(at).expect("it is there");
                G::answer(self, due);
                continue;
            }
            let mut all = self.processes.iter();
            let unknown = all.find(|(_, proc)| !proc.known || proc.exit_told && !proc.exec_told);
            let Some((process, _)) = unknown else {
                return;
            };
            let process = *process;
            self.happens(process);
        }
    }

    /// A program ends while nobody looks.
    fn ends_unseen(&mut self, process: ProcessId) {
        let ends = self.rng.one_in(4);
        let Some(proc) = self.processes.get_mut(&process) else {
            panic!("{process:?} is known, and is not there");
        };
        let runs = proc.exec_told || proc.hook().is_some() && proc.exec == Some(Ok(()));
        if !ends || !runs || proc.exec != Some(Ok(())) {
            return;
        }
        let status = ExitStatus::Unknown;
        proc.exit = Some(status);
        proc.exit_told = true;
        proc.exit_told_at = proc.main_told.unwrap_or(self.now);
        self.counts.unseen += 1;
        self.over(process);
        self.give(Input::Exited { process, status });
    }
}

/// The text of a change tells of what has changed.
#[test]
fn a_change_is_one_line() {
    let mut core = Core::new([] as [Lifecycle; 0], listend::core::WhenDone::Hold);
    let lines: Vec<String> = core.take_changes().iter().map(Change::text).collect();
    assert_eq!(
        lines,
        [concat!(
            r#"{"kind":"daemon","phase":"idle","up":false,"verdict":0,"next_process":0,"#,
            r#""next_connection":0,"next_run":0}"#
        )]
    );
}
