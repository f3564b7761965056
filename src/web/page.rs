//! The page: one file, which loads nothing but what this process answers.

/// The page.
pub const HTML: &str = include_str!("page.html");

/// Its one style and its one script, by their hashes; only this process is asked (CSP level 3).
pub const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-9wA68MA94GUrIVfYxQMrvdOls2NAalfZeR8Mc6pzfyU='; \
    style-src 'sha256-ZnJwYzk4PXGXV3h/jySUJ6U4C88WaFfNsmsc+asn/dU='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// As the policy has it; a program that every machine has does it, so that no crate is needed.
    fn hash(text: &str) -> String {
        let mut child = Command::new("sha256sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sha256sum");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(text.as_bytes()).expect("write");
        drop(input);
        let output = child.wait_with_output().expect("an output");
        let hex = String::from_utf8(output.stdout).expect("text");
        let byte = |at: usize| u32::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let digits: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').collect();
        let digit = |value: u32| match value & 63 {
            62 => '+',
            63 => '/',
            other => digits[other as usize],
        };
        let mut base64 = String::new();
        for at in (0..60).step_by(6) {
            let group = byte(at) << 16 | byte(at + 2) << 8 | byte(at + 4);
            base64.extend([18, 12, 6, 0].map(|shift| digit(group >> shift)));
        }
        let last = byte(60) << 16 | byte(62) << 8;
        base64.extend([18, 12, 6].map(|shift| digit(last >> shift)));
        format!("sha256-{base64}=")
    }

    fn inner(open: &str, close: &str) -> &'static str {
        let mut parts = HTML.split(open);
        let (_, Some(rest), None) = (parts.next(), parts.next(), parts.next()) else {
            panic!("not one {open}");
        };
        rest.split_once(close).expect("an end").0
    }

    #[test]
    fn the_policy_is_that_of_the_page() {
        for (open, close, of) in [
            ("<script>", "</script>", "script-src"),
            ("<style>", "</style>", "style-src"),
        ] {
            let wanted = format!("{of} '{}';", hash(inner(open, close)));
            assert!(POLICY.contains(&wanted), "src/web/page.rs needs {wanted}");
        }
    }

    #[test]
    fn nothing_is_inline_or_elsewhere() {
        for never in [
            "style=",
            "onclick",
            "onload",
            "<script ",
            "<style ",
            "http://",
            "https://",
            "innerHTML",
            "eval(",
            "localStorage",
            "cookie",
        ] {
            assert!(!HTML.contains(never), "{never}");
        }
    }
}
