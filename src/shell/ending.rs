//! How an instance has ended, as the command after its end is told (systemd.exec(5), "Environment
//! variables set or propagated by the service manager").

use crate::config::{Restart, signal_name};
use crate::core::{ExitStatus, Fault, HookEnd, LastEnd, is_failure};

/// SERVICE_RESULT, and of a program that has run EXIT_CODE and EXIT_STATUS. `None` is a start that was
/// cancelled before there was a program.
pub(super) fn variables(end: Option<&LastEnd>, restart: &Restart) -> Vec<(&'static str, String)> {
    let of_status = |status| match status {
        status if !is_failure(status, restart) => "success",
        ExitStatus::Code(_) => "exit-code",
        ExitStatus::Signal {
            core_dumped: false, ..
        } => "signal",
        ExitStatus::Signal {
            core_dumped: true, ..
        } => "core-dump",
        // The nearest that systemd has.
        ExitStatus::Unknown => "exit-code",
    };
    let result = match end {
        None => "success",
        Some(LastEnd::Exited {
            cause: Some(Fault::NotReady | Fault::NotStopped),
            ..
        }) => "timeout",
        Some(LastEnd::Exited {
            cause: Some(Fault::Silent | Fault::Reported),
            ..
        }) => "watchdog",
        Some(LastEnd::Exited { status, .. }) => of_status(*status),
        Some(LastEnd::NotLaunched { .. }) => "resources",
        Some(LastEnd::NotPrepared { end }) => match end {
            HookEnd::Exited { status } => of_status(*status),
            HookEnd::TimedOut { .. } => "timeout",
            HookEnd::NotLaunched { .. } => "resources",
        },
    };
    let mut variables = vec![("SERVICE_RESULT", result.to_owned())];
    if let Some(LastEnd::Exited { status, .. }) = end {
        let (code, status) = match *status {
            ExitStatus::Unknown => return variables,
            ExitStatus::Code(code) => ("exited", code.to_string()),
            ExitStatus::Signal {
                number,
                core_dumped,
            } => {
                let name = signal_name(number);
                let short = name.strip_prefix("SIG").unwrap_or(&name).to_owned();
                (if core_dumped { "dumped" } else { "killed" }, short)
            }
        };
        variables.push(("EXIT_CODE", code.to_owned()));
        variables.push(("EXIT_STATUS", status));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{LaunchFailure, Stage};
    use std::time::Duration;

    fn of(end: Option<LastEnd>) -> String {
        let variables = variables(end.as_ref(), &Restart::default());
        let words = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        words.collect::<Vec<_>>().join(" ")
    }

    fn exited(status: ExitStatus, cause: Option<Fault>) -> Option<LastEnd> {
        let uptime = Duration::from_secs(1);
        Some(LastEnd::Exited {
            status,
            uptime,
            cause,
        })
    }

    fn signal(number: i32, core_dumped: bool) -> ExitStatus {
        ExitStatus::Signal {
            number,
            core_dumped,
        }
    }

    // The table of systemd.exec(5).
    #[test]
    fn an_end_is_told_in_systemd_s_words() {
        for (end, words) in [
            (
                exited(ExitStatus::Code(0), None),
                "SERVICE_RESULT=success EXIT_CODE=exited EXIT_STATUS=0",
            ),
            (
                exited(ExitStatus::Code(3), None),
                "SERVICE_RESULT=exit-code EXIT_CODE=exited EXIT_STATUS=3",
            ),
            (
                exited(signal(15, false), None),
                "SERVICE_RESULT=success EXIT_CODE=killed EXIT_STATUS=TERM",
            ),
            (
                exited(signal(9, false), None),
                "SERVICE_RESULT=signal EXIT_CODE=killed EXIT_STATUS=KILL",
            ),
            (
                exited(signal(6, true), Some(Fault::Silent)),
                "SERVICE_RESULT=watchdog EXIT_CODE=dumped EXIT_STATUS=ABRT",
            ),
            (
                exited(signal(11, true), None),
                "SERVICE_RESULT=core-dump EXIT_CODE=dumped EXIT_STATUS=SEGV",
            ),
            (
                exited(signal(9, false), Some(Fault::NotStopped)),
                "SERVICE_RESULT=timeout EXIT_CODE=killed EXIT_STATUS=KILL",
            ),
            (
                exited(ExitStatus::Code(0), Some(Fault::NotReady)),
                "SERVICE_RESULT=timeout EXIT_CODE=exited EXIT_STATUS=0",
            ),
            (None, "SERVICE_RESULT=success"),
            (
                Some(LastEnd::NotPrepared {
                    end: HookEnd::Exited {
                        status: ExitStatus::Code(1),
                    },
                }),
                "SERVICE_RESULT=exit-code",
            ),
            (
                Some(LastEnd::NotLaunched {
                    failure: LaunchFailure {
                        stage: Stage::Exec,
                        errno: 2,
                        detail: 0,
                        reason: None,
                    },
                }),
                "SERVICE_RESULT=resources",
            ),
        ] {
            assert_eq!(of(end.clone()), words, "{end:?}");
        }
    }
}
