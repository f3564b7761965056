//! Becoming the user of the worker.

use super::order::Order;
use super::outcome::{Outcome, failure};
use crate::stage::Stage;
use crate::sys;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// Becomes the user of the worker, as the child of a launch does.
pub(super) fn switch_user(order: &Order) -> Outcome {
    let Some(credentials) = &order.credentials else {
        return Ok(());
    };
    let at = |stage| move |errno| failure(stage, errno, String::new());
    if let Some(groups) = &credentials.groups {
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups).map_err(at(Stage::Groups))?;
    }
    if let Some(gid) = credentials.gid.map(Gid::from_raw) {
        setresgid(gid, gid, gid).map_err(at(Stage::Group))?;
    }
    if let Some(uid) = credentials.uid.map(Uid::from_raw) {
        setresuid(uid, uid, uid).map_err(at(Stage::User))?;
        sys::join_new_session_keyring();
    }
    Ok(())
}
