//! The facts about this machine that the plan needs, looked up once and kept as plain data.

mod server_files;

use crate::config::{Config, Grantee, Resolve, Worker};
use crate::walk;
use nix::unistd::{Gid, Group, User};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use server_files::{OnThisMachine, ServerFiles};

/// The configuration of the system's daemon.
const OF_ROOT: &str = "/etc/listend/listend.yaml";

/// The configuration that is meant where nobody names one. For others than root it is the one that
/// the user's unit runs (`%E/listend/listend.yaml`), if there is one.
pub fn default_config() -> PathBuf {
    let is_root = nix::unistd::geteuid().is_root();
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    // XDG Base Directory Specification: a relative path is invalid, and to be ignored.
    let given = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let folder = given.or_else(|| Some(variable("HOME")?.join(".config")));
    let own = folder.map(|folder| folder.join("listend/listend.yaml"));
    let own = own.filter(|path| !is_root && path.symlink_metadata().is_ok());
    own.unwrap_or_else(|| PathBuf::from(OF_ROOT))
}

/// The facts that [`crate::plan::resolve`] works on. Tests fill it with users that do not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The users that the configuration names (or numbers), as far as they exist.
    pub users: BTreeMap<String, UserFacts>,
    /// The groups that the configuration names (or numbers), as far as they exist.
    pub groups: BTreeMap<String, u32>,
    /// Names to suggest for a user that does not exist.
    pub known_users: Vec<String>,
    /// Names to suggest for a group that does not exist.
    pub known_groups: Vec<String>,
    /// listend's own environment, as far as it is UTF-8.
    pub environment: Vec<(String, String)>,
    /// The contents of the environment files, or why they cannot be read.
    pub environment_files: BTreeMap<PathBuf, Result<String, Unread>>,
    /// Where directories really are that the workers with `resolve: at-reload` name, if that is elsewhere.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// `net.core.somaxconn`: the kernel cuts every backlog to it.
    pub somaxconn: u32,
    /// The effective user id of listend.
    pub uid: u32,
    /// The limits of execve(2); `None` where they are unknown.
    pub execve: Option<ExecveLimits>,
}

/// The limits of execve(2) ("Limits on size of arguments and environment").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecveLimits {
    /// The longest single string, with its NUL, in bytes.
    pub string: u64,
    /// The soft limit of the stack, a quarter of which all strings and the pointers to them may take.
    pub stack: u64,
}

impl ExecveLimits {
    /// The longest sum of all strings and the pointers to them, in bytes, under such a limit of the
    /// stack.
    pub fn total(stack: u64) -> u64 {
        // Whatever the stack's limit, never more than 3/4 of 8 MiB (Linux 4.13), nor less than 128 KiB.
        (stack / 4).clamp(128 << 10, 6 << 20)
    }

    fn of_this_machine() -> Option<ExecveLimits> {
        use nix::sys::resource::{Resource, getrlimit};
        use nix::unistd::{SysconfVar, sysconf};
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten()?;
        let (stack, _) = getrlimit(Resource::RLIMIT_STACK).ok()?;
        Some(ExecveLimits {
            string: u64::try_from(page).ok()? * 32,
            stack,
        })
    }
}

/// Why a file was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The errno of the failed call.
    pub errno: i32,
    /// The reason, if the path was refused because other users could change it.
    pub refused: Option<String>,
}

/// The facts about a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserFacts {
    /// The name; a number where there is no such user but a number was written.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The primary group.
    pub gid: Option<u32>,
    /// The groups that name it as a member (getgrouplist(3)). Those of a bare number are unknown, and
    /// there are none.
    pub groups: Vec<u32>,
    /// The home folder.
    pub home: String,
    /// The login shell.
    pub shell: String,
}

impl Facts {
    /// Looks up what this configuration needs, and nothing else.
    pub fn gather(config: &Config) -> Facts {
        let mut facts = Facts {
            environment: own_environment(),
            // The default since Linux 5.4.
            somaxconn: somaxconn().unwrap_or(4096),
            uid: nix::unistd::geteuid().as_raw(),
            execve: ExecveLimits::of_this_machine(),
            ..Facts::default()
        };
        for listener in config.every_listener() {
            for user in listener.owner.iter().chain(&listener.directory_owner) {
                facts.look_up_user(Some(&user.value));
            }
            for group in listener.group.iter().chain(&listener.directory_group) {
                facts.look_up_group(Some(&group.value));
            }
            for one in &listener.grant {
                match &one.value {
                    Grantee::User(name) => facts.look_up_user(Some(name)),
                    Grantee::Group(name) => facts.look_up_group(Some(name)),
                }
            }
        }
        for worker in &config.workers {
            facts.look_up_user(worker.user.as_ref().map(|user| user.value.as_str()));
            let groups = worker.supplementary_groups.iter().flatten();
            for group in worker.group.iter().chain(groups) {
                facts.look_up_group(Some(&group.value));
            }
            for file in &worker.environment_files {
                let path = &file.path.value;
                if !facts.environment_files.contains_key(path) {
                    facts.environment_files.insert(path.clone(), read(path));
                }
            }
        }
        let pinned = config.workers.iter();
        let pinned = pinned.filter(|worker| worker.resolve == Resolve::AtReload);
        for directory in pinned.flat_map(Worker::directories) {
            // Only its name is used, by the worker's own process. One that is not there is left as it is.
            if let Ok(real) = directory.canonicalize()
                && real != directory
            {
                facts.links.insert(directory, real);
            }
        }
        facts.look_for_suggestions(config);
        facts
    }

