//! Points in time as text: RFC 3339 in UTC, whole seconds.

use jiff::Timestamp;

const DAY: u64 = 86_400;

/// The end of the calendar: nothing later can be written.
const LAST: &str = "9999-12-30T22:00:00Z";

/// Seconds since 1970 as `2026-01-31T12:00:00Z`.
pub fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(|| LAST.to_owned(), |time| time.to_string())
}

/// The time since a point in time, in the two largest units; `now` is in seconds since 1970. `None` for
/// text that is no point in time.
pub fn age(since: &str, now: u64) -> Option<String> {
    parse(since).map(|since| short(now.saturating_sub(since)))
}

/// The time until a point in time, in the two largest units.
pub(super) fn left(until: &str, now: u64) -> Option<String> {
    parse(until).map(|until| short(until.saturating_sub(now)))
}

/// The way back, for exactly this shape.
pub(super) fn parse(text: &str) -> Option<u64> {
    let time = text.parse::<Timestamp>().ok()?;
    let seconds = u64::try_from(time.as_second()).ok()?;
    (rfc3339(seconds) == text).then_some(seconds)
}

/// A duration in two units at most, for people: `12s`, `3m 4s`, `5h 6m`, `7d 8h`.
pub fn short(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / DAY);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        (_, _, _) => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn no_number_of_seconds_is_beyond_the_calendar() {
        for seconds in [253_402_207_200, 253_402_207_201, u64::MAX] {
            assert_eq!(rfc3339(seconds), LAST);
        }
        assert_eq!(parse(LAST), Some(253_402_207_200));
    }

    #[test]
    fn what_is_no_moment_is_nothing() {
        for text in [
            "",
            "now",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00+",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-01-01T00:00:00.5Z",
            "2026-01-01T01:00:00+01:00",
            "1969-12-31T23:59:59Z",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:0\u{e9}",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_short() {
        let shown = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 31_536_000].map(short);
        assert_eq!(
            shown,
            [
                "0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "1d 0h", "365d 0h"
            ]
        );
    }
}
