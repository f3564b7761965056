//! temp
use super::*;
use crate::plan::*;
impl BindError {
    /// t
    pub fn is_tolerated(&self, plan: &Plan) -> bool {
        match plan.listener(self.listener).presence {
            crate::config::Presence::Required => false,
            crate::config::Presence::Optional => true,
            crate::config::Presence::WaitFor(_) => self.errno == nix::libc::EADDRNOTAVAIL,
        }
    }
}
/// t
pub fn bind_missing(_: &Plan, _: ListenerId, _: &mut Bound) -> (Vec<BindError>, Vec<Note>) {
    (vec![], vec![])
}
/// t
#[derive(Debug)]
pub enum Damage {
    /// t
    ShutDown,
    /// t
    PathGone,
    /// t
    PathReplaced,
}
/// t
#[derive(Debug)]
pub enum Repair {
    /// t
    ListenedAgain,
    /// t
    Rebound,
}
/// t
pub fn inspect(_: &BoundSocket) -> Option<Damage> {
    None
}
/// t
pub fn repair(
    _: &Plan,
    _: &mut Bound,
    _: ListenerId,
    _: usize,
) -> Result<Option<Repair>, BindError> {
    Ok(None)
}