    fn look_up_user(&mut self, name: Option<&str>) {
        let Some(name) = name else { return };
        if self.users.contains_key(name) {
            return;
        }
        let by_name = User::from_name(name).ok().flatten();
        let number = id(name);
        let user = by_name.or_else(|| {
            let uid = nix::unistd::Uid::from_raw(number?);
            User::from_uid(uid).ok().flatten()
        });
        let facts = match (user, number) {
            (Some(user), _) => describe_user(&user),
            // A number without a name is a legal user: containers run that way.
            // Its group is the one of the same number, which is nobody else's by custom: to leave
            // listend's own would run the worker as group root.
            (None, Some(uid)) => UserFacts {
                name: name.to_owned(),
                uid,
                gid: Some(uid),
                home: "/".to_owned(),
                shell: "/bin/sh".to_owned(),
                ..UserFacts::default()
            },
            (None, None) => return,
        };
        self.users.insert(name.to_owned(), facts);
    }

    fn look_up_group(&mut self, name: Option<&str>) {
        let Some(name) = name else { return };
        if self.groups.contains_key(name) {
            return;
        }
        if let Some(gid) = group_id(name) {
            self.groups.insert(name.to_owned(), gid);
        }
    }

    /// The names of /etc/passwd and /etc/group, read only when something has to be suggested.
    fn look_for_suggestions(&mut self, config: &Config) {
        let users = config
            .every_listener()
            .flat_map(|listener| [&listener.owner, &listener.directory_owner])
            .filter_map(|owner| owner.as_deref())
            .chain(
                config
                    .workers
                    .iter()
                    .filter_map(|worker| worker.user.as_ref()),
            );
        let grants = config.every_listener().flat_map(|one| &one.grant);
        let (mut granted_users, mut granted_groups) = (Vec::new(), Vec::new());
        for one in grants {
            match &one.value {
                Grantee::User(name) => granted_users.push(name),
                Grantee::Group(name) => granted_groups.push(name),
            }
        }
        if users
            .map(|user| &user.value)
            .chain(granted_users)
            .any(|user| !self.users.contains_key(user))
        {
            self.known_users = first_fields(Path::new("/etc/passwd"));
        }
        let groups = config
            .every_listener()
            .flat_map(|listener| [&listener.group, &listener.directory_group])
            .filter_map(|group| group.as_deref())
            .chain(config.workers.iter().flat_map(|worker| {
                let more = worker.supplementary_groups.iter().flatten();
                worker.group.iter().chain(more)
            }));
        if groups
            .map(|group| &group.value)
            .chain(granted_groups)
            .any(|group| !self.groups.contains_key(group))
        {
            self.known_groups = first_fields(Path::new("/etc/group"));
        }
    }
}

/// No environment file is longer, in bytes: execve(2) takes less than that.
const LONGEST: u64 = 16 << 20;

/// A file that root reads for a worker. What its user can change is read with that user's rights, so
/// that no file of root's gets into its environment.
fn read(path: &Path) -> Result<String, Unread> {
    let mut file = walk::open_to_read(path).map_err(|refused| Unread {
        errno: refused.errno as i32,
        refused: refused.why.map(|_| refused.to_string()),
    })?;
    let mut text = String::new();
    let mut limited = (&mut file).take(LONGEST + 1);
    let read = limited.read_to_string(&mut text);
    if text.len() as u64 > LONGEST {
        return Err(Unread {
            errno: nix::libc::EFBIG,
            refused: None,
        });
    }
    read.map_err(|error| Unread {
        // A file that is not UTF-8 has no errno; EILSEQ says just that.
        errno: error.raw_os_error().unwrap_or(nix::libc::EILSEQ),
        refused: None,
    })?;
    Ok(text)
}

/// A group by its name or number; `None` if there is none.
pub fn group_id(name: &str) -> Option<u32> {
    let by_name = Group::from_name(name).ok().flatten();
    by_name.map_or_else(|| id(name), |group| Some(group.gid.as_raw()))
}

/// A number as a user or group. The highest is none: to setresuid(2), setresgid(2) and chown(2) it
/// means "leave it as it is", which for a listend of root's would be root.
fn id(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.filter(|number| *number != u32::MAX)
}

fn describe_user(user: &User) -> UserFacts {
    // The call puts the primary group in front of those that name the user as a member. It may be
    // among those as well: so it is told of one that is none, and that is taken away again.
    let none = Gid::from_raw(u32::MAX);
    let groups = CString::new(user.name.as_str());
    let groups = groups
        .ok()
        .and_then(|name| nix::unistd::getgrouplist(&name, none).ok())
        .unwrap_or_default();
    let groups = groups.into_iter().filter(|group| *group != none);
    UserFacts {
        name: user.name.clone(),
        uid: user.uid.as_raw(),
        gid: Some(user.gid.as_raw()),
        groups: groups.map(Gid::as_raw).collect(),
        home: user.dir.to_string_lossy().into_owned(),
        shell: user.shell.to_string_lossy().into_owned(),
    }
}

fn first_fields(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(':').next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn own_environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let pair = name.into_string().ok().zip(value.into_string().ok());
            if pair.is_none() {
                log::warn!(
                    "a variable of the environment is not UTF-8 and is not passed to workers"
                );
            }
            pair
        })
        .collect()
}

/// `net.core.somaxconn` of the network namespace that the process is in; `None` where /proc cannot be
/// read.
pub fn somaxconn() -> Option<u32> {
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?;
    text.trim().parse().ok()
}
