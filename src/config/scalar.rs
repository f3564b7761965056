//! Single values: numbers, durations, sizes, modes, booleans, signals, names.
//!
//! Everything is read from the text as it was written, so that `0660` means what it looks like.

use super::value_error::ValueError;
use super::values::Rate;
use crate::launch_spec::{Limit, Resource};
use crate::report::{Kind, did_you_mean};
use nix::sys::signal::Signal;
use std::time::Duration;

type ScalarResult<T> = Result<T, ValueError>;

/// Longer durations are a mistake, and would overflow the clock's arithmetic one day.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Whether it is written as a number without a sign.
pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A whole number in decimal digits, within bounds that are part of the message.
pub(super) fn integer<N: TryFrom<i64>>(
    key: &str,
    text: &str,
    min: i64,
    max: i64,
) -> ScalarResult<N> {
    let complain = || {
        ValueError::bad(format!(
            "`{key}` takes a whole number from {min} to {max}, not `{text}`"
        ))
    };
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !is_digits(digits) {
        return Err(complain().hint("write decimal digits only"));
    }
    if digits.len() > 1 && digits.starts_with('0') {
        let plain = digits.trim_start_matches('0');
        return Err(complain().hint(format!(
            "plain numbers are decimal; write `{}` without the leading zero",
            if plain.is_empty() { "0" } else { plain }
        )));
    }
    let number = text.parse::<i64>().ok();
    let number = number.filter(|number| (min..=max).contains(number));
    let number = number.and_then(|number| N::try_from(number).ok());
    number.ok_or_else(complain)
}

/// `true` or `false`.
pub(super) fn boolean(key: &str, text: &str) -> ScalarResult<bool> {
    match text {
        "true" => return Ok(true),
        "false" => return Ok(false),
        _ => {}
    }
    let value_error = ValueError::bad(format!("`{key}` takes `true` or `false`, not `{text}`"));
    Err(match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" | "1" | "y" => value_error.hint("write `true`"),
        "no" | "off" | "false" | "0" | "n" => value_error.hint("write `false`"),
        _ => value_error,
    })
}

/// Permission bits in octal: `0660`, `660` or `0o660`.
pub(super) fn mode(key: &str, text: &str) -> ScalarResult<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let complain =
        |why: &str| ValueError::bad(format!("`{key}` takes octal digits: `{text}` {why}"));
    if !is_digits(digits) {
        return Err(complain("is not a number").hint("write it like `0660`"));
    }
    if digits.contains(['8', '9']) {
        return Err(complain("has a digit above 7").hint("write it like `0660`"));
    }
    match u32::from_str_radix(digits, 8) {
        Ok(bits) if bits <= 0o777 => Ok(bits),
        _ => Err(complain("is above 0777")
            .hint("three digits for owner, group and others, like `0660`; nothing else is set")),
    }
}

/// `500ms`, `30s`, `5m`, `1h30m`, `2d`, and `0`.
pub(super) fn duration(key: &str, text: &str) -> ScalarResult<Duration> {
    let complain = || ValueError::bad(format!("`{key}`: `{text}` is not a duration"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if is_digits(text) {
        return Err(
            ValueError::bad(format!("`{key}`: `{text}` has no unit")).hint(format!(
                "write `{text}s` for seconds or `{text}ms` for milliseconds"
            )),
        );
    }
    let usage = "write a whole number and `ms`, `s`, `m`, `h` or `d`, like `500ms` or `1h30m`";
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (count, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(complain().hint(usage)),
        };
        if count.is_empty() {
            return Err(complain().hint(usage));
        }
        total = count
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(millis))
            .and_then(|millis| total.checked_add(Duration::from_millis(millis)))
            .filter(|total| *total <= LONGEST)
            .ok_or_else(|| ValueError::bad(format!("`{key}`: `{text}` is more than ten years")))?;
        rest = tail;
    }
    if text.is_empty() {
        return Err(complain().hint(usage));
    }
    Ok(total)
}

