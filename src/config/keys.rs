//! Every key of the YAML, with one line about it and its default.
//!
//! One table per mapping: unknown keys are found by it, and the documentation is checked against
//! it. The decoder asks for each key of its table exactly once, and for no other.

use super::options::OPTIONS;

/// One key of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The name in the YAML.
    pub name: &'static str,
    /// The meaning, in one line.
    pub doc: &'static str,
    /// The default; empty if the key is required.
    pub default: &'static str,
}

const fn key(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key { name, doc, default }
}

/// One row for each key: its name, its default and its meaning.
macro_rules! keys {
    ($($name:ident = $default:literal, $doc:literal;)*) => {
        &[$(key(stringify!($name), $default, $doc),)*]
    };
}

/// The keys of a file.
pub const TOP: &[Key] = keys! {
    listeners = "none", "the sockets to bind, by name";
    workers = "none", "the programs that use them, by name";
    defaults = "none", "keys of every worker that does not have them";
    web = "not served", "where the page and the metrics are served: an address, or the keys of a listener";
    metrics = "not served", "where only the metrics are served, in place of `web`";
    silence = "none", "codes of advice to suppress";
};

/// The keys of a listener in its long form: these, and one for each socket option.
pub const LISTENER: &[Key] = &WITH_OPTIONS;

const OF_LISTENER: &[Key] = keys! {
    ipv6_only = "true", "whether `[ADDRESS]:PORT` accepts IPv6 only";
    address = "", "one address, or a list of them";
    backlog = "net.core.somaxconn", "the length of the accept queue, 1 to 2147483647";
    owner = "listend's own user", "the user that owns the unix path, FIFO or message queue";
    group = "listend's own group", "the group of the unix path, FIFO or message queue";
    mode = "0600", "the permission bits of the path, in octal";
    directory_mode = "0755", "the permission bits of created parent directories";
    directory_owner = "listend's own user",
        "the user, or `USER:GROUP`, that owns created parent directories";
    directory_group = "listend's own group", "the group of created parent directories";
    symlinks = "none", "symbolic links to create to the path";
    remove_on_stop = "true", "whether created files are removed on stop";
    writable = "false", "whether a special file is opened for writing, too";
    multicast = "none", "multicast groups to join";
    network_namespace = "listend's own", "the network namespace to bind in, a path";
    grant = "nobody", "who may take it with `listend take`: users, and groups as `group:NAME`";
    flows = "shared", "whether each flow of UDP stays with the generation of the worker that it was seen by: `sticky`";
    flow_key = "tuple", "what a flow is known by: `tuple` (addresses and ports) or `quic` (its connection id)";
    flow_timeout = "30s", "how long after its last packet a flow is over, at least 1s";
    connection_id_length = "8", "how many bytes the connection ids have that the QUIC server chooses, 1 to 20";
    max_flows = "65536", "how many flows are known at a time, 1024 to 16777216";
    optional = "false", "whether everything else starts without it";
    wait_for_address = "not at all", "how long to wait for a missing address without an error";
    silence = "none", "codes of advice to suppress about this listener";
};

/// The default of every socket option: it is not set.
const UNTOUCHED: &str = "the kernel's";

const WITH_OPTIONS: [Key; OF_LISTENER.len() + OPTIONS.len()] = {
    let mut all = [key("", "", ""); OF_LISTENER.len() + OPTIONS.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < OF_LISTENER.len() {
            OF_LISTENER[at]
        } else {
            let option = &OPTIONS[at - OF_LISTENER.len()];
            key(option.key, UNTOUCHED, option.doc)
        };
        at += 1;
    }
    all
};

