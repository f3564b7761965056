//! Sets up the sandbox of a worker, in the process that becomes it, and executes its program.
//!
//! The child of a launch executes listend once more (`listend sandbox-exec`), with an [`Order`] in a memory
//! file. From there on it is an ordinary program: it may allocate and look around, and its pid and its
//! descriptors are those of the worker. What fails is told on the status pipe of the launch.
//!
//! Mounts need privileges that the worker must not have, so namespaces and mounts come first, then the
//! user, then what needs no privileges: landlock and seccomp. Where listend may not make namespaces, the
//! process makes a user namespace, in which it may; where there is none of these either, landlock and seccomp
//! enforce what they can. What nothing enforces is an error, or with `best_effort` a line on standard error.

mod by_number;
mod filter;
mod group;
mod land;
mod mounts;
mod order;
mod outcome;
mod spaces;
mod user;

pub use order::{Order, Second};

use crate::launch_spec::Limit;
use crate::sandbox::paths;
use crate::stage::{LaunchFailure, Stage};
use crate::sys;
use nix::libc::RLIM_INFINITY;
use nix::sys::resource::setrlimit;
use nix::sys::stat::{Mode, umask};
use nix::unistd::chdir;
use outcome::{Notes, Outcome, failed, failure};
use std::convert::Infallible;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Sets the sandbox up and executes the worker's program. Returns only on failure; of a step that an
/// ordinary launch has, too, the reason is left to the caller.
pub fn carry_out(order: &Order) -> LaunchFailure {
    match steps(order) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn steps(order: &Order) -> Outcome<Infallible> {
    let sandbox = &order.sandbox;
    let mut rules = paths::rules(sandbox, &order.implied());
    // As a path: the folder itself would stay what it was before the mounts.
    let here = std::env::current_dir().ok();
    let before = umask(Mode::from_bits_truncate(0o022));
    let mut notes = Notes {
        is_best_effort: sandbox.is_best_effort(),
        lines: Vec::new(),
    };
    group::enter(order, &mut notes)?;
    let mut spaces = spaces::enter(order, &mut rules)?;
    if spaces.mounts {
        mounts::carry_out(&rules, &spaces, &mut notes)?;
    }
    if spaces.network {
        let what = "cannot switch the loopback interface on";
        sys::switch_loopback_on().map_err(failed(Stage::Namespaces, what))?;
    }
    spaces::give_up_capabilities(order, &mut spaces)?;
    if !spaces.has_switched {
        user::switch_user(order)?;
    }
    spaces.has_switched = true;
    spaces::pass_no_capabilities_on()?;
    match (&order.working_directory, here) {
        (Some(folder), _) => {
            chdir(folder.as_os_str())
                .map_err(|errno| failure(Stage::WorkingDirectory, errno, String::new()))?;
        }
        // Where that is hidden it is no place to be in.
        (None, Some(here)) => chdir(&here).or_else(|_| chdir("/")).unwrap_or_default(),
        (None, None) => chdir("/").unwrap_or_default(),
    }
    umask(before);
    land::restrict(order, &rules, &spaces, &mut notes)?;
    if let Some(refused) = &spaces.refused {
        let what = "landlock restricts the file system, and seccomp sockets and shared memory";
        notes.instead(&format!("no namespaces ({refused}); {what}"));
    }
    for line in &notes.lines {
        // Nobody needs to read it.
        let text = format!("listend: sandbox of {}: {line}\n", order.name);
        let _said = nix::unistd::write(io::stderr(), text.as_bytes());
    }
    if order.ignores_sigpipe {
        // The start of a Rust program has done that.
    } else {
        sys::default_broken_pipe();
    }
    set_limits(&order.limits)?;
    spaces::keep_no_other_capabilities(order, &spaces)?;
    filter::install(order, &spaces)?;
    let errno = match nix::unistd::execve(&order.program, &order.arguments, &order.environment()) {
        Ok(never) => match never {},
        Err(errno) => errno,
    };
    Err(failure(Stage::Exec, errno, String::new()))
}

fn set_limits(limits: &[Limit]) -> Outcome {
    for limit in limits {
        let Some(resource) = limit.resource.of_setting_up() else {
            continue;
        };
        let [soft, hard] = [limit.soft, limit.hard].map(|value| value.unwrap_or(RLIM_INFINITY));
        let what = format!("`{}`", limit.resource.key());
        setrlimit(resource, soft, hard).map_err(failed(Stage::Limits, &what))?;
    }
    Ok(())
}

/// Why the program may not be found: the key that hides it.
pub fn hides(order: &Order, path: &Path) -> Option<String> {
    let rules = paths::rules(&order.sandbox, &order.implied());
    let rule = paths::hiding(&rules, path)?;
    let (key, place) = (&rule.key, rule.path.display());
    Some(format!(
        "`{key}` of `sandbox` hides {place}; `read_write_paths` and `read_only_paths` show what is in it"
    ))
}

/// The program, as a path.
pub fn program_of(order: &Order) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(order.program.as_bytes()))
}
