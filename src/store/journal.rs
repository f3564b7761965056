//! Lines in a memory file that are as good after SIGKILL as before.
//!
//! ```text
//!      0  header A   "listend-journal 1 GENERATION OFFSET LENGTH CRC\n"
//!    512  header B   the same; the valid one with the higher generation counts
//!   4096  …          the lines of one generation, the next beside them
//! ```
//!
//! A generation begins with its base, which is LENGTH bytes at OFFSET and complete when its header is
//! written. What is appended follows the base, line by line; a line that is torn, and whatever follows, does
//! not count. Each line is `CRC TEXT\n`, with the CRC-32 of generation and text in eight hexadecimal digits, so
//! that what an earlier generation left in the file is no line of this one.

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

const MAGIC: &str = "listend-journal";
/// Of this arrangement; what the lines say has a number of its own.
const FORMAT: u32 = 1;
const HEADERS: [u64; 2] = [0, 512];
const HEADER_SIZE: usize = 512;
const FIRST: u64 = 4096;
/// A new base is asked for when so much more than the base was appended.
const SLACK: u64 = 64 * 1024;

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    generation: u64,
    offset: u64,
    base: u64,
    end: u64,
}

/// Why a journal cannot be read.
#[derive(Debug)]
pub enum Damaged {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// No header is whole: this is no journal, or was never written.
    NoHeader,
    /// The journal is arranged in a way that this version does not know.
    OtherFormat(u32),
    /// The base is cut off or changed: so many of its bytes are whole.
    Torn {
        /// The bytes of the base that can be read.
        whole: u64,
        /// The bytes that it has.
        of: u64,
    },
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damaged::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Damaged::NoHeader => f.write_str("it has no valid header"),
            Damaged::OtherFormat(format) => write!(f, "its format {format} is not known here"),
            Damaged::Torn { whole, of } => {
                write!(f, "only {whole} of {of} bytes of its base are valid")
            }
        }
    }
}

impl std::error::Error for Damaged {}

struct Header {
    generation: u64,
    offset: u64,
    base: u64,
}

impl Journal {
    /// An empty one. Nobody can seal it (MFD_ALLOW_SEALING, memfd_create(2)).
    ///
    /// # Errors
    ///
    /// The errors of memfd_create(2) and pwrite(2).
    pub fn create() -> io::Result<Journal> {
        let fd = memfd_create(c"listend-snapshot", MFdFlags::MFD_CLOEXEC)?;
        let mut journal = Journal {
            file: File::from(fd),
            generation: 0,
            offset: FIRST,
            base: 0,
            end: FIRST,
        };
        journal.write_base([])?;
        Ok(journal)
    }

    /// Reads one that another process wrote, and goes on with it.
    ///
    /// # Errors
    ///
    /// See [`Damaged`].
    pub fn read(fd: OwnedFd) -> Result<(Journal, Vec<String>), Damaged> {
        let file = File::from(fd);
        let mut best: Option<Header> = None;
        let mut other = None;
        for at in HEADERS {
            match read_header(&file, at) {
                Ok(Some(header)) => {
                    if best
                        .as_ref()
                        .is_none_or(|best| best.generation < header.generation)
                    {
                        best = Some(header);
                    }
                }
                Ok(None) => {}
                Err(Damaged::OtherFormat(format)) => other = Some(format),
                Err(error) => return Err(error),
            }
        }
        let Some(header) = best else {
            return Err(other.map_or(Damaged::NoHeader, Damaged::OtherFormat));
        };
        let size = file.metadata().map_err(Damaged::Unreadable)?.len();
        let length = size.saturating_sub(header.offset);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, header.offset)
            .map_err(Damaged::Unreadable)?;
        let (lines, whole) = lines(&bytes, header.generation);
        if whole < header.base {
            let of = header.base;
            return Err(Damaged::Torn { whole, of });
        }
        let journal = Journal {
            file,
            generation: header.generation,
            offset: header.offset,
            base: header.base,
            end: header.offset + whole,
        };
        Ok((journal, lines))
    }

    /// Begins anew with these lines, none of which has a newline. Until it is written whole, the lines
    /// before are what is read.
    ///
    /// # Errors
    ///
    /// The errors of pwrite(2); the lines before are kept.
    pub fn write_base<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
        let generation = self.generation + 1;
        let text = written(lines, generation);
        let length = text.len() as u64;
        let room_before = self.offset - FIRST;
        let offset = if length <= room_before {
            FIRST
        } else {
            self.end.next_multiple_of(FIRST)
        };
        self.file.write_all_at(text.as_bytes(), offset)?;
        let header = header(generation, offset, length);
        let at = HEADERS[usize::from(generation % 2 == 1)];
        self.file.write_all_at(&header, at)?;
        // What lies beyond belongs to no generation.
        let before = self.offset;
        (self.generation, self.offset) = (generation, offset);
        (self.base, self.end) = (length, offset + length);
        if offset < before {
            self.file.set_len(self.end)?;
        }
        Ok(())
    }

    /// Adds lines, none of which has a newline.
    ///
    /// # Errors
    ///
    /// The errors of pwrite(2). What was written of the lines does not count, or does up to one of them.
    pub fn append<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
        let text = written(lines, self.generation);
        self.file.write_all_at(text.as_bytes(), self.end)?;
        self.end += text.len() as u64;
        Ok(())
    }

    /// Whether so much was appended that a new base is smaller.
    pub fn wants_base(&self) -> bool {
        self.end - self.offset > 2 * self.base + SLACK
    }

    /// Makes it unreadable: what it says is not true any more, and cannot be written.
    pub fn invalidate(&mut self) {
        for at in HEADERS {
            // The page is there, so that this needs no memory.
            let _unchanged = self.file.write_all_at(&[0; HEADER_SIZE], at);
        }
    }

    /// The memory file.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Journal> for OwnedFd {
    fn from(journal: Journal) -> OwnedFd {
        journal.file.into()
    }
}

