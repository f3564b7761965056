//! The requests of an io_uring: /proc/PID/fdinfo/FD (`io_uring_show_fdinfo` in the kernel).

/// Whether something that it was asked for waits to become possible, as an accept does until a
/// client comes. The kernel tells which operations these are, but not of which descriptors. One
/// that does not tell, or cannot while the ring is in use, may have any.
///
/// Event loops make a ring when they start and wait with epoll all the same (libuv since 1.45), so
/// to have one means nothing by itself.
pub fn may_wait(fdinfo: &str) -> bool {
    let mut lines = fdinfo.lines().skip_while(|line| *line != "PollList:");
    let told = lines.next().is_some();
    !told || lines.next().is_some_and(|line| line.starts_with("  op="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_ring_without_anything_in_its_list_waits_for_nothing() {
        let idle = "UserBufs:\t0\nPollList:\nCqOverflowList:\nNAPI:\tdisabled\n";
        assert!(!may_wait(idle));
        assert!(!may_wait("UserBufs:\t0\nPollList:\n"));
        let accepts = "UserBufs:\t0\nPollList:\n  op=13, task_works=0\nCqOverflowList:\n";
        assert!(may_wait(accepts));
        assert!(may_wait("pos:\t0\nflags:\t02000002\n"));
    }
}
