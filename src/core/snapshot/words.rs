//! The words of the format: what the core has as types, as it stands in a fact.
//!
//! They are types of their own, so that the core may change without the format, and the other way round.
//! Times are nanoseconds of CLOCK_MONOTONIC, durations are nanoseconds.

use crate::connection::Source;
use crate::core::state::{Ending, Launch, State};
use crate::core::time::Mono;
use crate::core::types::{
    ConnectionId, ExitStatus, FailureReason, Fault, HookEnd, HookKind, LastEnd, Missing, Next,
    Phase, ProcessId,
};
use crate::stage::{LaunchFailure, Stage};
use ::core::net::IpAddr;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The same thing, as the other side has it.
pub(in crate::core) trait As<T> {
    fn cast(self) -> T;
}

macro_rules! same {
    ($($type:ty),*) => {
        $(impl As<$type> for $type {
            fn cast(self) -> $type {
                self
            }
        })*
    };
}
same!(bool, i32, u16, u32, IpAddr);

macro_rules! number {
    ($($type:ident),*) => {
        $(impl As<u64> for $type {
            fn cast(self) -> u64 {
                self.0
            }
        }

        impl As<$type> for u64 {
            fn cast(self) -> $type {
                $type(self)
            }
        })*
    };
}
number!(ProcessId, ConnectionId, Mono);

impl As<u64> for Duration {
    fn cast(self) -> u64 {
        u64::try_from(self.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl As<Duration> for u64 {
    fn cast(self) -> Duration {
        Duration::from_nanos(self)
    }
}

impl<T: As<U>, U> As<Option<U>> for Option<T> {
    fn cast(self) -> Option<U> {
        self.map(T::cast)
    }
}

/// An enum of the format, its counterpart in the core, and both ways between them. What is a tuple in the
/// core has a name for its only field here.
macro_rules! words {
    ($(
        $(#[$outer:meta])*
        $word:ident = $type:ident {
            $($variant:ident
                $({ $($(#[$inner:meta])* $field:ident: $of:ty),* $(,)? })?
                $(($only:ident: $only_of:ty))?
            ),* $(,)?
        }
    )*) => {
        $(
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            #[serde(rename_all = "snake_case")]
            $(#[$outer])*
            pub(in crate::core) enum $word {
                $($variant
                    $({ $($(#[$inner])* $field: $of),* })?
                    $({ $only: $only_of })?
                ),*
            }

            impl As<$word> for $type {
                fn cast(self) -> $word {
                    match self {
                        $($type::$variant $({ $($field),* })? $(($only))? => $word::$variant
                            $({ $($field: $field.cast()),* })? $({ $only: $only.cast() })?),*
                    }
                }
            }

            impl As<$type> for $word {
                fn cast(self) -> $type {
                    match self {
                        $($word::$variant $({ $($field),* })? $({ $only })? => $type::$variant
                            $({ $($field: $field.cast()),* })? $(($only.cast()))?),*
                    }
                }
            }
        )*
    };
}

words! {
    #[derive(Copy)]
    PhaseWord = Phase { Idle, Running, Stopping, Hurried, Exited }

    #[derive(Copy)]
    FaultWord = Fault { NotReady, Silent, Reported, NotStopped }

    #[derive(Copy)]
    HookWord = HookKind { BeforeStart, AfterReady, AfterStop, Reload }

    #[derive(Copy)]
    MissingWord = Missing { Address, Other }

    #[derive(Copy)]
    #[serde(tag = "name")]
    StatusWord = ExitStatus {
        Code(code: i32),
        Signal { number: i32, core_dumped: bool },
        Unknown,
    }

    #[derive(Copy)]
    #[serde(tag = "name")]
    ReasonWord = FailureReason {
        CrashLoop { crashes: u32, interval: u64 },
        NeverLaunched,
    }

    #[derive(Copy)]
    #[serde(tag = "name")]
    NextWord = Next {
        RestartIn(after: u64),
        AtNextClient { not_before: u64 },
        Done,
        Failed(reason: ReasonWord),
        StaysStopped,
        Stopping,
        RolledBack,
    }

    #[serde(tag = "name")]
    HookEndWord = HookEnd {
        Exited { status: StatusWord },
        NotLaunched { failure: FailureWord },
        TimedOut { timeout: u64 },
    }

    #[serde(tag = "name")]
    EndWord = LastEnd {
        Exited {
            status: StatusWord,
            uptime: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            cause: Option<FaultWord>,
        },
        NotLaunched { failure: FailureWord },
        NotPrepared { end: HookEndWord },
    }

    #[serde(tag = "name")]
    LaunchWord = Launch {
        Forking,
        Execing,
        Failed { failure: FailureWord },
        Exited { status: StatusWord, at: u64 },
    }

    #[derive(Copy)]
    #[serde(tag = "name")]
    EndingWord = Ending {
        Graceful {
            #[serde(skip_serializing_if = "Option::is_none")]
            kill_at: Option<u64>,
        },
        Killed,
    }

    #[serde(tag = "name")]
    StateWord = State {
        Waiting,
        Starting {
            process: u64,
            since: u64,
            launch: LaunchWord,
            #[serde(skip_serializing_if = "Option::is_none")]
            ending: Option<EndingWord>,
        },
        Preparing { hook: u64, cancelled: bool },
        Activating {
            process: u64,
            since: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            until: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            look_at: Option<u64>,
        },
        Running {
            process: u64,
            since: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            until: Option<u64>,
        },
        Stopping { process: u64, since: u64, ending: EndingWord },
        Cleaning { hook: u64, next: NextWord },
        Backoff { until: u64 },
        Failed {
            reason: ReasonWord,
            #[serde(skip_serializing_if = "Option::is_none")]
            until: Option<u64>,
        },
        Stopped,
    }

    #[derive(Copy)]
    #[serde(tag = "name")]
    SourceWord = Source {
        Ip(address: IpAddr),
        User(uid: u32),
        Cid(cid: u32),
        Unknown,
    }
}

/// [`LaunchFailure`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct FailureWord {
    #[serde(with = "StageWord")]
    stage: Stage,
    errno: i32,
    detail: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl As<FailureWord> for LaunchFailure {
    fn cast(self) -> FailureWord {
        let LaunchFailure {
            stage,
            errno,
            detail,
            reason,
        } = self;
        FailureWord {
            stage,
            errno,
            detail,
            reason,
        }
    }
}

impl As<LaunchFailure> for FailureWord {
    fn cast(self) -> LaunchFailure {
        LaunchFailure {
            stage: self.stage,
            errno: self.errno,
            detail: self.detail,
            reason: self.reason,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Stage", rename_all = "snake_case")]
enum StageWord {
    Prepare,
    RuntimeDirectory,
    Fork,
    Session,
    Output,
    Descriptors,
    OomScore,
    Limits,
    Nice,
    Groups,
    Keyring,
    ControlGroup,
    Namespaces,
    Mounts,
    Group,
    User,
    Capabilities,
    WorkingDirectory,
    Restrictions,
    Signals,
    Exec,
}
