//! The last lines of each worker, in memory.

use super::split::Piece;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The most lines that are kept of a worker.
const LINES: usize = 1_000;
/// The most bytes that are kept of a worker, with what it takes to keep them.
const BYTES: usize = 256 * 1024;
/// The most bytes that are kept of all workers, as long as they are not very many.
const BYTES_OF_ALL: usize = 16 * 1024 * 1024;
/// What a worker may keep however many there are.
const BYTES_AT_LEAST: usize = 4 * 1024;

/// A line that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counts the lines of all workers, from 1.
    pub number: u64,
    /// When it was read, since 1970.
    pub time: Duration,
    /// The index of the instance that wrote it.
    pub instance: u32,
    /// The number of the process; never reused.
    pub process: u64,
    /// Whether a line begins here, and not the next part of one that is very long.
    pub is_start: bool,
    /// As it came, without the newline.
    pub text: Vec<u8>,
}

impl Line {
    fn size(&self) -> usize {
        self.text.len() + size_of::<Line>()
    }
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
    /// The number of the last line that was thrown away for another.
    gone: u64,
}

impl Ring {
    fn push(&mut self, line: Line, room: usize) {
        self.bytes += line.size();
        self.lines.push_back(line);
        // A single line is kept however long it is, and none is longer than `LONGEST`.
        while self.lines.len() > LINES || (self.bytes > room && self.lines.len() > 1) {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= oldest.size();
            self.gone = oldest.number;
        }
    }
}

/// The last lines of each worker. A worker is a number.
#[derive(Debug, Default)]
pub struct Kept {
    rings: BTreeMap<usize, Ring>,
    room: usize,
    newest: u64,
}

/// Lines that came after another.
#[derive(Debug, PartialEq, Eq)]
pub struct Since<'a> {
    /// With their workers, the oldest first.
    pub lines: Vec<(usize, &'a Line)>,
    /// The number of the last line that nobody has any more: those from the one that was asked for up
    /// to here are lost, if it is behind that.
    pub gone: u64,
    /// The number to go on from.
    pub next: u64,
}

impl Kept {
    /// For so many workers.
    pub fn new(workers: usize) -> Kept {
        let mut kept = Kept::default();
        kept.add(0..workers);
        kept
    }

    /// Keeps the lines of these workers, too.
    pub fn add(&mut self, workers: impl Iterator<Item = usize>) {
        for worker in workers {
            self.rings.entry(worker).or_default();
        }
        self.room = (BYTES_OF_ALL / self.rings.len().max(1)).clamp(BYTES_AT_LEAST, BYTES);
    }

    /// Keeps the lines of a worker no longer.
    pub fn forget(&mut self, worker: usize) {
        self.rings.remove(&worker);
    }

    /// The number of the line that came last; 0 before the first.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Keeps a line, and throws away as many old ones as it takes.
    pub fn push(
        &mut self,
        worker: usize,
        instance: u32,
        process: u64,
        time: Duration,
        piece: Piece<'_>,
    ) {
        let Some(ring) = self.rings.get_mut(&worker) else {
            return;
        };
        self.newest += 1;
        let line = Line {
            number: self.newest,
            time,
            instance,
            process,
            is_start: piece.is_start,
            text: piece.bytes.to_vec(),
        };
        ring.push(line, self.room);
    }

    /// Keeps a line that another process has counted, after those before it.
    pub fn restore(&mut self, worker: usize, line: Line) {
        if line.number > self.newest {
            self.newest = line.number;
            let room = self.room;
            self.rings.entry(worker).or_default().push(line, room);
        }
    }

    /// The last lines of one worker or of all, at most so many, the oldest first.
    pub fn last(&self, worker: Option<usize>, count: usize) -> Vec<(usize, &Line)> {
        let mut found = Vec::new();
        for (index, ring) in self.of(worker) {
            let lines = ring.lines.iter().rev().take(count);
            found.extend(lines.map(|line| (index, line)));
        }
        found.sort_unstable_by_key(|(_, line)| line.number);
        found.split_off(found.len().saturating_sub(count))
    }