/// A duration, or `infinity` as `None`.
pub(super) fn duration_or_infinity(key: &str, text: &str) -> ScalarResult<Option<Duration>> {
    match text {
        "infinity" => Ok(None),
        "unlimited" | "never" | "none" | "forever" | "inf" => Err(ValueError::bad(format!(
            "`{key}`: `{text}` is not a duration"
        ))
        .hint("write `infinity` for no limit")),
        _ => duration(key, text).map(Some),
    }
}

/// `100ms..30s`, or one duration for both ends.
pub(super) fn backoff(key: &str, text: &str) -> ScalarResult<(Duration, Duration)> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let low = duration(key, low.trim())?;
    let high = duration(key, high.trim())?;
    if low.is_zero() {
        return Err(ValueError::bad(
            "a `backoff` of 0 would restart a broken worker without a pause",
        )
        .hint("write at least `1ms`; the default is `100ms..30s`"));
    }
    if low > high {
        return Err(
            ValueError::bad(format!("`backoff`: `{text}` ends below its start"))
                .hint("write the shorter delay first, like `100ms..30s`"),
        );
    }
    Ok((low, high))
}

/// `5 in 60s`, or `none`.
pub(super) fn rate(key: &str, text: &str) -> ScalarResult<Option<Rate>> {
    if text == "none" {
        return Ok(None);
    }
    let Some((count, interval)) = text.split_once(" in ") else {
        return Err(ValueError::bad(format!("`{key}`: `{text}` is not a rate"))
            .hint("write it like `5 in 60s`, or `none`"));
    };
    let count = integer(key, count.trim(), 1, 1_000_000)?;
    let interval = duration(key, interval.trim())?;
    if interval.is_zero() {
        return Err(
            ValueError::bad(format!("`{key}` needs an interval above 0"))
                .hint("write it like `5 in 60s`, or `none`"),
        );
    }
    Ok(Some(Rate { count, interval }))
}

/// A number with an optional `K`, `M`, `G` or `T` (powers of 1024).
pub(super) fn size(key: &str, text: &str) -> ScalarResult<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, suffix) = text.split_at(digits);
    let complain = || ValueError::bad(format!("`{key}`: `{text}` is not a number or size"));
    let usage = "write digits, and `K`, `M`, `G` or `T` for powers of 1024, like `64K`";
    let shift = match suffix {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(complain().hint(usage)),
    };
    if count.is_empty() {
        return Err(complain().hint(usage));
    }
    count
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(1 << shift))
        .filter(|bytes| *bytes < u64::MAX)
        .ok_or_else(|| complain().hint("the number is too big; write `unlimited` for no limit"))
}

/// The value of a resource limit: `SIZE`, `unlimited` or `SOFT:HARD`.
pub(super) fn limit(resource: Resource, text: &str) -> ScalarResult<Limit> {
    let key = resource.key();
    let one = |text: &str| match text {
        "unlimited" => Ok(None),
        "infinity" | "none" | "inf" | "-1" => Err(ValueError::bad(format!(
            "`{key}`: `{text}` is not a number or size"
        ))
        .hint("write `unlimited`")),
        _ => size(key, text).map(Some),
    };
    let (soft, hard) = match text.split_once(':') {
        Some((soft, hard)) => (one(soft)?, one(hard)?),
        None => {
            let both = one(text)?;
            (both, both)
        }
    };
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err(ValueError::bad(format!(
            "`{key}`: the soft limit of `{text}` is above the hard"
        ))
        .hint("write the soft limit first: `SOFT:HARD`"));
    }
    Ok(Limit {
        resource,
        soft,
        hard,
    })
}

/// `SIGTERM`; realtime signals count from SIGRTMIN, as kill(1) has them.
pub fn signal_name(number: i32) -> String {
    match nix::sys::signal::Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => match number - nix::libc::SIGRTMIN() {
            0 => "SIGRTMIN".to_owned(),
            above if above > 0 => format!("SIGRTMIN+{above}"),
            _ => format!("signal {number}"),
        },
    }
}

/// A signal as configurations have it, as a number.
///
/// # Errors
///
/// There is no such signal; in words, with the one that was meant, perhaps.
pub fn signal_number(text: &str) -> Result<i32, String> {
    signal(text).map_err(|value_error| match value_error.hint {
        Some(hint) => format!("{}; {hint}", value_error.message),
        None => value_error.message,
    })
}