/// The keys of a worker.
pub const WORKER: &[Key] = keys! {
    preset = "none", "the server that it runs, such as `gunicorn`: the defaults of other keys follow from it";
    command = "", "the program and its arguments; never run by a shell";
    argv0 = "the first word of the command", "the program's argv[0]";
    expand_environment = "false", "whether `$NAME` and `${NAME}` in commands are expanded";
    forward = "none",
        "the address of a server that cannot inherit a socket, or the keys of `forward`; connections are passed on to it";
    listeners = "none", "the listeners it uses, in the order of their descriptors";
    nonblocking = "what the handoff needs", "whether its sockets have O_NONBLOCK";
    ready = "started",
        "when it counts as ready: `started`, `notify`, `accepting`, `accepting first`, `fd N` or `einhorn`";
    start_timeout = "90s", "how long it may take to become ready; `infinity` is no limit";
    watchdog = "off", "the longest time between two keep-alives (`WATCHDOG=1`), at least 100ms";
    notify_access = "main", "which processes may send notifications: `main`, or `all` of its processes";
    fd_store = "0", "how many descriptors an instance may store for its successor, 0 to 1024";
    instances = "1", "how many processes, 1 to 10000, or how that follows the queues; not with `per-connection`";
    distribute = "shared",
        "how clients reach its instances: `shared`, or `shards`, a queue for each instance";
    handoff = "systemd",
        "how it gets its descriptors: `systemd`, `inetd`, `fd0`, `nginx`, `server-starter`, `einhorn`, `php-fpm`, `puma`, `none`, or a list";
    listen_pid = "true", "whether LISTEN_PID is set; `false` is for wrappers that start the program as a child";
    activation = "eager", "when it runs: `eager`, `on-demand` or `per-connection`";
    max_connections = "64", "how many connections are served at a time, or `none`";
    max_connections_per_source = "none", "how many connections of one address or user; more are closed";
    overflow = "wait", "what happens to clients beyond `max_connections`: `wait` or `close`";
    accept_rate = "150 in 2s", "how many connections are accepted in an interval, or `none`";
    trigger_limit = "20 in 2s", "how often clients may start it in an interval, or `none`";
    idle_timeout = "infinity", "how long no client may use an on-demand worker before it is stopped, at least 1s";
    idle_unless = "none", "what keeps it running without clients: `{path: FILE}`, while the file exists";
    connection_timeout = "infinity", "how long a connection's process may run before it is stopped";
    user = "listend's own user", "the user to run as";
    group = "the user's own group", "the group to run as";
    supplementary_groups = "the user's own groups", "additional groups; `[]` is none";
    working_directory = "listend's own directory", "the directory to run in";
    resolve = "at-start",
        "when symbolic links to its files are followed: `at-start`, or `at-reload`, so that a rollback goes back";
    runtime_directory = "none", "its own directory below /run or $XDG_RUNTIME_DIR, a relative path";
    runtime_directory_mode = "0755", "the permission bits of the runtime directory";
    runtime_directory_preserve = "false", "whether the runtime directory is kept when the worker stops";
    umask = "listend's own umask", "the file mode creation mask, in octal";
    environment = "none", "variables to set";
    environment_file = "none", "files of variables; a leading `-` allows a missing one";
    limits = "listend's own limits", "resource limits, each `SIZE`, `unlimited` or `SOFT:HARD`";
    nice = "listend's own niceness", "scheduling priority, -20 to 19";
    oom_score_adjust = "listend's own score", "-1000 (never killed) to 1000";
    ignore_sigpipe = "true", "whether SIGPIPE is ignored";
    sandbox = "none",
        "what it is kept from: a preset (`basic`, `strict`, `sealed`), or the keys of `sandbox`";
    output = "inherit",
        "where standard output and error go: `inherit`, `null`, `tag`, `tag-json`, `journal` or `file:/path`";
    before_start = "none", "a command to run before each start, which waits for it";
    after_ready = "none", "a command to run when an instance is ready";
    after_stop = "none", "a command to run when an instance has exited";
    reload_signal = "none", "the signal that makes it reload its own configuration";
    reload_command = "none", "the command that makes it reload its own configuration";
    watch = "none", "files and directories, for development: when one changes that git does not ignore, the worker is restarted";
    restart = "always", "a policy, or a mapping of policy, backoff, limit and more";
    rollout = "start-first, 1 at a time", "how a new generation replaces an old one";
    on_failure = "hold",
        "what happens to clients of a failed worker: `hold` keeps them waiting, `refuse` rejects them";
    stop_signal = "SIGTERM", "the signal that tells it to stop";
    kill_mode = "process",
        "which processes get it: `process` is the main process, `group` its process group";
    stop_timeout = "30s", "the time until SIGKILL; `infinity` is no limit";
    silence = "none", "codes of advice to suppress about this worker";
};

