//! What a listend that was killed leaves behind.

use super::{Daemon, children, kill};
use nix::sys::signal::Signal;
use std::fs;

/// Its workers. Dropped, those that are left are killed as well.
pub struct Left(pub Vec<i32>);

impl Drop for Left {
    fn drop(&mut self) {
        for pid in &self.0 {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains("probe") {
                kill(*pid, Signal::SIGKILL);
            }
        }
    }
}

/// Kills listend, and nobody else.
pub fn kill_daemon(daemon: &Daemon) -> Left {
    let workers = children(daemon.pid());
    daemon.signal(Signal::SIGKILL);
    let _killed = daemon.status();
    Left(workers)
}