/// `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`, as a number.
pub(super) fn signal(text: &str) -> ScalarResult<i32> {
    let (first, last) = (nix::libc::SIGRTMIN(), nix::libc::SIGRTMAX());
    if is_digits(text) {
        return match text.parse::<i32>() {
            Ok(number) if (1..=31).contains(&number) || (first..=last).contains(&number) => {
                Ok(number)
            }
            _ => Err(
                ValueError::new(Kind::UnknownSignal, format!("there is no signal `{text}`"))
                    .hint(format!("signals are 1 to 31 and {first} to {last}")),
            ),
        };
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let real_time = |base: i32, offset: &str, sign: i32| -> Option<i32> {
        let offset = match offset {
            "" => 0,
            _ => offset[1..].parse::<i32>().ok()?,
        };
        let number = base.checked_add(offset.checked_mul(sign)?)?;
        (first..=last).contains(&number).then_some(number)
    };
    let number = if let Some(offset) = name.strip_prefix("RTMIN") {
        (offset.is_empty() || offset.starts_with('+'))
            .then(|| real_time(first, offset, 1))
            .flatten()
    } else if let Some(offset) = name.strip_prefix("RTMAX") {
        (offset.is_empty() || offset.starts_with('-'))
            .then(|| real_time(last, offset, -1))
            .flatten()
    } else {
        Signal::iterator()
            .find(|signal| signal.as_str().strip_prefix("SIG") == Some(name))
            .map(|signal| signal as i32)
    };
    number.ok_or_else(|| {
        let names = Signal::iterator().map(Signal::as_str);
        let full = if text.to_ascii_uppercase().starts_with("SIG") {
            text.to_owned()
        } else {
            format!("SIG{text}")
        };
        ValueError::new(Kind::UnknownSignal, format!("there is no signal `{text}`"))
            .maybe_hint(did_you_mean(&full, names))
    })
}

/// The rules of LISTEN_FDNAMES (systemd's `fdname_is_valid`), and none of the signs that
/// templates, `NAME=ADDRESS` and file names give a meaning to.
pub(super) fn name(text: &str) -> ScalarResult<()> {
    let complain = |why: String| {
        ValueError::new(Kind::BadName, format!("`{text}` cannot be a name: {why}"))
            .hint("use letters, digits, `-`, `_` and `.`")
    };
    if text.is_empty() {
        return Err(complain("it is empty".to_owned()));
    }
    if text.len() > 255 {
        return Err(complain("it is longer than 255 characters".to_owned()));
    }
    match text
        .chars()
        .find(|c| !c.is_ascii_graphic() || matches!(c, ':' | '=' | '/' | '{' | '}'))
    {
        None => Ok(()),
        Some(' ') => Err(complain("it contains a space".to_owned())),
        Some(c) if c.is_control() => Err(complain("it contains a control character".to_owned())),
        Some(c) if !c.is_ascii() => Err(complain(format!("`{c}` is not ASCII"))),
        Some(c) => Err(complain(format!("it contains a `{c}`"))),
    }
}

/// The name of a network interface, or its index; what the kernel's `dev_valid_name` takes.
pub(super) fn interface(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("it has no name"),
        "." | ".." | "0" => Err("no interface can have that name"),
        _ if text.len() > 15 => Err("it has more than 15 bytes"),
        _ if text.contains(|c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c)) => {
            Err("it has a character that no interface's name has")
        }
        _ => Ok(()),
    }
}

