//! What a process has told for people to read.

use crate::notify::Message;
use crate::output::visible;
use crate::report::describe;

/// What a process has told for people to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerStatus {
    /// `STATUS=`, with control characters made visible.
    pub status: Option<String>,
    /// `ERRNO=`.
    pub errno: Option<i32>,
    /// `BUSERROR=`, with control characters made visible.
    pub bus_error: Option<String>,
    /// `EXIT_STATUS=`.
    pub exit_status: Option<u8>,
}

impl WorkerStatus {
    /// All of it, as systemctl(1) shows it; `None` if nothing was told.
    pub(in crate::shell) fn words(&self) -> Option<String> {
        let errno = self.errno.filter(|errno| *errno != 0);
        let words = [
            self.status.clone(),
            errno.map(|errno| format!("error: {}", describe(errno))),
            self.bus_error
                .as_ref()
                .map(|error| format!("bus error: {error}")),
            self.exit_status
                .map(|status| format!("will exit with status {status}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    pub(super) fn take(&mut self, message: &Message) {
        let shown = |text: &String| Some(visible(text.as_bytes())).filter(|text| !text.is_empty());
        if let Some(status) = &message.status {
            self.status = shown(status);
        }
        if let Some(error) = &message.bus_error {
            self.bus_error = shown(error);
        }
        self.errno = message.errno.or(self.errno);
        self.exit_status = message.exit_status.or(self.exit_status);
    }
}
