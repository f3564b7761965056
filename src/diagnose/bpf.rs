//! Why the kernel refuses a BPF map or program, and what this process lacks.

use crate::listener::{BpfError, BpfStep, try_flows};
use crate::plan::Plan;
use crate::report::{Kind, Problem, Report};
use nix::libc;

// Capabilities of capabilities(7), by number.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Advice about listeners whose flows cannot be kept apart by this process: maps are made, and the programs
/// loaded.
pub fn advise_flows(plan: &Plan) -> Report {
    let mut advice = Report::default();
    for listener in plan.listeners.values() {
        let Some(settings) = &listener.settings.flows else {
            continue;
        };
        let Err(error) = try_flows(settings) else {
            continue;
        };
        let message = format!(
            "`flows: sticky` of `{}` has no effect: old and new instances share the socket",
            listener.name
        );
        let problem = Problem::new(Kind::FlowsNotKept, message).of_listener(&listener.name);
        let hint = match may_load(capabilities()) {
            true => "run listend where it may use bpf(2), or delete `flows`",
            false => "give listend CAP_BPF, as units/listend-flows.conf does, or delete `flows`",
        };
        let problem = problem.with_cause(why_no_bpf(&error)).with_hint(hint);
        let place = listener.place_of("flows");
        advice.add(match place {
            Some(place) => problem.at(place),
            None => problem,
        });
    }
    advice
}

/// The error, and what is missing, in one line but for what the verifier says.
pub fn why_no_bpf(error: &BpfError) -> String {
    words(error, capabilities())
}

/// The effective ones of this process.
fn capabilities() -> u64 {
    let status = procfs::process::Process::myself().and_then(|me| me.status());
    status.map_or(0, |status| status.capeff)
}

/// Maps and programs for SO_REUSEPORT groups take no more than this.
fn may_load(effective: u64) -> bool {
    effective & (1 << CAP_BPF | 1 << CAP_SYS_ADMIN) != 0
}

fn words(error: &BpfError, effective: u64) -> String {
    // Who is not allowed to load a program is refused before anybody reads it.
    if !error.log.is_empty() {
        return error.to_string();
    }
    let errno = error.error.raw_os_error().unwrap_or(0);
    let cause = match (errno, error.step) {
        (libc::EPERM | libc::EACCES, _) if !may_load(effective) => {
            "this process lacks CAP_BPF".to_owned()
        }
        (libc::EPERM | libc::EACCES, _) => {
            "this process has CAP_BPF, so that a container, a security module or the lockdown of the \
             kernel refuses it"
                .to_owned()
        }
        (libc::ENOSYS, _) => {
            "the kernel was built without CONFIG_BPF_SYSCALL, or a container has no bpf(2)".to_owned()
        }
        (libc::EINVAL, BpfStep::MakeMap(_)) => {
            "the kernel does not know this type of map (Linux 5.11 has all that are used)".to_owned()
        }
        (libc::EINVAL, BpfStep::LoadProgram) => {
            "the kernel does not know this type of program (Linux 5.11 has it)".to_owned()
        }
        (libc::ENOMEM, _) => "there is no memory for it".to_owned(),
        _ => return error.to_string(),
    };
    format!("{error}; {cause}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn what_is_missing_is_named() {
        let error = |errno, step| BpfError {
            step,
            error: io::Error::from_raw_os_error(errno),
            log: String::new(),
        };
        let all = 1 << CAP_BPF;
        let admin = 1 << CAP_SYS_ADMIN;
        for (errno, step, effective, expected) in [
            (libc::EPERM, BpfStep::LoadProgram, 0, "lacks CAP_BPF"),
            (libc::EPERM, BpfStep::LoadProgram, all, "a container"),
            (libc::EPERM, BpfStep::LoadProgram, admin, "a container"),
            (libc::ENOSYS, BpfStep::FillMap, all, "CONFIG_BPF_SYSCALL"),
        ] {
            let words = words(&error(errno, step), effective);
            assert!(words.contains(expected), "{words}");
        }
        // The verifier refuses with EACCES, too.
        let error = BpfError {
            log: "R0 !read_ok".to_owned(),
            ..error(libc::EACCES, BpfStep::LoadProgram)
        };
        let words = words(&error, all);
        assert!(
            words.ends_with("the verifier says:\nR0 !read_ok"),
            "{words}"
        );
    }
}
