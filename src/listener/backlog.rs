//! The length of an accept queue, as listen(2) takes it.

/// The backlog as listen(2) takes it; what is more than it can say is "as much as possible".
pub(super) fn as_backlog(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}