fn checksum(generation: u64, text: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(text);
    hasher.finalize()
}

fn written<'a>(lines: impl IntoIterator<Item = &'a str>, generation: u64) -> String {
    let mut text = String::new();
    for line in lines {
        debug_assert!(!line.contains('\n'), "{line}");
        let checksum = checksum(generation, line.as_bytes());
        text.push_str(&format!("{checksum:08x} {line}\n"));
    }
    text
}

/// The lines up to the first that is none, and how many bytes they are.
fn lines(bytes: &[u8], generation: u64) -> (Vec<String>, u64) {
    let mut found = Vec::new();
    let mut whole = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line
            .strip_suffix(b"\n")
            .and_then(|line| std::str::from_utf8(line).ok());
        let Some((sum, text)) = text.and_then(|text| text.split_once(' ')) else {
            break;
        };
        if u32::from_str_radix(sum, 16) != Ok(checksum(generation, text.as_bytes())) {
            break;
        }
        found.push(text.to_owned());
        whole += line.len() as u64;
    }
    (found, whole)
}

fn header(generation: u64, offset: u64, base: u64) -> [u8; HEADER_SIZE] {
    let text = format!("{MAGIC} {FORMAT} {generation} {offset} {base}");
    let text = format!("{text} {:08x}\n", checksum(generation, text.as_bytes()));
    let mut bytes = [0; HEADER_SIZE];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// `None` where there is none, or one that was not written whole.
fn read_header(file: &File, at: u64) -> Result<Option<Header>, Damaged> {
    let mut bytes = [0; HEADER_SIZE];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(Damaged::Unreadable(error)),
    }
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else {
        return Ok(None);
    };
    let Some((text, sum)) = line.rsplit_once(' ') else {
        return Ok(None);
    };
    let mut fields = text.split(' ');
    if fields.next() != Some(MAGIC) {
        return Ok(None);
    }
    match fields.next().map(str::parse::<u32>) {
        Some(Ok(FORMAT)) => {}
        Some(Ok(format)) => return Err(Damaged::OtherFormat(format)),
        Some(Err(_)) | None => return Ok(None),
    }
    let numbers: Option<Vec<u64>> = fields.map(|field| field.parse().ok()).collect();
    let Some([generation, offset, base]) = numbers.as_deref() else {
        return Ok(None);
    };
    let is_whole = u32::from_str_radix(sum, 16) == Ok(checksum(*generation, text.as_bytes()))
        && *offset >= FIRST;
    Ok(is_whole.then_some(Header {
        generation: *generation,
        offset: *offset,
        base: *base,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(journal: &Journal) -> OwnedFd {
        journal.file.as_fd().try_clone_to_owned().expect("dup")
    }

    fn read(journal: &Journal) -> Vec<String> {
        Journal::read(copy(journal)).expect("a whole journal").1
    }

    #[test]
    fn what_was_written_is_read() {
        let mut journal = Journal::create().expect("a journal");
        assert_eq!(read(&journal), Vec::<String>::new());
        journal.append(["one", "two"]).expect("append");
        journal.append(["three"]).expect("append");
        assert_eq!(read(&journal), ["one", "two", "three"]);
        journal.write_base(["three", "four"]).expect("a base");
        assert_eq!(read(&journal), ["three", "four"]);
        journal.append(["five"]).expect("append");
        assert_eq!(read(&journal), ["three", "four", "five"]);
    }

    #[test]
    fn who_reads_it_goes_on_with_it() {
        let mut journal = Journal::create().expect("a journal");
        journal.append(["one"]).expect("append");
        let (mut next, lines) = Journal::read(copy(&journal)).expect("a journal");
        assert_eq!(lines, ["one"]);
        next.append(["two"]).expect("append");
        assert_eq!(read(&next), ["one", "two"]);
        next.write_base(["three"]).expect("a base");
        assert_eq!(read(&next), ["three"]);
    }

    #[test]
    fn a_line_of_an_earlier_generation_is_none_of_this() {
        let mut journal = Journal::create().expect("a journal");
        let long = "x".repeat(5000);
        for round in 0..200 {
            let first = format!("{round}");
            journal.write_base([first.as_str(), &long]).expect("a base");
            assert_eq!(read(&journal), [first.as_str(), &long]);
            journal.append(["a", "b"]).expect("append");
            assert_eq!(read(&journal), [first.as_str(), &long, "a", "b"]);
        }
        let size = journal.file.metadata().expect("fstat").len();
        assert!(size < 4 * 8192 + FIRST, "{size}");
    }

    #[test]
    fn what_an_earlier_generation_has_left_behind_the_base_does_not_count() {
        let mut journal = Journal::create().expect("a journal");
        journal.write_base(["same"; 3]).expect("a base");
        let mut old = vec![0; (journal.end - journal.offset) as usize];
        journal.file.read_exact_at(&mut old, FIRST).expect("read");
        journal.write_base(["other"]).expect("a base");
        journal.write_base(["same"]).expect("a base");
        assert_eq!(journal.offset, FIRST, "over the first");
        // As if the process had been killed before it cut the file off.
        let behind = (journal.end - FIRST) as usize;
        journal
            .file
            .write_all_at(&old[behind..], journal.end)
            .expect("write");
        assert_eq!(read(&journal), ["same"]);
    }

    /// SIGKILL between any two bytes: what is read is what was there before, or after.
    #[test]
    fn a_base_that_is_cut_off_anywhere_leaves_the_one_before() {
        let mut journal = Journal::create().expect("a journal");
        journal.write_base(["old"]).expect("a base");
        journal.append(["older"]).expect("append");
        let mut before = vec![0; journal.file.metadata().expect("fstat").len() as usize];
        journal.file.read_exact_at(&mut before, 0).expect("read");
        journal.write_base(["new", "newer"]).expect("a base");
        let mut after = vec![0; journal.file.metadata().expect("fstat").len() as usize];
        journal.file.read_exact_at(&mut after, 0).expect("read");
        before.resize(after.len(), 0);
        // The lines are written before the header.
        let order = (FIRST as usize..after.len()).chain(0..FIRST as usize);
        let mut torn = before.clone();
        for at in order {
            if torn[at] == after[at] {
                continue;
            }
            torn[at] = after[at];
            let half = Journal::create().expect("a journal");
            half.file.write_all_at(&torn, 0).expect("write");
            let lines = read(&half);
            assert!(
                lines == ["old", "older"] || lines == ["new", "newer"],
                "at {at}: {lines:?}"
            );
        }
        assert_eq!(torn, after);
    }

    #[test]
    fn a_line_that_is_cut_off_anywhere_does_not_count() {
        let mut journal = Journal::create().expect("a journal");
        journal.write_base(["base"]).expect("a base");
        let start = journal.end;
        journal.append(["one", "two"]).expect("append");
        for length in start..journal.end {
            let mut bytes = vec![0; length as usize];
            journal.file.read_exact_at(&mut bytes, 0).expect("read");
            let half = Journal::create().expect("a journal");
            half.file.write_all_at(&bytes, 0).expect("write");
            let lines = read(&half);
            assert!(
                lines == ["base"] || lines == ["base", "one"],
                "at {length}: {lines:?}"
            );
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let empty = memfd_create(c"empty", MFdFlags::empty()).expect("memfd");
        assert!(matches!(Journal::read(empty), Err(Damaged::NoHeader)));
        let mut journal = Journal::create().expect("a journal");
        journal.write_base(["base"]).expect("a base");
        journal.file.set_len(journal.end - 1).expect("truncate");
        assert!(matches!(
            Journal::read(copy(&journal)),
            Err(Damaged::Torn { whole: 0, of: 14 })
        ));
        journal.invalidate();
        assert!(matches!(
            Journal::read(copy(&journal)),
            Err(Damaged::NoHeader)
        ));
        let later = Journal::create().expect("a journal");
        for at in HEADERS {
            later
                .file
                .write_all_at(b"listend-journal 7 x\n", at)
                .expect("write");
        }
        assert!(matches!(
            Journal::read(copy(&later)),
            Err(Damaged::OtherFormat(7))
        ));
        // No lines are where the headers are.
        let inside = Journal::create().expect("a journal");
        for at in HEADERS {
            let header = header(1, FIRST - 1, 0);
            inside.file.write_all_at(&header, at).expect("write");
        }
        assert!(matches!(
            Journal::read(copy(&inside)),
            Err(Damaged::NoHeader)
        ));
    }

    #[test]
    fn a_base_is_asked_for_when_what_was_appended_is_larger() {
        let mut journal = Journal::create().expect("a journal");
        let line = "x".repeat(1000);
        let mut count = 0;
        while !journal.wants_base() {
            journal.append([line.as_str()]).expect("append");
            count += 1;
        }
        assert_eq!(count, 65);
        journal.write_base([line.as_str()]).expect("a base");
        assert!(!journal.wants_base());
    }
}