/// The keys of `forward:` in its long form.
pub const FORWARD: &[Key] = keys! {
    to = "", "the address of the server: `HOST:PORT`, `HOST:{port}` for a free port, or `unix:/path`";
    connect_timeout = "10s", "how long a client waits for a server that cannot be reached";
    idle = "infinity", "how long a connection may be silent in both directions";
    keep_alive = "off", "after how much silence TCP checks whether the other end still exists";
    proxy_protocol = "none", "how the server is told who the client is: `v1`, `v2` or `none`";
    drain = "5s", "how long connections may take to end before the server is told to stop";
};

/// The keys of `restart:` in its long form.
pub const RESTART: &[Key] = keys! {
    policy = "always", "`always`, `on-failure` or `never`";
    backoff = "100ms..30s", "the first and the longest delay before a restart";
    limit = "10 in 3m",
        "more crashes than this in the interval fail the instance; the default follows from `backoff`";
    cool_down = "1m", "how long after its failure an instance is restarted, or `never`";
    success_exit_status = "none", "exit statuses and signals that are not failures";
};

/// The keys of `sandbox:` in its long form.
pub const SANDBOX: &[Key] = keys! {
    preset = "none", "what the other keys begin with: `basic`, `strict` or `sealed`";
    no_new_privileges = "false",
        "whether no program gives it more rights (setuid); every other key but mounts implies it";
    capabilities = "listend's own", "the capabilities that are left in its bounding set; `[]` is none";
    private_network = "false", "whether it has no network but the sockets that it inherits";
    private_tmp = "false", "whether /tmp and /var/tmp are its own, and empty at each start";
    private_devices = "false", "whether /dev has no devices but `null`, `zero`, `random` and their like";
    private_ipc = "false", "whether shared memory, semaphores and message queues are its own";
    protect_processes = "false",
        "whether it can trace and signal no processes but its own, and not connect to their abstract sockets";
    protect_kernel_tunables = "false", "whether /sys and /proc/sys are read-only";
    protect_kernel_modules = "false", "whether it can load no kernel module";
    protect_kernel_logs = "false", "whether it can neither read nor write the log of the kernel";
    protect_clock = "false", "whether it can set no clock";
    protect_control_groups = "false", "whether /sys/fs/cgroup is read-only";
    protect_hostname = "false", "whether it cannot change the host name";
    restrict_namespaces = "false", "whether it can make and enter no namespaces";
    restrict_realtime = "false", "whether it gets no real-time priority";
    restrict_suid_sgid = "false", "whether it can make no setuid and setgid files";
    lock_personality = "false", "whether it cannot change its personality(2)";
    memory_deny_write_execute = "false",
        "whether no memory is both writable and executable; not for JIT compilers";
    best_effort = "false", "whether it starts without what this machine cannot enforce";
    protect_system = "false",
        "what is read-only: `true` is /usr and /boot, `full` is /etc too, `strict` is all but /dev, /proc, /sys";
    protect_home = "false",
        "whether /home, /root and /run/user are hidden (`true`), `read-only`, or empty (`tmpfs`)";
    protect_proc = "default",
        "the processes of others in /proc: `default`, `noaccess`, `invisible` or `ptraceable`";
    read_only_paths = "none", "paths that it cannot write to";
    read_write_paths = "none", "paths that it can use although they are in what is read-only or hidden";
    inaccessible_paths = "none", "paths that it can neither read nor enter";
    restrict_address_families = "any",
        "the kinds of sockets that it can make: `AF_INET` and the like, `inherited`, or `none`; `~` forbids one";
    system_calls = "all",
        "the system calls that it can use: names, and sets such as `@system-service`; `~` forbids one";
    memory_max = "none", "the memory of a process and all that it starts: a size, `50%` of the machine's, or `infinity`";
    tasks_max = "none", "how many processes and threads that may be: a number, a percentage, or `infinity`";
    cpu_quota = "none", "how much time of processors they get: `150%` is one and a half, or `infinity`";
    io_weight = "none", "their share of the disks, 1 to 10000; others have 100";
};

