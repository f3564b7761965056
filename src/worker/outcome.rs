//! A failed launch in words: what failed, and why on this machine.
//!
//! The child reports a stage and an errno; the parent, which may allocate and look around, finds
//! out what they mean.

use super::program;
use crate::launch_spec::{Credentials, Limit, Resource};
use crate::plan::WorkerPlan;
use crate::report::{describe, readable};
use crate::stage::{LaunchFailure, Stage};
use crate::sys::{Prepared, Stdio};
use nix::libc;
use nix::sys::resource::getrlimit;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The explanation that follows "failed while {phrase of the stage}: ", in lower case without a full
/// stop.
pub fn explain(failure: &LaunchFailure, worker: &WorkerPlan, prepared: &Prepared) -> String {
    let user = Identity::of(worker.launch.credentials.as_ref());
    let program = Path::new(std::ffi::OsStr::from_bytes(
        prepared.common.program.as_bytes(),
    ));
    let folder = prepared.common.spec.working_directory.as_ref();
    let folder = folder.map_or(PathBuf::from("."), |folder| {
        PathBuf::from(std::ffi::OsStr::from_bytes(folder.as_bytes()))
    });
    let reason = match failure.stage {
        Stage::Exec | Stage::WorkingDirectory => reason_of_path(
            failure,
            program,
            &folder,
            &user,
            &prepared.common.spec.limits,
        ),
        Stage::Output => {
            let target = match &prepared.common.output {
                Stdio::File { path, .. } => path.display().to_string(),
                // What is a descriptor already was opened before.
                Stdio::Inherit | Stdio::Null | Stdio::Descriptor(_) => "/dev/null".to_owned(),
            };
            format!("cannot open {target}: {}", describe(failure.errno))
        }
        Stage::Limits => limit_reason(failure, prepared),
        Stage::User | Stage::Group | Stage::Groups => user_reason(failure.errno, &user),
        Stage::OomScore if matches!(failure.errno, libc::EACCES | libc::EPERM) => format!(
            "{}: lowering it needs CAP_SYS_RESOURCE, which listend does not have",
            describe(failure.errno)
        ),
        Stage::Nice if matches!(failure.errno, libc::EACCES | libc::EPERM) => format!(
            "{}: a value below the current one needs CAP_SYS_NICE, which listend does not have",
            describe(failure.errno)
        ),
        _ => describe(failure.errno),
    };
    readable(reason)
}

/// As [`explain`], in the process that sets up a sandbox, for the steps that it has in common with an ordinary
/// launch: what it sees of the file system is what the program would have seen.
pub fn explain_inside(
    failure: &LaunchFailure,
    credentials: Option<&Credentials>,
    program: &Path,
    folder: Option<&Path>,
) -> String {
    let user = Identity::of(credentials);
    let folder = folder.unwrap_or(Path::new("."));
    let reason = match failure.stage {
        Stage::Exec | Stage::WorkingDirectory => {
            reason_of_path(failure, program, folder, &user, &[])
        }
        Stage::User | Stage::Group | Stage::Groups => user_reason(failure.errno, &user),
        _ => describe(failure.errno),
    };
    readable(reason)
}

fn reason_of_path(
    failure: &LaunchFailure,
    program: &Path,
    folder: &Path,
    user: &Identity,
    limits: &[Limit],
) -> String {
    let errno = failure.errno;
    // A relative path starts where the worker runs, not where listend does.
    let from = std::env::current_dir().map_or(folder.to_owned(), |own| own.join(folder));
    let from: PathBuf = from.components().collect();
    match failure.stage {
        Stage::Exec => format!(
            "{}{}: {}",
            program.display(),
            match program.is_absolute() {
                true => String::new(),
                false => format!(" in {}", from.display()),
            },
            match errno {
                // execve(2): "EAGAIN … RLIMIT_NPROC", which is not looked at before.
                libc::EAGAIN => process_limit_reason(limits, user),
                errno => exec_reason(&from.join(program), errno, user),
            }
        ),
        _ => format!(
            "{}: {}",
            folder.display(),
            access_reason(folder, errno, user)
        ),
    }
}

fn user_reason(errno: i32, user: &Identity) -> String {
    match errno {
        libc::EPERM => format!(
            "{}: listend runs as uid {} and may not become {}; start it as root, or leave out \
             `user`, `group` and `supplementary_groups`",
            describe(errno),
            nix::unistd::geteuid(),
            user.name
        ),
        _ => describe(errno),
    }
}

/// The reason of a failure; of one that an earlier listend has written down without it, the errno.
pub fn reason(failure: &LaunchFailure) -> String {
    let reason = failure.reason.clone();
    reason.unwrap_or_else(|| describe(failure.errno))
}

/// As [`explain`], for a child that could not be created at all: a worker, or a copy of listend.
pub fn explain_fork(error: &io::Error) -> String {
    let Some(errno) = error.raw_os_error() else {
        return error.to_string();
    };
    let words = describe(errno);
    match errno {
        libc::EAGAIN => {
            format!("{words}: a limit on processes is reached (ulimit -u, TasksMax=, pids.max)")
        }
        libc::EMFILE => {
            format!("{words}: listend's limit on open files is reached (ulimit -n, LimitNOFILE=)")
        }
        _ => words,
    }
}

