//! Memory that is not needed any more.

/// Gives what start-up has freed back to the kernel: the texts and trees of a large configuration.
/// A no-op where the C library has no malloc_trim(3).
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointers and may be called at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
