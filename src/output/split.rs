//! Bytes → lines.

/// The longest line that is passed on in one piece, in bytes without the newline.
pub const LONGEST: usize = 16 * 1024;

/// What comes behind a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// A newline.
    Newline,
    /// More of the same line, which is longer than [`LONGEST`].
    Cut,
    /// Nothing: the output ended without a newline.
    Output,
}

/// A line, or a part of a long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Without the newline.
    pub bytes: &'a [u8],
    /// Whether the line begins here.
    pub is_start: bool,
    /// What comes behind it.
    pub ends: Ends,
}

/// Cuts one stream of bytes into lines. Keeps at most [`LONGEST`] bytes.
#[derive(Debug, Default)]
pub struct Splitter {
    /// What has come of a line that has not ended.
    partial: Vec<u8>,
    /// Whether a part of that line has been passed on already.
    is_cut: bool,
    /// Whether what came behind it may be lost: what comes now is another line.
    is_broken: bool,
}

impl Splitter {
    /// Takes more bytes, and passes on every line that ends in them.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(Piece<'_>)) {
        if std::mem::take(&mut self.is_broken) {
            match self.partial.is_empty() {
                true => self.is_cut = false,
                false => self.pass(&[], Ends::Newline, &mut take),
            }
        }
        while !bytes.is_empty() {
            let room = LONGEST - self.partial.len();
            // A newline right behind a piece of full length is the end of it.
            let newline = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            if let Some(newline) = newline {
                let (line, rest) = bytes.split_at(newline);
                self.pass(line, Ends::Newline, &mut take);
                bytes = rest.get(1..).unwrap_or_default();
            } else if room == 0 {
                self.cut(&mut take);
            } else {
                let (part, rest) = bytes.split_at(room.min(bytes.len()));
                self.partial.extend_from_slice(part);
                bytes = rest;
            }
        }
    }

    /// Nothing more comes: passes on a last line without a newline.
    pub fn finish(&mut self, mut take: impl FnMut(Piece<'_>)) {
        if !self.partial.is_empty() {
            self.pass(&[], Ends::Output, &mut take);
        }
    }

    /// What has come of a line that has not ended.
    pub fn rest(&self) -> &[u8] {
        &self.partial
    }

    /// Whether a part of that line has been passed on already.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether what came behind it may be lost.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Goes on where another was, with its [`Splitter::rest`], [`Splitter::is_cut`] and [`Splitter::is_broken`].
    pub fn continued(rest: Vec<u8>, is_cut: bool, is_broken: bool) -> Splitter {
        Splitter {
            partial: rest,
            is_cut,
            is_broken,
        }
    }

    fn pass(&mut self, more: &[u8], ends: Ends, take: &mut impl FnMut(Piece<'_>)) {
        let is_start = !std::mem::take(&mut self.is_cut);
        let bytes = if self.partial.is_empty() {
            more
        } else {
            self.partial.extend_from_slice(more);
            &self.partial
        };
        take(Piece {
            bytes,
            is_start,
            ends,
        });
        // A long line is rare, and there may be thousands of streams.
        self.partial = Vec::new();
    }

    fn cut(&mut self, take: &mut impl FnMut(Piece<'_>)) {
        let rest = self.partial.split_off(boundary(&self.partial));
        self.pass(&[], Ends::Cut, take);
        self.partial = rest;
        self.is_cut = true;
    }
}

/// Where bytes can be cut so that no UTF-8 character is: at the end, or before a character of which
/// only the beginning is there.
fn boundary(bytes: &[u8]) -> usize {
    let end = bytes.len();
    let is_start = |at: &usize| bytes.get(*at).is_some_and(|byte| byte & 0xc0 != 0x80);
    let Some(start) = (end.saturating_sub(3)..end).rev().find(is_start) else {
        return end;
    };
    let length = match bytes.get(start) {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        Some(_) | None => 1,
    };
    if start > 0 && start + length > end {
        start
    } else {
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (Vec<u8>, bool, Ends);

    #[test]
    fn what_may_have_lost_its_end_is_a_line_of_its_own() {
        for (rest, is_cut, wanted) in [
            (&b"half"[..], false, vec!["half", "next"]),
            (b"half", true, vec!["half", "next"]),
            (b"", true, vec!["next"]),
        ] {
            let mut splitter = Splitter::continued(rest.to_vec(), is_cut, true);
            let mut found = Vec::new();
            for chunk in [&b"ne"[..], b"xt\n"] {
                splitter.feed(chunk, |piece| {
                    found.push((
                        piece.is_start,
                        String::from_utf8_lossy(piece.bytes).into_owned(),
                    ));
                });
            }
            assert!(!splitter.is_broken());
            let is_start = found.last().map(|(is_start, _)| *is_start);
            assert_eq!(is_start, Some(true));
            let lines: Vec<String> = found.into_iter().map(|(_, line)| line).collect();
            assert_eq!(lines, wanted);
        }
    }

    fn split(chunks: &[&[u8]]) -> Vec<Owned> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        let mut take = |piece: Piece<'_>| {
            found.push((piece.bytes.to_vec(), piece.is_start, piece.ends));
        };
        for chunk in chunks {
            splitter.feed(chunk, &mut take);
        }
        splitter.finish(&mut take);
        found
    }

    fn line(text: &str) -> Owned {
        (text.as_bytes().to_vec(), true, Ends::Newline)
    }

    #[test]
    fn lines_end_where_they_end_and_not_where_reads_do() {
        let found = split(&[b"on", b"e\n\ntw", b"o\nthree"]);
        let last = (b"three".to_vec(), true, Ends::Output);
        assert_eq!(found, [line("one"), line(""), line("two"), last]);
        assert_eq!(split(&[b"\n"]), [line("")]);
        assert_eq!(split(&[]), []);
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let just = "x".repeat(LONGEST);
        assert_eq!(split(&[just.as_bytes(), b"\n"]), [line(&just)]);
        let more = format!("{just}y\nz\n");
        let first = (just.clone().into_bytes(), true, Ends::Cut);
        let second = (b"y".to_vec(), false, Ends::Newline);
        assert_eq!(split(&[more.as_bytes()]), [first, second, line("z")]);
    }

    #[test]
    fn no_character_is_cut() {
        let text = format!("x{}", "é".repeat(LONGEST));
        for (bytes, _, _) in split(&[text.as_bytes()]) {
            assert!(String::from_utf8(bytes).is_ok());
        }
        // What is no UTF-8 is cut anywhere.
        let bytes = vec![0x80; LONGEST * 2];
        let found = split(&[&bytes]);
        assert_eq!(found.len(), 2);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_it_is_chopped(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'x'), any::<u8>()], 0..600),
            repeat in 1usize..80,
            size in 1usize..9000,
        ) {
            let all = bytes.repeat(repeat);
            let chunks: Vec<&[u8]> = all.chunks(size).collect();
            let found = split(&chunks);
            let mut back = Vec::new();
            for (bytes, _, ends) in &found {
                prop_assert!(bytes.len() <= LONGEST && !bytes.contains(&b'\n'));
                back.extend_from_slice(bytes);
                if *ends == Ends::Newline {
                    back.push(b'\n');
                }
            }
            prop_assert_eq!(&back, &all);
            prop_assert_eq!(found, split(&[&all]));
        }
    }
}
