//! What others have written, in a message: on one line, and short enough to be read.

/// A value of more characters is shown by its two ends. The path of a unix socket, with its scheme, is shorter.
const LONGEST: usize = 200;
/// So many of them at its end.
const END: usize = 40;

/// A message with the values in it escaped and shortened. A value stands between backticks, or has no blanks.
pub fn readable(words: String) -> String {
    if words.len() <= LONGEST && !words.contains(is_hidden) {
        return words;
    }
    let mut out = String::with_capacity(words.len().min(1024));
    for (index, part) in words.split('`').enumerate() {
        if index > 0 {
            out.push('`');
        }
        if index % 2 == 1 {
            value(&mut out, part);
        } else {
            for (index, word) in part.split(' ').enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                value(&mut out, word);
            }
        }
    }
    out
}

/// One value, escaped and shortened.
pub fn shortened(text: &str) -> String {
    let mut out = String::new();
    value(&mut out, text);
    out
}

/// The text with what would break the line, move the cursor or turn the direction of writing escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push(&mut out, text);
    out
}

fn value(out: &mut String, text: &str) {
    let longer = text.char_indices().nth(LONGEST);
    let start = text.char_indices().nth(LONGEST - END - 1);
    let end = text.char_indices().nth_back(END - 1);
    match (longer, start, end) {
        (Some(_), Some((start, _)), Some((end, _))) => {
            push(out, &text[..start]);
            out.push('…');
            push(out, &text[end..]);
        }
        _ => push(out, text),
    }
}

fn push(out: &mut String, text: &str) {
    for character in text.chars() {
        match is_hidden(character) {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
}

/// Whether a character would break the line, move the cursor or turn the direction of writing.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_ends_and_the_words_around_it_stay() {
        let long = "a b".repeat(1 << 18);
        let words = readable(format!(
            "`{long}:80` is not an address; {}",
            "word ".repeat(99)
        ));
        let (quoted, rest) = words[1..].split_once('`').expect("a quoted value");
        assert_eq!(quoted.chars().count(), LONGEST);
        assert!(
            quoted.starts_with("a ba ba b") && quoted.contains('…') && quoted.ends_with("a b:80")
        );
        assert_eq!(rest, format!(" is not an address; {}", "word ".repeat(99)));
        let words = readable(format!("cannot read /{}: no such file", "é".repeat(4000)));
        assert!(
            words.chars().count() < 300 && words.ends_with("é: no such file"),
            "{words}"
        );
        let just = format!("`{}`", "é".repeat(LONGEST));
        assert_eq!(readable(just.clone()), just);
    }

    #[test]
    fn nothing_breaks_the_line_or_reaches_the_terminal() {
        let words = readable("`a\nb\u{1b}[31m\u{202e}` and \t".to_owned());
        assert_eq!(words, "`a\\nb\\u{1b}[31m\\u{202e}` and \\t");
        // What a helper process has escaped is not escaped again.
        assert_eq!(readable(words.clone()), words);
    }
}
