//! The time on the clock on the wall.

use nix::libc;

/// A point in time in the time zone of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// The month, from 0.
    pub month: usize,
    /// The day of the month, from 1.
    pub day: u8,
    /// The hour, from 0.
    pub hour: u8,
    /// The minute, from 0.
    pub minute: u8,
    /// The second, from 0; 60 is a leap second.
    pub second: u8,
}

/// The local time of `seconds` since 1970. `None` for years that do not fit.
pub fn local_time(seconds: u64) -> Option<LocalTime> {
    let seconds = seconds.try_into().ok()?;
    // SAFETY: `tm` is a plain C struct of numbers and a pointer, for which all zeros is a value.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call, and localtime_r(3) keeps neither. It reads TZ,
    // which nobody changes meanwhile: there is one thread.
    let known = unsafe { libc::localtime_r(&raw const seconds, &raw mut parts) };
    if known.is_null() {
        return None;
    }
    Some(LocalTime {
        month: usize::try_from(parts.tm_mon).ok()?,
        day: u8::try_from(parts.tm_mday).ok()?,
        hour: u8::try_from(parts.tm_hour).ok()?,
        minute: u8::try_from(parts.tm_min).ok()?,
        second: u8::try_from(parts.tm_sec).ok()?,
    })
}
