//! The parameters of a reply as they came, without making a tree of them first: an answer may be megabytes.

use serde::Serialize;
use std::io::{self, Write};
use std::ops::Range;

/// What is written at a time, in bytes, but for the rest of a line.
const PART: usize = 64 << 10;

/// The indentation of the deepest members that are indented; those below have the same.
const BLANKS: &str = "                                                                ";

/// How JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// A line for each member, indented by two spaces, as serde_json has it.
    Lines,
    /// Without any blank.
    OneLine,
}

/// Writes the parameters of a reply. `added` is asked for each instance of each worker, in their order, what it
/// gets as its last member, `usage`. What is no JSON comes out as something that is none either.
///
/// # Errors
///
/// Those of `out`.
pub(super) fn parameters<T: Serialize>(
    reply: &str,
    layout: Layout,
    mut added: impl FnMut() -> Option<T>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut json = || {
        // Whatever cannot be written as JSON is left out.
        added().and_then(|one| serde_json::to_string(&one).ok())
    };
    let mut printer = Printer {
        out,
        layout,
        ready: Vec::with_capacity(2 * PART),
    };
    printer.walk(reply, 0, Some(&mut json))?;
    printer.out.write_all(&printer.ready)
}

struct Printer<'a, W> {
    out: &'a mut W,
    layout: Layout,
    /// What was not written yet.
    ready: Vec<u8>,
}

impl<W: Write> Printer<'_, W> {
    /// With `added`, the parameters of a reply; without, all of a text that stands at this depth.
    fn walk(
        &mut self,
        text: &str,
        base: usize,
        mut added: Option<&mut dyn FnMut() -> Option<String>>,
    ) -> io::Result<()> {
        let bytes = text.as_bytes();
        let is_reply = added.is_some();
        let mut path = Path::default();
        let (mut is_shown, mut depth) = (!is_reply, 0_usize);
        // What was not copied yet starts here; it is copied as far as nothing comes in between.
        let (mut start, mut at) = (0, 0);
        // The last string.
        let mut string = 0..0;
        while let Some(byte) = bytes.get(at) {
            let next = at + 1;
            let indent = (base + depth).saturating_sub(usize::from(is_reply));
            match byte {
                b'"' => {
                    string = next..end_of_string(bytes, next);
                    at = string.end + 1;
                    continue;
                }
                b'{' | b'[' => {
                    path.open(depth);
                    depth += 1;
                    let inside = skip_blanks(bytes, next);
                    let is_empty = matches!(bytes.get(inside), Some(b'}' | b']'));
                    if is_shown {
                        self.copy(bytes, start..next);
                        start = inside;
                        if !is_empty {
                            self.line(indent + 1)?;
                        }
                    }
                    at = inside;
                    if is_empty {
                        // Its end follows at once.
                        depth -= 1;
                        at += 1;
                    }
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if is_shown && is_reply && depth == 0 {
                        self.copy(bytes, start..at);
                        is_shown = false;
                    }
                    if is_shown {
                        self.copy(bytes, start..at);
                        start = at;
                        let adds = byte == &b'}' && path.is_instance(text, depth);
                        if let Some(json) = added.as_mut().filter(|_| adds).and_then(|add| add()) {
                            self.ready.push(b',');
                            self.line(indent)?;
                            self.ready.extend_from_slice(b"\"usage\":");
                            self.blank();
                            self.walk(&json, indent, None)?;
                        }
                        self.line(indent.saturating_sub(1))?;
                    }
                }
                b':' => {
                    path.name(depth, string.clone());
                    if is_shown {
                        self.copy(bytes, start..next);
                        self.blank();
                        start = next;
                    } else if path.is_parameters(text, depth) {
                        (is_shown, start) = (true, next);
                    }
                }
                b',' if is_reply && depth == 1 && is_shown => {
                    self.copy(bytes, start..at);
                    is_shown = false;
                }
                b',' if is_shown => {
                    self.copy(bytes, start..next);
                    self.line(indent)?;
                    start = next;
                }
                b' ' | b'\n' | b'\r' | b'\t' if is_shown => {
                    self.copy(bytes, start..at);
                    start = next;
                }
                _ => {}
            }
            at = next;
        }
        if is_shown {
            self.copy(bytes, start..bytes.len());
        }
        Ok(())
    }

    fn copy(&mut self, bytes: &[u8], part: Range<usize>) {
        self.ready
            .extend_from_slice(bytes.get(part).unwrap_or_default());
    }

    /// Behind a colon.
    fn blank(&mut self) {
        if self.layout == Layout::Lines {
            self.ready.push(b' ');
        }
    }

    /// Begins a line.
    fn line(&mut self, depth: usize) -> io::Result<()> {
        if self.layout == Layout::OneLine {
            return Ok(());
        }
        self.ready.push(b'\n');
        if self.ready.len() >= PART {
            self.out.write_all(&self.ready)?;
            self.ready.clear();
        }
        let blanks = BLANKS.as_bytes();
        self.ready
            .extend_from_slice(blanks.get(..2 * depth).unwrap_or(blanks));
        Ok(())
    }
}

