//! The width of texts on a terminal: control characters are replaced, long texts cut.

use crate::report::is_hidden;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The width of a text, in columns.
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The text without characters that would move the cursor or turn the direction of writing: a path may
/// hold anything.
pub fn clean(text: &str) -> String {
    text.replace(is_hidden, "?")
}

/// The text in at most so many columns, with `…` for the middle: start and end tell names apart.
pub fn cut_middle(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let mut cut = String::from_iter(take(text.chars(), room - room / 2));
    cut.push('…');
    cut.extend(take(text.chars().rev(), room / 2).into_iter().rev());
    cut
}

/// The text in at most so many columns, with `…` for the end.
pub fn cut_end(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut cut = String::from_iter(take(text.chars(), columns.saturating_sub(1)));
    cut.push('…');
    cut
}

/// The first characters that fit into so many columns.
fn take(chars: impl Iterator<Item = char>, columns: usize) -> Vec<char> {
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(1);
        used <= columns
    };
    chars.take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_not_characters() {
        assert_eq!(width("web"), 3);
        assert_eq!(width("naïve"), 5);
        assert_eq!(width("nai\u{308}ve"), 5);
        assert_eq!(width("日本"), 4);
        assert_eq!(width("🦀"), 2);
    }

    #[test]
    fn what_is_cut_keeps_both_ends_and_fits() {
        assert_eq!(cut_middle("unix:/run/app.sock", 18), "unix:/run/app.sock");
        assert_eq!(cut_middle("unix:/run/app.sock", 11), "unix:….sock");
        assert_eq!(cut_middle("日本語日本語", 7), "日…語");
        assert_eq!(cut_middle("日本語日本語", 8), "日本…語");
        assert_eq!(cut_end("killed by SIGSEGV", 8), "killed …");
        for columns in 1..20 {
            for text in ["unix:/run/app.sock", "日本語日本語日本語", "ab日本cd日本ef"]
            {
                assert!(
                    width(&cut_middle(text, columns)) <= columns,
                    "{text} {columns}"
                );
                assert!(
                    width(&cut_end(text, columns)) <= columns,
                    "{text} {columns}"
                );
            }
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_that_moves_the_cursor() {
        assert_eq!(clean("a\u{1b}[31m\r\n\u{202e}b"), "a?[31m???b");
    }
}
