//! How wide a text is on a terminal, and how it is cut to fit.
//!
//! Names in paths may be in any script. The ranges are those that terminals agree on: the wide and
//! fullwidth blocks of Unicode's EastAsianWidth.txt, and combining marks. A rare character that is
//! judged wrongly shifts one line of a table by one column.

use std::ops::RangeInclusive;

/// Two columns each.
const WIDE: [RangeInclusive<u32>; 17] = [
    0x1100..=0x115F,
    0x2329..=0x232A,
    0x2E80..=0x303E,
    0x3041..=0x33FF,
    0x3400..=0x4DBF,
    0x4E00..=0x9FFF,
    0xA000..=0xA4CF,
    0xA960..=0xA97C,
    0xAC00..=0xD7A3,
    0xF900..=0xFAFF,
    0xFE10..=0xFE19,
    0xFE30..=0xFE6F,
    0xFF01..=0xFF60,
    0xFFE0..=0xFFE6,
    0x1F300..=0x1F64F,
    0x1F680..=0x1FAFF,
    0x20000..=0x3FFFD,
];

/// No column of their own.
const COMBINING: [RangeInclusive<u32>; 16] = [
    0x0300..=0x036F,
    0x0483..=0x0489,
    0x0591..=0x05BD,
    0x0610..=0x061A,
    0x064B..=0x065F,
    0x0941..=0x0948,
    0x0E34..=0x0E3A,
    0x0E47..=0x0E4E,
    0x1AB0..=0x1AFF,
    0x1DC0..=0x1DFF,
    0x200B..=0x200F,
    0x202A..=0x202E,
    0x2060..=0x2064,
    0x20D0..=0x20FF,
    0xFE00..=0xFE0F,
    0xFE20..=0xFE2F,
];

fn of_char(c: char) -> usize {
    let code = u32::from(c);
    let is_in = |ranges: &[RangeInclusive<u32>]| ranges.iter().any(|range| range.contains(&code));
    if code < 0x300 {
        1
    } else if is_in(&COMBINING) {
        0
    } else if is_in(&WIDE) {
        2
    } else {
        1
    }
}

/// In columns.
pub fn width(text: &str) -> usize {
    text.chars().map(of_char).sum()
}

/// Without what would move the cursor, or turn the direction of writing: a path may hold anything.
pub fn clean(text: &str) -> String {
    let shown = |c: char| match c {
        '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' => '?',
        c if c.is_control() => '?',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// At most so many columns, with `…` for the middle: start and end tell names apart.
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

/// At most so many columns, with `…` for the end.
pub fn cut_end(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut cut = String::from_iter(take(text.chars(), columns.saturating_sub(1)));
    cut.push('…');
    cut
}

/// As many as fit.
fn take(chars: impl Iterator<Item = char>, columns: usize) -> Vec<char> {
    let mut used = 0;
    let fits = |c: &char| {
        used += of_char(*c);
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
