//! A process whose program is executed in a sandbox: listend itself comes in between.

use super::fdmap;
use crate::confine::{Order, Second};
use crate::launch_spec::Limit;
use crate::plan::{RuntimeDirectory, WorkerPlan};
use crate::sandbox::Sandbox;
use crate::sys::{CStrings, Common, Prepared, SecondStep};
use nix::libc::RLIM_INFINITY;
use nix::sys::resource::getrlimit;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

/// The first argument of listend as the program in between.
pub const SANDBOX_EXEC: &str = "sandbox-exec";

/// The running program, even if its file has been replaced meanwhile.
const ITSELF: &std::ffi::CStr = c"/proc/self/exe";

/// Has the child execute listend with an order, instead of the worker's program. What needs privileges that
/// set-up needs, too, is left to that: becoming the user, and entering the folder, which may be another there.
pub(super) fn in_between(
    (mut common, environment, mut fds): (Common, CStrings, Vec<RawFd>),
    worker: &WorkerPlan,
    sandbox: &Sandbox,
    index: u32,
    ([notify, acknowledge_at], control): ([Option<&str>; 2], Option<&Path>),
) -> io::Result<Prepared> {
    let folder = common.spec.working_directory.take();
    let limits = std::mem::take(&mut common.spec.limits);
    let (later, now) = limits.into_iter().partition(is_for_later);
    common.spec.limits = now;
    let order = Order {
        name: worker.name.clone(),
        index,
        sandbox: sandbox.clone(),
        credentials: common.spec.credentials.take(),
        working_directory: folder
            .map(|path| Path::new(OsStr::from_bytes(path.as_bytes())).to_owned()),
        limits: later,
        ignores_sigpipe: common.spec.ignore_sigpipe,
        connects: worker.forwards,
        notify: notify.map(str::to_owned),
        acknowledge_at: acknowledge_at.map(str::to_owned),
        control: control.map(Path::to_owned),
        runtime_directory: worker
            .runtime_directory
            .as_ref()
            .map(RuntimeDirectory::path),
        ..Order::default()
    };
    let second = Second {
        program: &common.program,
        arguments: &common.argv,
        environment: &environment,
    };
    let order = order.write(&second)?;
    // Above everything that the worker gets.
    let last = common.targets.iter().copied().max().unwrap_or(0).max(2);
    let (order_at, status) = (last + 1, last + 2);
    let mut argv = CStrings::with_room_for(4);
    for word in [
        "listend",
        SANDBOX_EXEC,
        &order_at.to_string(),
        &status.to_string(),
    ] {
        let pushed = argv.push(|bytes| bytes.extend_from_slice(word.as_bytes()));
        pushed.map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    argv.seal();
    fds.push(order.as_raw_fd());
    common.targets.extend([order_at, status]);
    Ok(Prepared {
        common: Rc::new(Common {
            program: ITSELF.to_owned(),
            argv,
            unused: fdmap::unused(&common.targets),
            ..common
        }),
        environment: CStrings::default(),
        fds,
        fd_actions: Vec::new(),
        open_files: None,
        second: Some(SecondStep { order, status }),
    })
}

/// Whether a limit is left to the program in between: what it sets up takes descriptors and memory. What raises the hard
/// limit is not, since that takes privileges that it gives up.
fn is_for_later(limit: &Limit) -> bool {
    let resource = limit.resource.of_setting_up();
    let most = resource.and_then(|resource| getrlimit(resource).ok());
    most.is_some_and(|(_, most)| limit.hard.unwrap_or(RLIM_INFINITY) <= most)
}
