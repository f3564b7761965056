//! listend's own environment.

/// Removes a variable from it.
pub fn forget_variable(name: &str) {
    // SAFETY: nobody else reads or writes the environment meanwhile: listend has one thread, and
    // this is called before it does anything else.
    unsafe { std::env::remove_var(name) }
}
