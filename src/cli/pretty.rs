//! JSON for people to read, without making a tree of it first: an answer may be megabytes.

/// The text with a line for each member, indented by two spaces, as serde_json has it. What is no
/// JSON comes out as something that is none either.
pub(super) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut rest, mut depth, mut just_opened) = (json, 0_usize, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        for _ in 0..depth {
            out.push_str("  ");
        }
    };
    while let Some(first) = rest.bytes().next() {
        // Before and behind each part is an end of the text or an ASCII character, and so no half of one.
        let (part, after) = rest.split_at(first_part(rest.as_bytes()));
        rest = after;
        if first.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(first, b'}' | b']');
        if just_opened && !closes {
            line(&mut out, depth);
        }
        if closes {
            depth = depth.saturating_sub(1);
            if !just_opened {
                line(&mut out, depth);
            }
        }
        just_opened = matches!(first, b'{' | b'[');
        out.push_str(part);
        match first {
            b'{' | b'[' => depth += 1,
            b',' => line(&mut out, depth),
            b':' => out.push(' '),
            _ => {}
        }
    }
    out
}

/// How long what stands first is: a string, a mark, a blank, or all before the next of them.
fn first_part(bytes: &[u8]) -> usize {
    let is_apart = |byte: &u8| {
        byte.is_ascii_whitespace() || matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"')
    };
    match bytes {
        [b'"', inside @ ..] => {
            let mut escaped = false;
            let end = inside.iter().position(|byte| {
                let ends = *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && !escaped;
                ends
            });
            end.map_or(bytes.len(), |end| end + 2)
        }
        [first, ..] if is_apart(first) => 1,
        _ => bytes.iter().position(is_apart).unwrap_or(bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn it_is_what_serde_json_makes_of_the_tree() {
        let values = [
            json!({}),
            json!([]),
            json!([[], {}, [{}]]),
            json!({ "a": [1, 2.5, null, true], "b": { "c": "x, \"y\": [z] {}\\" }, "d e": "  " }),
            json!("text"),
            json!(-7),
        ];
        for value in values {
            let compact = value.to_string();
            let expected = serde_json::to_string_pretty(&value).unwrap();
            assert_eq!(pretty(&compact), expected);
            assert_eq!(pretty(&expected), expected);
            let again: Value = serde_json::from_str(&pretty(&compact)).unwrap();
            assert_eq!(again, value);
        }
    }
}
