//! The order in which descriptors are moved to their numbers, decided before the clone.
//!
//! The worker wants its listeners at 3, 4, 5 …, or its connection at 0 and 1, and may want a pipe
//! somewhere else; in the parent they have any numbers, some of them in each other's way, and the
//! status pipe may be in the way too. The plan is pure data that the child follows; the tests run it
//! on a model of a descriptor table.

use crate::handoff::FIRST_FD;
use crate::sys::{FdAction, FdSlot};

/// The actions that bring `sources[i]` to `targets[i]`. No target stands there twice.
///
/// `pipe` is the status pipe; its slot is `sources.len()`, and it only has to survive beside the
/// targets. Nothing is placed on a number that is still to be read from: those that read from it come before.
/// Where they wait for each other in a circle, one is first moved above, and so is the pipe. So there are never
/// more than a few descriptors beyond those of the parent, and of a worker with thousands of listeners not twice as
/// many. Above means above the standard streams too, which are in place by then.
pub fn fd_actions(sources: &[i32], targets: &[i32], pipe: i32) -> Vec<FdAction> {
    let mut by_target: Vec<(i32, usize)> = targets.iter().copied().zip(0..).collect();
    by_target.sort_unstable();
    let what_goes_to = |fd: i32| {
        let found = by_target.binary_search_by_key(&fd, |(target, _)| *target);
        found.ok().map(|at| by_target[at].1)
    };
    let last = by_target.last().map(|(target, _)| *target);
    let above = last.map_or(FIRST_FD, |last| FIRST_FD.max(last + 1));
    let slot = |index: usize| FdSlot(index as u16);
    let mut actions = Vec::with_capacity(sources.len() + 1);
    if what_goes_to(pipe).is_some() {
        let slot = slot(sources.len());
        actions.push(FdAction::Relocate { slot, above });
    }
    let mut waits = Waits {
        for_it: vec![0; sources.len()],
        waiting: vec![None; sources.len()],
        is_placed: vec![false; sources.len()],
    };
    // A source may stand twice in the list (a worker that takes a listener twice), so "is in its
    // place" is asked for each occurrence.
    for (index, (source, target)) in sources.iter().zip(targets).enumerate() {
        if source == target {
            actions.push(FdAction::Keep { slot: slot(index) });
            waits.is_placed[index] = true;
        } else if let Some(follows) = what_goes_to(*source) {
            waits.waiting[index] = Some(follows);
            waits.for_it[follows] += 1;
        }
    }
    let place = |first: Option<usize>, waits: &mut Waits, actions: &mut Vec<FdAction>| {
        let mut next = first;
        while let Some(index) = next {
            let (slot, target) = (slot(index), targets[index]);
            actions.push(FdAction::Place { slot, target });
            waits.is_placed[index] = true;
            next = waits.give_up(index);
        }
    };
    for index in 0..sources.len() {
        if !waits.is_placed[index] && waits.for_it[index] == 0 {
            place(Some(index), &mut waits, &mut actions);
        }
    }
    // What is left waits in circles.
    for index in 0..sources.len() {
        if !waits.is_placed[index] {
            let slot = slot(index);
            actions.push(FdAction::Relocate { slot, above });
            let next = waits.give_up(index);
            place(next, &mut waits, &mut actions);
        }
    }
    actions
}

/// Which of the descriptors have to be placed before others.
struct Waits {
    /// How many are still to be read from the number where each goes.
    for_it: Vec<u32>,
    /// Which one goes to the number that each is read from, if any.
    waiting: Vec<Option<usize>>,
    /// What is where it belongs.
    is_placed: Vec<bool>,
}

impl Waits {
    /// A descriptor is not read from its first number any more. What can be placed there now.
    fn give_up(&mut self, index: usize) -> Option<usize> {
        let follows = self.waiting[index].take()?;
        self.for_it[follows] -= 1;
        (self.for_it[follows] == 0 && !self.is_placed[follows]).then_some(follows)
    }
}