/// Where a text is within a reply: the names of the members at each depth, as far as they matter.
#[derive(Default)]
struct Path([Range<usize>; 5]);

impl Path {
    fn open(&mut self, depth: usize) {
        self.name(depth + 1, 0..0);
    }

    fn name(&mut self, depth: usize, name: Range<usize>) {
        if let Some(place) = self.0.get_mut(depth) {
            *place = name;
        }
    }

    fn is(&self, text: &str, depth: usize, name: &str) -> bool {
        let there = self.0.get(depth).cloned();
        there.and_then(|there| text.get(there)) == Some(name)
    }

    fn is_parameters(&self, text: &str, depth: usize) -> bool {
        depth == 1 && self.is(text, 1, "parameters")
    }

    /// Whether an object with this many around it is an instance of a worker.
    fn is_instance(&self, text: &str, depth: usize) -> bool {
        depth == 5
            && self.is(text, 4, "instances")
            && self.is(text, 2, "workers")
            && self.is(text, 1, "parameters")
    }
}

/// Where the string that began before `at` ends: at its quotation mark, or with the text.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') => return at,
            Some(_) => at += 1,
            None => return bytes.len(),
        }
    }
}

fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
    at + blanks.count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn printed(reply: &str, layout: Layout, added: &[Value]) -> String {
        let (mut out, mut added) = (Vec::new(), added.iter());
        let mut add = || added.next().filter(|one| !one.is_null());
        parameters(reply, layout, &mut add, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

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
            let expected = serde_json::to_string_pretty(&value).unwrap();
            for reply in [
                json!({ "parameters": value }).to_string(),
                format!("{{\"a\":[1],\"parameters\": {expected} ,\"parameter\":[{{}}]}}"),
                format!("{{\"parameters\":{value}, \"continues\": false}}"),
            ] {
                assert_eq!(printed(&reply, Layout::Lines, &[]), expected, "{reply}");
                assert_eq!(printed(&reply, Layout::OneLine, &[]), value.to_string());
            }
        }
    }

    #[test]
    fn each_instance_gets_what_is_added() {
        let reply = |usage: [Value; 3]| {
            let instance = |name: &str, usage: &Value| match usage {
                Value::Null => json!({ "name": name, "new": [{}] }),
                usage => json!({ "name": name, "new": [{}], "usage": usage }),
            };
            let [first, second, third] = usage;
            let (first, second) = (instance("a.0", &first), instance("a.1", &second));
            let workers = json!([
                { "name": "a", "instances": [first, second], "others": { "instances": [{ "x": 1 }] } },
                { "instances": [] },
                { "instances": [instance("c", &third)] },
            ]);
            let listeners = json!([{ "name": "l", "instances": [{ "x": 1 }] }]);
            let parameters = json!({ "listeners": listeners, "workers": workers });
            (json!({ "parameters": parameters }).to_string(), parameters)
        };
        let usage = [json!({ "processes": 1 }), Value::Null, json!({ "more": 2 })];
        let (bare, _) = reply([Value::Null, Value::Null, Value::Null]);
        let (_, full) = reply(usage.clone());
        let lines = serde_json::to_string_pretty(&full).unwrap();
        assert_eq!(printed(&bare, Layout::Lines, &usage), lines);
        assert_eq!(printed(&bare, Layout::OneLine, &usage), full.to_string());
    }

    #[test]
    fn a_long_answer_is_written_in_parts() {
        struct Parts(Vec<usize>);
        impl Write for Parts {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes.len());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let list = vec!["x".repeat(100); 10_000];
        let reply = json!({ "parameters": list });
        let mut parts = Parts(Vec::new());
        let none = || None::<Value>;
        parameters(&reply.to_string(), Layout::Lines, none, &mut parts).unwrap();
        let whole = serde_json::to_string_pretty(&list).unwrap();
        assert_eq!(parts.0.iter().sum::<usize>(), whole.len());
        let most = parts.0.iter().max().copied().unwrap_or_default();
        assert!(parts.0.len() > 10 && most < PART + 200, "{:?}", parts.0);
    }
}