/// The keys of `rollout:`.
pub const ROLLOUT: &[Key] = keys! {
    order = "start-first", "`start-first`, or `stop-first` for programs that cannot run twice";
    parallel = "1", "how many instances are replaced at a time, 1 to 10000";
    min_ready = "2s", "how long a new instance must stay ready before the rollout continues";
    watch = "30s", "how long after that a crash of a new instance still fails the rollout";
};

/// The keys of `instances:` where the number follows the queues.
pub const INSTANCES: &[Key] = keys! {
    min = "1", "the least number of instances, 1 to 10000";
    max = "", "the largest";
    scale_up_at = "10", "with more clients than that waiting, an instance is added";
};

/// The keys of `idle_unless:`.
pub const IDLE_UNLESS: &[Key] = keys! {
    path = "", "an absolute path; while it exists, the worker is not stopped";
};

/// The keys of `before_start:`, `after_ready:`, `after_stop:` and `reload_command:` in their long
/// form.
pub const HOOK: &[Key] = keys! {
    command = "", "the program and its arguments; never run by a shell";
    timeout = "30s", "how long it may take before it is killed";
};

/// Keys that are easily written in a worker but belong in one of its mappings, and which.
const BELOW: &[(&str, &str)] = &[
    ("backoff", "restart"),
    ("cool_down", "restart"),
    ("policy", "restart"),
    ("success_exit_status", "restart"),
    ("capabilities", "sandbox"),
    ("cpu_quota", "sandbox"),
    ("inaccessible_paths", "sandbox"),
    ("io_weight", "sandbox"),
    ("memory_max", "sandbox"),
    ("no_new_privileges", "sandbox"),
    ("private_devices", "sandbox"),
    ("private_network", "sandbox"),
    ("private_tmp", "sandbox"),
    ("protect_home", "sandbox"),
    ("protect_system", "sandbox"),
    ("read_only_paths", "sandbox"),
    ("read_write_paths", "sandbox"),
    ("restrict_address_families", "sandbox"),
    ("system_calls", "sandbox"),
    ("tasks_max", "sandbox"),
    ("min_ready", "rollout"),
    ("order", "rollout"),
    ("parallel", "rollout"),
    ("watch", "rollout"),
];

