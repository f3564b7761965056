//! What the loop asks of a process that writes files, and its answers, as bytes: each is one message,
//! and each order has one answer, in the order in which they were given.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// No text of one order is longer, in bytes.
pub const LONGEST_TEXT: usize = 64 << 10;
/// Longer than any order: one with the longest text, or with a path (PATH_MAX).
pub const LONGEST_ORDER: usize = LONGEST_TEXT + HEADER + 8;
/// Longer than any answer.
pub const LONGEST_ANSWER: usize = 16 << 10;

/// What it is, and which file.
const HEADER: usize = 9;

/// What a process that writes files is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order<'a> {
    /// Open a file to append to it, in place of what had this number before.
    Open {
        /// What the file is called from now on; never used for another.
        file: u64,
        /// Whose output it is, if not listend's own user's.
        user: Option<u32>,
        /// Where it is.
        path: &'a Path,
    },
    /// Append to it.
    Write {
        /// The file.
        file: u64,
        /// The bytes to write.
        text: &'a [u8],
    },
    /// Nothing more is written to it.
    Close {
        /// Which file.
        file: u64,
    },
}

impl<'a> Order<'a> {
    /// As bytes. More text can be appended to those of [`Order::Write`].
    pub fn encode(self) -> Vec<u8> {
        let (kind, file) = match self {
            Order::Write { file, .. } => (b'w', file),
            Order::Close { file } => (b'c', file),
            Order::Open {
                file, user: None, ..
            } => (b'o', file),
            Order::Open { file, .. } => (b'u', file),
        };
        let mut bytes = vec![kind];
        bytes.extend(file.to_ne_bytes());
        match self {
            Order::Open { user, path, .. } => {
                bytes.extend(user.into_iter().flat_map(u32::to_ne_bytes));
                bytes.extend(path.as_os_str().as_bytes());
            }
            Order::Write { text, .. } => bytes.extend(text),
            Order::Close { .. } => {}
        }
        bytes
    }

    /// From bytes; `None` if they are no order.
    pub fn decode(bytes: &'a [u8]) -> Option<Order<'a>> {
        let (kind, rest) = bytes.split_first()?;
        let (file, rest) = rest.split_first_chunk()?;
        let file = u64::from_ne_bytes(*file);
        let open = |user, path| Order::Open {
            file,
            user,
            path: Path::new(OsStr::from_bytes(path)),
        };
        match kind {
            b'w' => Some(Order::Write { file, text: rest }),
            b'c' => Some(Order::Close { file }),
            b'o' => Some(open(None, rest)),
            b'u' => {
                let (user, path) = rest.split_first_chunk()?;
                Some(open(Some(u32::from_ne_bytes(*user)), path))
            }
            _ => None,
        }
    }
}

/// What has become of an order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Why it failed; 0 if it did not.
    pub errno: i32,
    /// How many bytes of the text were not written.
    pub lost: u32,
    /// Of a file that could not be opened: why, in words.
    pub words: String,
}

impl Answer {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let words = self.words.as_bytes();
        let words = words.get(..LONGEST_ANSWER - 8).unwrap_or(words);
        let numbers = self.errno.to_ne_bytes().into_iter();
        let numbers = numbers.chain(self.lost.to_ne_bytes());
        numbers.chain(words.iter().copied()).collect()
    }

    /// From bytes; `None` if they are no answer.
    pub fn decode(bytes: &[u8]) -> Option<Answer> {
        let (errno, rest) = bytes.split_first_chunk()?;
        let (lost, words) = rest.split_first_chunk()?;
        Some(Answer {
            errno: i32::from_ne_bytes(*errno),
            lost: u32::from_ne_bytes(*lost),
            words: String::from_utf8_lossy(words).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_come_back_from_their_bytes() {
        let path = Path::new("/var/log/\u{e9}");
        for order in [
            Order::Open {
                file: 1,
                user: None,
                path,
            },
            Order::Open {
                file: u64::MAX,
                user: Some(0),
                path,
            },
            Order::Write {
                file: 7,
                text: b"a line\n",
            },
            Order::Close { file: 7 },
        ] {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        let mut more = Order::Write {
            file: 7,
            text: b"a",
        }
        .encode();
        more.extend(b"b");
        let both = Order::Write {
            file: 7,
            text: b"ab",
        };
        assert_eq!(Order::decode(&more), Some(both));
        for bytes in [&b""[..], b"w", b"w1234567", b"x12345678", b"u12345678123"] {
            assert_eq!(Order::decode(bytes), None);
        }
        let answer = Answer {
            errno: 28,
            lost: 3,
            words: "no space".to_owned(),
        };
        assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        assert_eq!(Answer::decode(b"1234567"), None);
    }
}
