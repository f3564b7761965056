//! Names and words of errno values.

use nix::errno::Errno;
use std::io;

/// The symbolic name, such as `EADDRINUSE`; `errno 4242` for one this libc has no name for.
pub fn name(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => format!("errno {errno}"),
        known => format!("{known:?}"),
    }
}

/// The meaning in lower case with its name, such as `address already in use (EADDRINUSE)`.
pub fn describe(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => format!("unknown error (errno {errno})"),
        known => {
            let words = known.desc();
            // Errno::desc() capitalises its first word; a message continues a sentence.
            // Acronyms such as "RPC version wrong" keep their capitals.
            let mut letters = words.chars();
            let lowered = match (letters.next(), letters.clone().next()) {
                (Some(first), Some(second)) if second.is_lowercase() => {
                    first.to_lowercase().chain(letters).collect()
                }
                _ => words.to_owned(),
            };
            format!("{lowered} ({known:?})")
        }
    }
}

/// The words for an error of the system; the error's own if it is none.
pub fn reason(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), describe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_continue_a_sentence_and_keep_the_name() {
        assert_eq!(
            describe(nix::libc::EADDRINUSE),
            "address already in use (EADDRINUSE)"
        );
        assert_eq!(name(nix::libc::EACCES), "EACCES");
        assert_eq!(name(4242), "errno 4242");
    }
}