/// Keys that other programs have in their place, and what to write here.
const FOREIGN: &[(&[Key], &[&str], &str)] = &[
    (
        TOP,
        &["services", "programs", "apps", "watchers", "processes"],
        "did you mean `workers`?",
    ),
    (
        TOP,
        &["sockets", "ports", "listen", "endpoints"],
        "did you mean `listeners`?",
    ),
    (
        TOP,
        &["unit", "socket", "service", "install"],
        "declare `listeners` and `workers`; `listend import FILE` translates units of systemd",
    ),
    (
        TOP,
        &["version", "networks", "volumes", "secrets", "configs"],
        "delete it; `listend import FILE` translates a whole file of docker compose",
    ),
    (
        TOP,
        &["include", "includes", "imports"],
        "delete it: files in the directory `conf.d` beside this one are read as well",
    ),
    (
        TOP,
        &["http", "server", "servers", "upstream", "upstreams"],
        "listend reads no requests: write the addresses below `listeners`, and the program that serves \
         them below `workers`",
    ),
    (
        LISTENER,
        &[
            "host",
            "port",
            "ports",
            "listen",
            "bind",
            "path",
            "addresses",
            "listen_stream",
        ],
        "write `address: HOST:PORT` or `address: unix:/path`",
    ),
    (
        LISTENER,
        &["listen_datagram"],
        "write `address: udp://HOST:PORT` or `address: unix-dgram:/path`",
    ),
    (
        LISTENER,
        &["socket_mode", "permissions"],
        "did you mean `mode`?",
    ),
    (LISTENER, &["socket_user"], "did you mean `owner`?"),
    (LISTENER, &["socket_group"], "did you mean `group`?"),
    (
        LISTENER,
        &[
            "ssl",
            "tls",
            "http2",
            "certificate",
            "default_server",
            "server_name",
        ],
        "delete it: listend reads nothing from a connection; the worker does that",
    ),
    (
        LISTENER,
        &["type", "protocol", "proto", "family", "scheme"],
        "write it before the address: `udp://HOST:PORT`, `unix-dgram:/path`",
    ),
    (
        LISTENER,
        &["worker", "workers", "service", "program"],
        "a worker names its listeners: write `listeners: [NAME]` in the worker",
    ),
    (LISTENER, &["user"], "did you mean `owner`?"),
    (
        WORKER,
        &[
            "replicas",
            "scale",
            "numprocs",
            "numprocesses",
            "processes",
            "count",
        ],
        "did you mean `instances`?",
    ),
    (
        WORKER,
        &[
            "port",
            "ports",
            "listen",
            "bind",
            "socket",
            "sockets",
            "address",
            "expose",
            "use_sockets",
            "listen_stream",
        ],
        "declare it below `listeners` at the top of the file, and write `listeners: [NAME]` here",
    ),
    (
        WORKER,
        &[
            "depends_on",
            "after",
            "before",
            "requires",
            "wants",
            "links",
            "priority",
        ],
        "delete it: workers are not ordered, because their listeners are there before them",
    ),
    (
        WORKER,
        &[
            "cmd",
            "exec",
            "exec_start",
            "run",
            "program",
            "script",
            "entrypoint",
            "args",
        ],
        "did you mean `command`?",
    ),
    (WORKER, &["exec_start_pre"], "did you mean `before_start`?"),
    (WORKER, &["exec_start_post"], "did you mean `after_ready`?"),
    (WORKER, &["exec_stop_post"], "did you mean `after_stop`?"),
    (WORKER, &["exec_reload"], "did you mean `reload_command`?"),
    (
        WORKER,
        &["proxy_pass", "proxy", "upstream", "backend"],
        "did you mean `forward`?",
    ),
    (
        WORKER,
        &["env", "environ", "variables", "vars"],
        "did you mean `environment`?",
    ),
    (
        WORKER,
        &["env_file", "envfile"],
        "did you mean `environment_file`?",
    ),
    (
        WORKER,
        &["cwd", "chdir", "directory", "working_dir", "workdir"],
        "did you mean `working_directory`?",
    ),
    (WORKER, &["uid", "run_as", "setuid"], "did you mean `user`?"),
    (WORKER, &["gid", "setgid"], "did you mean `group`?"),
    (
        WORKER,
        &[
            "stop_grace_period",
            "graceful_timeout",
            "kill_timeout",
            "stopwaitsecs",
            "timeout_stop_sec",
        ],
        "did you mean `stop_timeout`?",
    ),
    (
        WORKER,
        &["kill_signal", "stopsignal"],
        "did you mean `stop_signal`?",
    ),
    (
        WORKER,
        &["timeout_start_sec"],
        "did you mean `start_timeout`?",
    ),
    (WORKER, &["watchdog_sec"], "did you mean `watchdog`?"),
    (
        WORKER,
        &["accept"],
        "`activation: per-connection` is what `Accept=yes` is in systemd.socket(5)",
    ),
    (
        WORKER,
        &["autostart"],
        "delete it: a worker is started at once, or with `activation: on-demand` by its first client",
    ),
    (
        WORKER,
        &["startsecs", "min_uptime"],
        "see `ready` and `min_ready` of `rollout` in listend.yaml(5)",
    ),
    (
        WORKER,
        &[
            "startretries",
            "start_limit_burst",
            "start_limit_interval_sec",
        ],
        "write `restart: { limit: 5 in 60s }`",
    ),
    (
        WORKER,
        &["restart_sec", "restart_delay"],
        "write `restart: { backoff: 1s..30s }`",
    ),
    (
        WORKER,
        &["redirect_stderr"],
        "delete it: `output` takes standard error as well",
    ),
    (
        WORKER,
        &["init", "tini"],
        "delete it: listend reaps orphans itself",
    ),
    (
        WORKER,
        &["deploy"],
        "write its `replicas` as `instances: N`, and its limits below `sandbox`",
    ),
    (
        WORKER,
        &[
            "cap_add",
            "cap_drop",
            "ambient_capabilities",
            "capability_bounding_set",
        ],
        "delete it: a worker needs no privilege for a port that listend binds; `capabilities` of `sandbox` \
         says what it keeps",
    ),
    (
        WORKER,
        &[
            "stdout",
            "stderr",
            "log",
            "logs",
            "logfile",
            "stdout_logfile",
            "out_file",
            "standard_output",
            "standard_error",
            "logging",
        ],
        "did you mean `output`?",
    ),
    (
        WORKER,
        &["autorestart", "respawn", "max_restarts", "restart_policy"],
        "did you mean `restart`?",
    ),
    (WORKER, &["ulimits", "rlimits"], "did you mean `limits`?"),
    (
        WORKER,
        &[
            "memory",
            "mem_limit",
            "memory_limit",
            "cpus",
            "pids_limit",
            "resources",
        ],
        "see `memory_max`, `tasks_max` and `cpu_quota` of `sandbox` in listend.yaml(5)",
    ),
    (
        WORKER,
        &["type"],
        "`ready: notify` is what `Type=notify` is in systemd.service(5)",
    ),
    (
        WORKER,
        &[
            "healthcheck",
            "health_check",
            "probe",
            "liveness",
            "readiness",
        ],
        "see `ready` and `watchdog` in listend.yaml(5)",
    ),
    (
        SANDBOX,
        &["capability_bounding_set"],
        "did you mean `capabilities`?",
    ),
    (
        SANDBOX,
        &["system_call_filter", "seccomp"],
        "did you mean `system_calls`?",
    ),
    (
        WORKER,
        &["image", "build", "volumes", "networks", "container_name"],
        "delete it: listend runs programs of this machine, without containers",
    ),
];

