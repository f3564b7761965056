//! Why a process ended, as far as that is known here.

use super::words::OutOfMemory;
use crate::config::Ready;
use crate::core::{ExitStatus, Fault, Next, ProcessEvent};
use crate::plan::{Activation, WorkerPlan};
use signal_hook::consts::SIGKILL;

/// Why listend has ended a process that was not well.
pub(in crate::shell) fn fault(cause: Option<Fault>) -> &'static str {
    match cause {
        None => "",
        Some(Fault::NotReady) => ", not ready in time",
        Some(Fault::Silent) => ", no keep-alive",
        Some(Fault::Reported) => ", reported a failure",
        Some(Fault::NotStopped) => ", did not stop in time",
    }
}

/// Whether a process got a SIGKILL that is not from here.
pub(in crate::shell) fn is_unexplained_kill(event: &ProcessEvent) -> bool {
    match event {
        ProcessEvent::Exited {
            status: ExitStatus::Signal { number, .. },
            cause: None,
            next,
            ..
        } => *number == SIGKILL && *next != Next::Stopping,
        _ => false,
    }
}

/// Who sent it.
pub(super) fn killer(out_of_memory: &OutOfMemory) -> String {
    match out_of_memory {
        OutOfMemory::OfItsOwn(limit) if limit.is_empty() => ", by the OOM killer".to_owned(),
        OutOfMemory::OfItsOwn(limit) => format!(", by the OOM killer: memory_max {limit}"),
        OutOfMemory::Probably => {
            ", probably by the kernel, which has killed in this memory cgroup for lack of memory"
                .to_owned()
        }
        OutOfMemory::No => ", by another process or the kernel".to_owned(),
    }
}

/// Whether a worker counts as ready as soon as its program runs.
pub(super) fn starts_blindly(worker: &WorkerPlan) -> bool {
    let life = &worker.lifecycle;
    matches!(life.activation, Activation::Eager) && life.ready == Ready::Started
}
