//! The variables by which a process can be recognised as a worker when the listend that has started it is gone.

use super::Value;

/// Which instance of which worker it is: `app.0`.
pub const INSTANCE: &str = "LISTEND_INSTANCE";
/// The process id of the listend that has started it.
pub const LISTEND_PID: &str = "LISTEND_PID";

/// The variables of an instance.
pub fn variables(worker: &str, instance: u32, listend: u32) -> [(&'static str, Value); 2] {
    // Not format!, which takes four times as long: there is one for each connection.
    let name = [worker, ".", &instance.to_string()].concat();
    [
        (INSTANCE, Value::Text(name)),
        (LISTEND_PID, Value::Text(listend.to_string())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::belongs_to_a_handoff;

    #[test]
    fn a_listend_that_is_a_worker_does_not_hand_them_on() {
        for (name, _) in variables("app", 0, 1) {
            assert!(belongs_to_a_handoff(name), "{name} is not scrubbed");
        }
    }
}
