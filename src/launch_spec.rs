//! The set-up of a worker's process between clone and exec, beside its command, its descriptors and its
//! environment.
//!
//! One value goes from the configuration through the plan to the child: a new setting is a field here,
//! with its key in the configuration, its line among the differences of a plan and its step in the
//! child.

use serde::{Deserialize, Serialize};

/// The settings of a process. `Text` is how a path is written at that stage: with placeholders, or
/// ready for a system call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec<Text> {
    /// User and groups to run as; `None` changes nothing. In the configuration these are names.
    pub credentials: Option<Credentials>,
    /// setrlimit(2), in order.
    pub limits: Vec<Limit>,
    /// umask(2); `None` is listend's own.
    pub umask: Option<u32>,
    /// -20 to 19 (setpriority(2)); `None` is listend's own.
    pub nice: Option<i32>,
    /// -1000 to 1000 (proc_pid_oom_score_adj(5)); `None` is listend's own.
    pub oom_score_adjust: Option<i32>,
    /// Whether SIGPIPE is ignored.
    pub ignore_sigpipe: bool,
    /// The folder to run in (chdir(2)); `None` is listend's own.
    pub working_directory: Option<Text>,
}

impl<Text> LaunchSpec<Text> {
    /// Converts the texts of the settings.
    ///
    /// # Errors
    ///
    /// The error of `convert`.
    pub fn try_map<Other, E>(
        &self,
        convert: impl FnOnce(&Text) -> Result<Other, E>,
    ) -> Result<LaunchSpec<Other>, E> {
        let LaunchSpec {
            credentials,
            limits,
            umask,
            nice,
            oom_score_adjust,
            ignore_sigpipe,
            working_directory,
        } = self;
        Ok(LaunchSpec {
            credentials: credentials.clone(),
            limits: limits.clone(),
            umask: *umask,
            nice: *nice,
            oom_score_adjust: *oom_score_adjust,
            ignore_sigpipe: *ignore_sigpipe,
            working_directory: working_directory.as_ref().map(convert).transpose()?,
        })
    }
}

/// User and groups of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Real, effective and saved user id; `None` leaves them.
    pub uid: Option<u32>,
    /// Real, effective and saved group id; `None` leaves them.
    pub gid: Option<u32>,
    /// Supplementary groups; `None` leaves them.
    pub groups: Option<Vec<u32>>,
    /// The user's name as it was written, for messages.
    pub user: String,
}

/// A resource limit, soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The resource that is limited.
    pub resource: Resource,
    /// `None` is unlimited.
    pub soft: Option<u64>,
    /// `None` is unlimited.
    pub hard: Option<u64>,
}

impl Limit {
    /// This limit of open files for a process that starts with so many descriptors. A soft limit that does
    /// not leave it room for as many of its own, and some more, becomes the hard one: with less a program
    /// cannot even open its libraries.
    pub fn for_descriptors(self, count: usize) -> Limit {
        let needed = (count as u64).saturating_mul(2).saturating_add(64);
        let soft = match self.soft {
            Some(soft) if soft < needed => self.hard,
            enough => enough,
        };
        Limit { soft, ..self }
    }
}

macro_rules! resources {
    ($($name:ident = $key:literal, $constant:ident;)*) => {
        /// A resource of setrlimit(2), named as there in lower case without `RLIMIT_`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[allow(missing_docs)]
        pub enum Resource { $($name,)* }

        impl Resource {
            /// Every resource.
            pub const ALL: &'static [Resource] = &[$(Resource::$name,)*];
            /// The key under `limits:`.
            pub const fn key(self) -> &'static str {
                match self { $(Resource::$name => $key,)* }
            }
            /// The number that setrlimit(2) takes.
            pub const fn number(self) -> u32 {
                match self { $(Resource::$name => nix::libc::$constant as u32,)* }
            }
        }
    };
}

resources! {
    As = "as", RLIMIT_AS;
    Core = "core", RLIMIT_CORE;
    Cpu = "cpu", RLIMIT_CPU;
    Data = "data", RLIMIT_DATA;
    Fsize = "fsize", RLIMIT_FSIZE;
    Locks = "locks", RLIMIT_LOCKS;
    Memlock = "memlock", RLIMIT_MEMLOCK;
    Msgqueue = "msgqueue", RLIMIT_MSGQUEUE;
    Nice = "nice", RLIMIT_NICE;
    Nofile = "nofile", RLIMIT_NOFILE;
    Nproc = "nproc", RLIMIT_NPROC;
    Rss = "rss", RLIMIT_RSS;
    Rtprio = "rtprio", RLIMIT_RTPRIO;
    Rttime = "rttime", RLIMIT_RTTIME;
    Sigpending = "sigpending", RLIMIT_SIGPENDING;
    Stack = "stack", RLIMIT_STACK;
}

impl Resource {
    /// What getrlimit(2) takes, for those whose limit may be too low for a program that only sets a process up.
    pub const fn of_setting_up(self) -> Option<nix::sys::resource::Resource> {
        use nix::sys::resource::Resource as Of;
        match self {
            Resource::As => Some(Of::RLIMIT_AS),
            Resource::Data => Some(Of::RLIMIT_DATA),
            Resource::Nofile => Some(Of::RLIMIT_NOFILE),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_limit_leaves_room_for_the_descriptors_and_as_many_more() {
        let limit = |soft, hard| Limit {
            resource: Resource::Nofile,
            soft,
            hard,
        };
        let own = limit(Some(1024), Some(20_480));
        assert_eq!(own.for_descriptors(2), own);
        assert_eq!(own.for_descriptors(480), own);
        let raised = limit(Some(20_480), Some(20_480));
        assert_eq!(own.for_descriptors(481), raised);
        assert_eq!(own.for_descriptors(3000), raised);
        assert_eq!(
            limit(Some(1024), None).for_descriptors(3000),
            limit(None, None)
        );
        assert_eq!(limit(None, None).for_descriptors(3000), limit(None, None));
    }
}
