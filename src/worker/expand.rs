//! The value of a variable as words, as systemd has it for `$NAME` in a command
//! (systemd.service(5), COMMAND LINES).

/// Splits at white space; quotes and backslashes are respected, and one that nothing follows or
/// closes ends with the text.
pub(super) fn split(value: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut letters = value.iter().copied();
    while let Some(letter) = letters.next() {
        match letter {
            b'\\' => {
                let escaped = letters.next();
                word.get_or_insert_default().extend(escaped);
            }
            _ if quote == Some(letter) => quote = None,
            b'"' | b'\'' if quote.is_none() => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            b' ' | b'\t' | b'\n' | b'\r' if quote.is_none() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_value_is_split_as_systemd_does_it() {
        let cases: [(&str, &[&str]); 10] = [
            ("", &[]),
            (" \t\r\n", &[]),
            ("one", &["one"]),
            ("  one two\tthree\n", &["one", "two", "three"]),
            ("'one two' \"three 'four'\"", &["one two", "three 'four'"]),
            ("-x'a b'c", &["-xa bc"]),
            ("'' \"\"", &["", ""]),
            ("a\\ b \\'c '\\''", &["a b", "'c", "'"]),
            ("open 'to the end", &["open", "to the end"]),
            ("${A} $B {instance}", &["${A}", "$B", "{instance}"]),
        ];
        for (value, expected) in cases {
            let words = split(value.as_bytes());
            let expected: Vec<&[u8]> = expected.iter().map(|word| word.as_bytes()).collect();
            assert_eq!(words, expected, "{value}");
        }
    }
}