fn limit_reason(failure: &LaunchFailure, prepared: &Prepared) -> String {
    let limit = prepared.common.spec.limits.get(usize::from(failure.detail));
    let key = limit.map_or("?", |limit| limit.resource.key());
    let why = describe(failure.errno);
    if failure.errno == libc::EPERM {
        return format!(
            "`{key}`: {why}; a hard limit can be raised only with CAP_SYS_RESOURCE, and `nofile` \
             not above fs.nr_open"
        );
    }
    format!("`{key}`: {why}")
}

/// A user with too many processes, for the limit on them.
fn process_limit_reason(limits: &[Limit], user: &Identity) -> String {
    let is_nproc = |limit: &&Limit| limit.resource == Resource::Nproc;
    let soft = match limits.iter().find(is_nproc) {
        Some(own) => own.soft,
        None => getrlimit(nix::sys::resource::Resource::RLIMIT_NPROC)
            .map_or(None, |(soft, _)| Some(soft)),
    };
    let soft = soft.map_or(String::new(), |soft| format!(" of {soft}"));
    format!(
        "{}: {} has more processes than the limit{soft} on them allows (RLIMIT_NPROC), all that run \
         as that user included; raise `nproc` under `limits`, or LimitNPROC= of listend's unit",
        describe(libc::EAGAIN),
        user.name
    )
}

/// The user and groups of the worker, as far as access to files goes.
struct Identity {
    name: String,
    uid: u32,
    gids: Vec<u32>,
}

impl Identity {
    fn of(credentials: Option<&Credentials>) -> Identity {
        let mut uid = nix::unistd::geteuid().as_raw();
        let mut gids = vec![nix::unistd::getegid().as_raw()];
        let mut name = format!("uid {uid}");
        if let Some(credentials) = credentials {
            uid = credentials.uid.unwrap_or(uid);
            gids = credentials.gid.into_iter().chain(gids).take(1).collect();
            gids.extend(credentials.groups.iter().flatten());
            name = format!("user {}", credentials.user);
        }
        Identity { name, uid, gids }
    }

    /// Whether the permission bits give `bit` (4 read, 2 write, 1 execute) to this identity.
    /// Access control lists and security modules are not seen here.
    fn may(&self, metadata: &Metadata, bit: u32) -> bool {
        let mode = metadata.mode();
        if self.uid == 0 {
            return bit != 1 || metadata.is_dir() || mode & 0o111 != 0;
        }
        let shift = if metadata.uid() == self.uid {
            6
        } else if self.gids.contains(&metadata.gid()) {
            3
        } else {
            0
        };
        mode >> shift & bit != 0
    }
}

fn exec_reason(program: &Path, errno: i32, user: &Identity) -> String {
    match errno {
        libc::ENOENT if program.exists() => missing_interpreter(program),
        libc::ENOEXEC => format!(
            "{} ({})",
            program::NO_PROGRAM,
            crate::report::errno_name(errno)
        ),
        libc::E2BIG => "the command and its environment are too long (E2BIG)".to_owned(),
        libc::ETXTBSY => "it is open for writing, being replaced? (ETXTBSY)".to_owned(),
        libc::ELIBBAD => "its dynamic loader is damaged (ELIBBAD)".to_owned(),
        // execve(2): "EACCES The file or a script interpreter is not a regular file".
        libc::EACCES if fs::metadata(program).is_ok_and(|metadata| !metadata.is_file()) => {
            format!("{}: it is not a regular file", describe(errno))
        }
        _ => access_reason(program, errno, user),
    }
}

/// The program is there, but execve(2) says ENOENT: what it needs to run is not.
fn missing_interpreter(program: &Path) -> String {
    let reason = match program::interpreter(program) {
        Some(name) => program::no_interpreter(&name),
        None => "its dynamic loader does not exist on this machine; it was built for another \
                 system or C library"
            .to_owned(),
    };
    format!("{reason} (ENOENT)")
}

/// The part of the path that is the obstacle, for ENOENT, EACCES and ENOTDIR.
fn access_reason(path: &Path, errno: i32, user: &Identity) -> String {
    let words = describe(errno);
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.retain(|folder| !folder.as_os_str().is_empty());
    folders.reverse();
    for folder in folders {
        let Ok(metadata) = fs::metadata(folder) else {
            return format!("{words}: there is no {}", folder.display());
        };
        if !metadata.is_dir() {
            return format!("{words}: {} is not a directory", folder.display());
        }
        if errno == libc::EACCES && !user.may(&metadata, 1) {
            return format!(
                "{words}: {} may not enter {} (mode {:04o}, owner uid {})",
                user.name,
                folder.display(),
                metadata.mode() & 0o7777,
                metadata.uid()
            );
        }
    }
    match fs::metadata(path) {
        Err(_) => words,
        Ok(metadata) if errno == libc::EACCES && !user.may(&metadata, 1) => format!(
            "{words}: {} has no execute permission on it (mode {:04o}, owner uid {})",
            user.name,
            metadata.mode() & 0o7777,
            metadata.uid()
        ),
        Ok(metadata) if errno == libc::EACCES => {
            // Of a folder nothing is executed, and for a file that is no program it would be ENOEXEC.
            let reason = metadata.is_file().then(|| program::obstacle(path));
            let reason = reason.flatten().filter(|why| why != program::NO_PROGRAM);
            match (reason, program::interpreter(path)) {
                (Some(reason), _) => format!("{words}: {reason}"),
                (None, Some(name)) => {
                    format!("{words}: perhaps of its interpreter `{}`", name.display())
                }
                (None, None) => {
                    format!("{words}: perhaps a security module (AppArmor, SELinux) forbids it")
                }
            }
        }
        Ok(_) => words,
    }
}
