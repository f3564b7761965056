//! Stub.
use super::bound::BoundSocket;
/// Stub.
#[derive(Debug)]
pub struct Waiters;
impl Waiters {
    /// Stub.
    pub fn is_empty(&self) -> bool {
        true
    }
    /// Stub.
    pub fn none_was_taken(&self, _before: &Waiters) -> bool {
        false
    }
}
/// Stub.
pub fn waiters(_sockets: &[&BoundSocket]) -> Waiters {
    Waiters
}