/// What to write for a key that `table` does not have, if it belongs elsewhere or is another program's.
///
/// `ExecStart` and `exec-start` are `exec_start`.
pub(super) fn hint(table: &[Key], name: &str) -> Option<String> {
    let is = |other: &[Key]| table == other;
    let of = |other: &'static [Key]| other.iter().map(|key| key.name).find(|key| same(key, name));
    if let Some(key) = table.iter().find(|key| same(key.name, name)) {
        return Some(format!("did you mean `{}`?", key.name));
    }
    if let Some((key, home)) = one_level_below(table, name) {
        return Some(if key == name {
            format!("write it inside `{home}:`")
        } else {
            format!("write `{key}` inside `{home}:`")
        });
    }
    let foreign = FOREIGN
        .iter()
        .find(|(of, names, _)| is(of) && names.iter().any(|other| same(other, name)));
    if let Some((.., hint)) = foreign {
        return Some((*hint).to_owned());
    }
    let (key, owner) = match () {
        () if is(LISTENER) => (of(WORKER)?, "worker"),
        () if is(WORKER) => (of(LISTENER)?, "listener"),
        () => return None,
    };
    Some(if key == name {
        format!("it is a key of a {owner}")
    } else {
        format!("`{key}` is a key of a {owner}")
    })
}

