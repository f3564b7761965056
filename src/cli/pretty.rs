//! JSON for people to read, without making a tree of it first: an answer may be megabytes.

/// The text with a line for each member, indented by two spaces, as serde_json has it. What is no
/// JSON comes out as something that is none either.
pub(super) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    // Inside of strings white space counts, so that they are walked through on their own.
    let mut in_string = false;
    let mut escaped = false;
    let mut just_opened = false;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        for _ in 0..depth {
            out.push_str("  ");
        }
    };
    for one in json.chars() {
        if in_string {
            out.push(one);
            match one {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        if one.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(one, '}' | ']');
        if just_opened && !closes {
            line(&mut out, depth);
        }
        if closes {
            depth = depth.saturating_sub(1);
            if !just_opened {
                line(&mut out, depth);
            }
        }
        just_opened = matches!(one, '{' | '[');
        out.push(one);
        match one {
            '{' | '[' => depth += 1,
            ',' => line(&mut out, depth),
            ':' => out.push(' '),
            '"' => in_string = true,
            _ => {}
        }
    }
    out
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
