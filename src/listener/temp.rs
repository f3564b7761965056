//! temp
use super::*;
use crate::plan::*;
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