/// The numbers from 3 on that are no targets, as ranges (first and last).
pub fn unused(targets: &[i32]) -> Vec<(u32, u32)> {
    let mut used: Vec<u32> = targets
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .collect();
    used.sort_unstable();
    let mut first = FIRST_FD.unsigned_abs();
    let mut ranges = Vec::with_capacity(2);
    for target in used {
        if target > first {
            ranges.push((first, target - 1));
        }
        first = first.max(target + 1);
    }
    ranges.push((first, u32::MAX));
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A descriptor table: number → (what is open there, FD_CLOEXEC).
    type Table = BTreeMap<i32, (String, bool)>;

    /// Follows the actions as the child does, and returns the table and where the pipe ended up.
    fn run(table: Table, sources: &[i32], pipe: i32, first: i32) -> (Table, i32) {
        let targets: Vec<i32> = (first..).take(sources.len()).collect();
        run_to(table, sources, &targets, pipe)
    }

    fn run_to(mut table: Table, sources: &[i32], targets: &[i32], pipe: i32) -> (Table, i32) {
        let mut slots: Vec<i32> = sources.iter().copied().chain([pipe]).collect();
        for action in fd_actions(sources, targets, pipe) {
            match action {
                FdAction::Relocate { slot, above } => {
                    let from = slots[usize::from(slot.0)];
                    let what = table[&from].0.clone();
                    let free = (above..).find(|n| !table.contains_key(n)).unwrap();
                    table.insert(free, (what, true));
                    slots[usize::from(slot.0)] = free;
                }
                FdAction::Place { slot, target } => {
                    let from = slots[usize::from(slot.0)];
                    assert_ne!(from, target, "dup2 onto itself keeps FD_CLOEXEC");
                    let what = table[&from].0.clone();
                    table.insert(target, (what, false));
                }
                FdAction::Keep { slot } => {
                    let at = slots[usize::from(slot.0)];
                    table.get_mut(&at).unwrap().1 = false;
                }
            }
        }
        (table, slots[sources.len()])
    }

    fn permutations(items: &[i32]) -> Vec<Vec<i32>> {
        if items.is_empty() {
            return vec![Vec::new()];
        }
        let mut all = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let mut rest = items.to_vec();
            rest.remove(index);
            for mut tail in permutations(&rest) {
                tail.insert(0, *item);
                all.push(tail);
            }
        }
        all
    }

    /// Every order of up to six descriptors taken from the numbers where they are in the way of
    /// each other and of the pipe.
    #[test]
    fn every_permutation_ends_in_the_exact_table() {
        for low in 1..=5 {
            for count in 0..=6 {
                let numbers: Vec<i32> = (low..low + count).collect();
                for sources in permutations(&numbers) {
                    for pipe in low + count..low + count + 3 {
                        check(&sources, pipe);
                    }
                    // The pipe below the sources.
                    check(&sources, low - 1);
                }
            }
        }
    }

    fn check(sources: &[i32], pipe: i32) {
        let mut table = Table::new();
        for fd in 0..12 {
            table.insert(fd, (format!("other{fd}"), true));
        }
        for fd in sources {
            table.insert(*fd, (format!("socket{fd}"), true));
        }
        table.insert(pipe, ("pipe".to_owned(), true));
        let (table, pipe) = run(table, sources, pipe, 3);
        let end = 3 + sources.len() as i32;
        for (index, source) in sources.iter().enumerate() {
            let expected = (format!("socket{source}"), false);
            assert_eq!(table[&(3 + index as i32)], expected, "{sources:?} {pipe}");
        }
        assert_eq!(table[&pipe], ("pipe".to_owned(), true), "{sources:?}");
        assert!(
            sources.is_empty() || !(3..end).contains(&pipe),
            "{sources:?}"
        );
        for (fd, (what, close_on_exec)) in &table {
            assert!(
                *close_on_exec || (3..end).contains(fd),
                "{what} at {fd} would leak: {sources:?}"
            );
        }
    }

    /// Two listeners and a descriptor that goes somewhere else, each wherever it and the pipe are.
    #[test]
    fn one_more_goes_to_any_number_whatever_is_there() {
        let numbers: Vec<i32> = (3..9).collect();
        for extra in [0, 2, 5, 6, 9] {
            let targets = [3, 4, extra];
            for order in permutations(&numbers) {
                let (sources, pipe) = (&order[..3], order[3]);
                let mut table: Table = (0..10).map(|fd| (fd, (format!("{fd}"), true))).collect();
                table.insert(pipe, ("pipe".to_owned(), true));
                let (table, pipe) = run_to(table, sources, &targets, pipe);
                for (source, target) in sources.iter().zip(targets) {
                    assert_eq!(table[&target], (source.to_string(), false), "{order:?}");
                }
                assert_eq!(table[&pipe], ("pipe".to_owned(), true), "{order:?}");
                let open = table.values().filter(|(_, cloexec)| !cloexec).count();
                assert_eq!(open, 3, "{order:?}");
            }
        }
    }

    // Each was moved above first, and ten thousand listeners took twenty thousand descriptors.
    #[test]
    fn few_more_are_open_than_the_parent_has() {
        let moved = |sources: &[i32], pipe| {
            let targets: Vec<i32> = (3..).take(sources.len()).collect();
            let actions = fd_actions(sources, &targets, pipe);
            let moved = |action: &&FdAction| matches!(action, FdAction::Relocate { .. });
            actions.iter().filter(moved).count()
        };
        let up: Vec<i32> = (8..10_009).collect();
        assert_eq!(moved(&up, 20_000), 0);
        assert_eq!(moved(&up, 3), 1);
        let down: Vec<i32> = (1..10_001).collect();
        assert_eq!(moved(&down, 20_000), 0);
        let circle: Vec<i32> = (4..10_004).chain([3]).collect();
        assert_eq!(moved(&circle, 20_000), 1);
    }

    #[test]
    fn one_that_is_taken_twice_is_read_twice() {
        for sources in [[4, 4, 3], [5, 5, 3], [5, 3, 3], [4, 3, 3], [3, 3, 4]] {
            check(&sources, 9);
        }
    }

    #[test]
    fn everything_between_and_above_is_closed() {
        assert_eq!(unused(&[]), [(3, u32::MAX)]);
        assert_eq!(unused(&[0, 0]), [(3, u32::MAX)]);
        assert_eq!(unused(&[3, 4]), [(5, u32::MAX)]);
        assert_eq!(unused(&[3, 4, 9]), [(5, 8), (10, u32::MAX)]);
        assert_eq!(unused(&[7]), [(3, 6), (8, u32::MAX)]);
        assert_eq!(unused(&[3, 4, 1]), [(5, u32::MAX)]);
    }

    #[test]
    fn one_source_may_be_wanted_twice() {
        let mut table = Table::new();
        table.insert(4, ("socket".to_owned(), true));
        table.insert(9, ("pipe".to_owned(), true));
        let (table, _) = run(table, &[4, 4], 9, 3);
        assert_eq!(table[&3].0, "socket");
        assert_eq!(table[&4], ("socket".to_owned(), false));
    }

    /// As inetd has it: one source on 0 and 1, wherever it and the pipe are.
    #[test]
    fn a_connection_covers_the_first_two_streams_and_leaves_the_third() {
        for source in 3..6 {
            for pipe in (3..7).filter(|pipe| *pipe != source) {
                let mut table = Table::new();
                for fd in 0..3 {
                    table.insert(fd, (format!("stream{fd}"), false));
                }
                table.insert(source, ("socket".to_owned(), true));
                table.insert(pipe, ("pipe".to_owned(), true));
                let (table, _) = run(table, &[source, source], pipe, 0);
                let open: Vec<_> = table.iter().filter(|(_, (_, cloexec))| !cloexec).collect();
                let what: Vec<_> = open
                    .iter()
                    .map(|(fd, (what, _))| (**fd, what.as_str()))
                    .collect();
                assert_eq!(what, [(0, "socket"), (1, "socket"), (2, "stream2")]);
            }
        }
    }
}