    /// What came after the line with this number, at most so many lines, the oldest first.
    pub fn since(&self, worker: Option<usize>, number: u64, at_most: usize) -> Since<'_> {
        let mut lines = Vec::new();
        let mut gone = 0;
        for (index, ring) in self.of(worker) {
            gone = ring.gone.max(gone);
            let first = ring.lines.partition_point(|line| line.number <= number);
            let newer = ring.lines.range(first..).take(at_most);
            lines.extend(newer.map(|line| (index, line)));
        }
        lines.sort_unstable_by_key(|(_, line)| line.number);
        lines.truncate(at_most);
        let next = if lines.len() < at_most {
            self.newest
        } else {
            lines.last().map_or(number, |(_, line)| line.number)
        };
        Since { lines, gone, next }
    }

    /// The last lines of one process that are not blank, at most so many, the oldest first.
    pub fn of_process(&self, worker: usize, process: u64, count: usize) -> Vec<&Line> {
        let ring = self.rings.get(&worker);
        let lines = ring.into_iter().flat_map(|ring| ring.lines.iter().rev());
        let own = lines.filter(|line| line.process == process);
        let said = own.filter(|line| !line.text.trim_ascii().is_empty());
        let mut found: Vec<&Line> = said.take(count).collect();
        found.reverse();
        found
    }

    fn of(&self, worker: Option<usize>) -> impl Iterator<Item = (usize, &Ring)> {
        let all = self.rings.iter().map(|(index, ring)| (*index, ring));
        all.filter(move |(index, _)| worker.is_none_or(|worker| worker == *index))
    }
}

#[cfg(test)]
mod tests {
    use super::super::split::Ends;
    use super::*;

    fn push(kept: &mut Kept, worker: usize, process: u64, text: &str) {
        let piece = Piece {
            bytes: text.as_bytes(),
            is_start: true,
            ends: Ends::Newline,
        };
        kept.push(worker, 0, process, Duration::ZERO, piece);
    }

    fn texts(lines: &[(usize, &Line)]) -> Vec<String> {
        let text = |line: &Line| String::from_utf8(line.text.clone()).unwrap();
        lines.iter().map(|(_, line)| text(line)).collect()
    }

    #[test]
    fn lines_of_all_come_in_the_order_in_which_they_were_written() {
        let mut kept = Kept::new(2);
        for (worker, text) in [(0, "a"), (1, "b"), (1, "c"), (0, "d")] {
            push(&mut kept, worker, 7, text);
        }
        assert_eq!(texts(&kept.last(None, 3)), ["b", "c", "d"]);
        assert_eq!(texts(&kept.last(Some(1), 9)), ["b", "c"]);
        assert_eq!(texts(&kept.last(Some(2), 9)), [""; 0]);
        assert_eq!(texts(&kept.last(None, 0)), [""; 0]);
    }

    #[test]
    fn a_follower_gets_every_line_once_in_portions_of_any_size() {
        for at_most in 1..6 {
            let mut kept = Kept::new(2);
            let (mut number, mut seen) = (0, Vec::new());
            for index in 0..20 {
                push(&mut kept, index % 2, 7, &index.to_string());
                if index % 3 == 0 {
                    let since = kept.since(None, number, at_most);
                    assert_eq!(since.gone, 0);
                    seen.extend(texts(&since.lines));
                    number = since.next;
                }
            }
            while number < kept.newest() {
                let since = kept.since(None, number, at_most);
                seen.extend(texts(&since.lines));
                number = since.next;
            }
            let wanted: Vec<String> = (0..20).map(|index: u32| index.to_string()).collect();
            assert_eq!(seen, wanted, "{at_most}");
        }
    }

    #[test]
    fn a_follower_of_one_worker_goes_past_the_lines_of_others() {
        let mut kept = Kept::new(2);
        push(&mut kept, 0, 7, "a");
        let since = kept.since(Some(1), 0, 5);
        assert_eq!((since.lines.len(), since.next), (0, 1));
        assert_eq!(kept.since(None, 0, 0).next, 0);
    }

    #[test]
    fn old_lines_make_room_and_leave_a_gap() {
        let mut kept = Kept::new(1);
        for index in 0..=LINES {
            push(&mut kept, 0, 7, &index.to_string());
        }
        let since = kept.since(None, 0, usize::MAX);
        assert_eq!((since.lines.len(), since.gone), (LINES, 1));
    }

    #[test]
    fn memory_is_bounded_also_by_bytes_and_for_many_workers() {
        for (workers, room) in [(1, BYTES), (1_000_000, BYTES_AT_LEAST)] {
            let mut kept = Kept::new(workers);
            for _ in 0..LINES {
                push(&mut kept, 0, 7, &"x".repeat(2000));
            }
            let lines = kept.last(Some(0), usize::MAX);
            let bytes: usize = lines.iter().map(|(_, line)| line.size()).sum();
            assert!(bytes <= room && bytes + 4000 > room, "{bytes}");
        }
    }

    #[test]
    fn the_last_words_of_a_process_are_its_own() {
        let mut kept = Kept::new(1);
        for (process, text) in [(7, "a"), (7, "b"), (8, "c"), (7, " "), (7, "d")] {
            push(&mut kept, 0, process, text);
        }
        let found: Vec<_> = kept.of_process(0, 7, 2).iter().map(|l| l.number).collect();
        assert_eq!(found, [2, 5]);
    }
}