/// Whether two keys are the same but for capitals and what separates their words.
fn same(one: &str, other: &str) -> bool {
    fn letters(name: &str) -> impl Iterator<Item = char> {
        let letters = name.chars().filter(|c| !matches!(c, '_' | '-'));
        letters.map(|c| c.to_ascii_lowercase())
    }
    letters(one).eq(letters(other))
}

/// The keys that `table` does not have, but belong elsewhere or are another program's, with what to write.
pub(super) fn foreign(table: &'static [Key]) -> impl Iterator<Item = (&'static str, String)> {
    let of_others = FOREIGN.iter().flat_map(|(_, names, _)| *names).copied();
    let below = BELOW.iter().map(|(name, _)| *name);
    let of_ours = [LISTENER, WORKER].into_iter().flatten().map(|key| key.name);
    let all = of_others.chain(below).chain(of_ours);
    let missing = all.filter(|name| !table.iter().any(|key| key.name == *name));
    missing.filter_map(|name| Some((name, hint(table, name)?)))
}

/// The key that was written one level above its place as `name`, and the key of `table` in whose mapping it
/// belongs.
fn one_level_below(table: &[Key], name: &str) -> Option<(&'static str, &'static str)> {
    let (key, home) = BELOW.iter().find(|(key, _)| same(key, name))?;
    let has_it = table.iter().any(|key| key.name == *home);
    has_it.then_some((*key, *home))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_program_is_not_one_of_ours() {
        for (table, names, hint) in FOREIGN {
            for name in *names {
                assert!(!table.iter().any(|key| key.name == *name), "{name}");
            }
            let meant = hint
                .strip_prefix("did you mean `")
                .and_then(|rest| rest.strip_suffix("`?"));
            if let Some(meant) = meant {
                assert!(table.iter().any(|key| key.name == meant), "{meant}");
            }
        }
        let hint_for = |table, name| hint(table, name).unwrap_or_default();
        assert_eq!(hint_for(WORKER, "replicas"), "did you mean `instances`?");
        assert_eq!(
            hint_for(LISTENER, "max_connections"),
            "it is a key of a worker"
        );
        assert_eq!(hint_for(WORKER, "backlog"), "it is a key of a listener");
        assert_eq!(hint_for(WORKER, "cool_down"), "write it inside `restart:`");
    }

    // A key of systemd was taken for the nearest of ours: `ExecStart` for `restart`.
    #[test]
    fn capitals_and_dashes_do_not_hide_what_a_key_means() {
        for (table, name, hint) in [
            (WORKER, "ExecStart", "did you mean `command`?"),
            (WORKER, "exec-start", "did you mean `command`?"),
            (WORKER, "KillSignal", "did you mean `stop_signal`?"),
            (
                WORKER,
                "WorkingDirectory",
                "did you mean `working_directory`?",
            ),
            (
                WORKER,
                "healthCheck",
                "see `ready` and `watchdog` in listend.yaml(5)",
            ),
            (WORKER, "MemoryMax", "write `memory_max` inside `sandbox:`"),
            (WORKER, "Backlog", "`backlog` is a key of a listener"),
            (LISTENER, "SocketMode", "did you mean `mode`?"),
            (LISTENER, "FreeBind", "did you mean `free_bind`?"),
            (SANDBOX, "SystemCallFilter", "did you mean `system_calls`?"),
        ] {
            assert_eq!(super::hint(table, name).as_deref(), Some(hint), "{name}");
        }
        assert_eq!(super::hint(WORKER, "colour"), None);
    }
}
