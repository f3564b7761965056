//! The variables by which a process can be recognised as a worker when the listend that has started it is gone.

use super::connection::{Put, decimal};

/// Which instance of which worker it is: `app.0`.
pub const INSTANCE: &str = "LISTEND_INSTANCE";
/// The process id of the listend that has started it.
pub const LISTEND_PID: &str = "LISTEND_PID";

/// Tells the variables of an instance.
pub fn tell(worker: &str, instance: u32, listend: u32, put: &mut Put<'_>) {
    put(INSTANCE, &|out| {
        out.extend_from_slice(worker.as_bytes());
        out.push(b'.');
        decimal(instance, out);
    });
    put(LISTEND_PID, &|out| decimal(listend, out));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::belongs_to_a_handoff;

    #[test]
    fn a_listend_that_is_a_worker_does_not_hand_them_on() {
        tell("app", 0, 1, &mut |name, _| {
            assert!(belongs_to_a_handoff(name), "{name} is not scrubbed");
        });
    }
}
