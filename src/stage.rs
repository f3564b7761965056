//! The steps of a child between clone and exec.
//!
//! One table gives each step its number on the status pipe and its words, so that the two cannot
//! drift apart. This module uses nothing, so that [`crate::sys`] and [`crate::core`] may both use it.

use nix::libc;

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $phrase:literal,)*) => {
        /// A step of a launch; a failure names the step it happened in.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Stage { $($(#[$doc])* $name,)* }

        impl Stage {
            /// Every stage, in the order of the launch.
            pub const ALL: &'static [Stage] = &[$(Stage::$name,)*];

            /// What was being done, as in "failed while {phrase}".
            pub const fn phrase(self) -> &'static str {
                match self { $(Stage::$name => $phrase,)* }
            }
        }
    };
}

stages! {
    /// The parent looks the program up in PATH and lays everything out.
    Prepare = "finding the program",
    /// mkdir(2) of the worker's runtime directory.
    RuntimeDirectory = "creating the runtime directory",
    /// fork(2), and the pipe that reports what follows it.
    Fork = "creating the process",
    /// setsid(2).
    Session = "starting a session",
    /// open(2) of /dev/null or the output file, and dup2(2) onto 0, 1, 2.
    Output = "setting up standard input and output",
    /// dup3(2) of the listeners to 3 and up.
    Descriptors = "placing the listeners",
    /// Writing /proc/self/oom_score_adj.
    OomScore = "setting the OOM score adjustment",
    /// setrlimit(2).
    Limits = "setting a resource limit",
    /// setpriority(2).
    Nice = "setting the nice value",
    /// setgroups(2).
    Groups = "setting the supplementary groups",
    /// keyctl(2): a session keyring of its own.
    Keyring = "leaving listend's session keyring",
    /// mkdir(2) of its control group and its files, by the program that sets up a sandbox, as all that says so
    /// below.
    ControlGroup = "entering the control group of the sandbox",
    /// unshare(2), likewise.
    Namespaces = "creating the namespaces of the sandbox",
    /// mount(2) and its kin, in the sandbox.
    Mounts = "mounting the sandbox",
    /// setresgid(2).
    Group = "setting the group",
    /// setresuid(2).
    User = "setting the user",
    /// capset(2).
    Capabilities = "clearing the inheritable and ambient capabilities",
    /// chdir(2), as the worker's user.
    WorkingDirectory = "changing to the working directory",
    /// landlock(7) and seccomp(2), in the sandbox.
    Restrictions = "restricting the sandbox",
    /// Signal dispositions and mask.
    Signals = "resetting signals",
    /// execve(2).
    Exec = "executing the program",
}

impl Stage {
    /// The stage with this number on the status pipe.
    pub fn from_number(number: u8) -> Option<Stage> {
        Stage::ALL.get(usize::from(number)).copied()
    }
}

/// A launch that did not reach its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchFailure {
    /// The step that failed.
    pub stage: Stage,
    /// What the system call answered.
    pub errno: i32,
    /// The index of the failed item where the stage works through a list (of limits, for example).
    pub detail: u16,
    /// The cause on this machine, in words, which only the parent can find out.
    pub reason: Option<String>,
}

impl LaunchFailure {
    /// A step that the parent could not do, and the reason in words.
    pub fn new(stage: Stage, errno: i32, reason: String) -> LaunchFailure {
        LaunchFailure {
            stage,
            errno,
            detail: 0,
            reason: Some(reason),
        }
    }

    /// Whether there were no descriptors, processes or memory to be had: that passes, and is nothing
    /// that is wrong with the program.
    pub fn is_momentary(&self) -> bool {
        let errnos = [libc::EAGAIN, libc::EMFILE, libc::ENFILE, libc::ENOMEM];
        errnos.contains(&self.errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_passes_and_what_is_missing_does_not() {
        let failure = |errno| LaunchFailure {
            stage: Stage::Fork,
            errno,
            detail: 0,
            reason: None,
        };
        assert!(failure(libc::EMFILE).is_momentary());
        assert!(!failure(libc::ENOENT).is_momentary());
    }

    #[test]
    fn a_stage_survives_the_status_pipe() {
        for stage in Stage::ALL {
            assert_eq!(Stage::from_number(*stage as u8), Some(*stage));
        }
        assert_eq!(Stage::from_number(Stage::ALL.len() as u8), None);
    }
}