/// The name of an environment variable, and not one that the handoff sets.
pub(super) fn variable(text: &str) -> ScalarResult<()> {
    let mut letters = text.bytes();
    let good = letters
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !good {
        return Err(ValueError::new(
            Kind::BadName,
            format!("`{text}` cannot be the name of a variable"),
        )
        .hint("use letters, digits and `_`; the first is not a digit"));
    }
    if matches!(
        text,
        "LISTEN_FDS" | "LISTEN_PID" | "LISTEN_FDNAMES" | "LISTEN_PIDFDID"
    ) {
        return Err(ValueError::bad(format!(
            "`{text}` is set by listend for the sockets it passes"
        ))
        .hint("delete it; `{fd:NAME}` gives the number of a descriptor to other variables"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |n| Some(Duration::from_millis(n));
        for (text, want) in [
            ("0", ms(0)),
            ("500ms", ms(500)),
            ("30s", ms(30_000)),
            ("1h30m", ms(5_400_000)),
            ("2d", ms(172_800_000)),
            ("30", None),
            ("", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("5 s", None),
            ("99999999999999999999s", None),
            ("99999999999d", None),
        ] {
            assert_eq!(duration("k", text).ok(), want, "{text}");
        }
        assert!(
            duration("k", "30")
                .unwrap_err()
                .hint
                .unwrap()
                .contains("`30s`")
        );
    }

    #[test]
    fn modes_are_octal_however_written() {
        for text in ["0660", "660", "0o660"] {
            assert_eq!(mode("mode", text), Ok(0o660));
        }
        for text in [
            "0689",
            "1777",
            "rw",
            "",
            "0x1",
            "99999999999999999999",
            "-1",
        ] {
            assert!(mode("mode", text).is_err(), "{text}");
        }
    }

    #[test]
    fn integers_are_decimal() {
        assert_eq!(integer::<i64>("nice", "-20", -20, 19), Ok(-20));
        for text in [
            "077",
            "0x10",
            "1e3",
            "1_000",
            "",
            "-",
            "20",
            "99999999999999999999",
        ] {
            assert!(integer::<i64>("nice", text, -20, 19).is_err(), "{text}");
        }
    }

    #[test]
    fn signals() {
        for (text, want) in [
            ("SIGTERM", Some(15)),
            ("TERM", Some(15)),
            ("15", Some(15)),
            ("SIGRTMIN+3", Some(nix::libc::SIGRTMIN() + 3)),
            ("RTMAX", Some(nix::libc::SIGRTMAX())),
            ("SIGRTMIN+99", None),
            ("SIGRTMIN+é", None),
            ("0", None),
            ("SIGTREM", None),
        ] {
            assert_eq!(signal(text).ok(), want, "{text}");
        }
        let hint = |text| signal(text).unwrap_err().hint.unwrap();
        assert_eq!(hint("SIGTREM"), "did you mean `SIGTERM`?");
        assert_eq!(hint("term"), "did you mean `SIGTERM`?");
    }

    #[test]
    fn limits_backoffs_and_rates() {
        let both = |text| limit(Resource::Nofile, text).map(|l| (l.soft, l.hard)).ok();
        assert_eq!(both("64K"), Some((Some(65536), Some(65536))));
        assert_eq!(both("1024:unlimited"), Some((Some(1024), None)));
        for text in [
            "5:4",
            "unlimited:5",
            "64k",
            "K",
            "99999999999T",
            "infinity",
            "",
        ] {
            assert_eq!(both(text), None, "{text}");
        }
        assert!(backoff("backoff", "100ms..30s").is_ok() && backoff("backoff", "1s").is_ok());
        assert!(backoff("backoff", "2s..1s").is_err() && backoff("backoff", "0").is_err());
        let rate = |text| rate("limit", text);
        assert_eq!(rate("none"), Ok(None));
        assert_eq!(rate("5 in 60s").unwrap().unwrap().count, 5);
        assert!(rate("5/60s").is_err() && rate("0 in 1s").is_err() && rate("1 in 0").is_err());
    }

    #[test]
    fn names_and_variables() {
        for text in ["web", "a.b-c_d@1", &"x".repeat(255)] {
            assert!(name(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "a:b",
            "a=b",
            "a b",
            "a/b",
            "{a}",
            "é",
            "a\n",
            &"x".repeat(256),
        ] {
            assert!(name(text).is_err(), "{text}");
        }
        assert!(variable("RUST_LOG").is_ok() && variable("_1").is_ok());
        assert!(variable("1A").is_err() && variable("A-B").is_err() && variable("").is_err());
        assert!(variable("LISTEN_FDS").is_err());
    }
}
