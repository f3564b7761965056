//! What the assignments of a service unit (systemd.exec(5), systemd.service(5), systemd.kill(5)) mean here.

use super::sandbox;

/// What an assignment becomes.
pub(super) enum Meaning {
    /// The key with the same value.
    Same(&'static str),
    /// The key with `true` or `false`.
    Flag(&'static str),
    /// The key with permission bits.
    Mode(&'static str),
    /// The key with a list of words, which several assignments add to.
    Words(&'static str),
    /// The key with a duration.
    Span(&'static str),
    /// An entry of `limits`.
    Limit(&'static str),
    /// Something that needs code of its own.
    Special,
    /// It is read with another assignment.
    Elsewhere,
    /// Nothing, for this reason.
    No(&'static str),
}

const SANDBOX: &str =
    "`sandbox` has no such key; the unit of listend can have it, for all workers together";
const RESOURCES: &str =
    "the control groups of workers have no such setting; the unit of listend can have it";
const FOLDERS: &str = "create the directory before, such as with tmpfiles.d(5)";
const KEYRING: &str = "each worker has a session keyring of its own";
const SHELL: &str = "the signal is what stops it: see `stop_signal`";
const NOT_HERE: &str = "there is no such setting of a worker";

pub(super) fn meaning(key: &str) -> Meaning {
    use Meaning::{Elsewhere, Flag, Limit, Mode, No, Same, Span, Special, Words};
    match key {
        "User" => Same("user"),
        "Group" => Same("group"),
        "SupplementaryGroups" => Words("supplementary_groups"),
        "EnvironmentFile" => Words("environment_file"),
        "UMask" => Mode("umask"),
        "Nice" => Same("nice"),
        "OOMScoreAdjust" => Same("oom_score_adjust"),
        "IgnoreSIGPIPE" => Flag("ignore_sigpipe"),
        "NonBlocking" => Flag("nonblocking"),
        "RuntimeDirectoryMode" => Mode("runtime_directory_mode"),
        "FileDescriptorStoreMax" => Same("fd_store"),
        "KillSignal" => Same("stop_signal"),
        "TimeoutStartSec" => Span("start_timeout"),
        "TimeoutStopSec" => Span("stop_timeout"),
        "RootDirectory" => No(SANDBOX),
        "LimitAS" => Limit("as"),
        "LimitCORE" => Limit("core"),
        "LimitDATA" => Limit("data"),
        "LimitFSIZE" => Limit("fsize"),
        "LimitLOCKS" => Limit("locks"),
        "LimitMEMLOCK" => Limit("memlock"),
        "LimitMSGQUEUE" => Limit("msgqueue"),
        "LimitNOFILE" => Limit("nofile"),
        "LimitNPROC" => Limit("nproc"),
        "LimitRSS" => Limit("rss"),
        "LimitRTPRIO" => Limit("rtprio"),
        "LimitSIGPENDING" => Limit("sigpending"),
        "LimitSTACK" => Limit("stack"),
        "LimitCPU" => Limit("cpu"),
        "LimitRTTIME" => Limit("rttime"),
        "LimitNICE" => Limit("nice"),
        "SyslogIdentifier" | "SyslogFacility" | "SyslogLevel" | "SyslogLevelPrefix" => {
            No("lines have the name of the worker: see `output`")
        }
        "Type"
        | "NotifyAccess"
        | "TimeoutSec"
        | "WatchdogSec"
        | "RuntimeMaxSec"
        | "KillMode"
        | "SendSIGHUP"
        | "SendSIGKILL"
        | "StandardInput"
        | "Environment"
        | "WorkingDirectory"
        | "RuntimeDirectory"
        | "RuntimeDirectoryPreserve"
        | "SuccessExitStatus"
        | "ExecStartPre"
        | "ExecStartPost"
        | "ExecStopPost" => Special,
        "ExecStart"
        | "ExecReload"
        | "Restart"
        | "RestartSec"
        | "RestartMaxDelaySec"
        | "StandardOutput"
        | "StandardError"
        | "Sockets"
        | "StartLimitBurst"
        | "StartLimitInterval"
        | "StartLimitIntervalSec" => Elsewhere,
        "ExecStop" => No(SHELL),
        "ExecCondition" => No("listend starts what is in its configuration"),
        "KeyringMode" => No(KEYRING),
        "StateDirectory"
        | "CacheDirectory"
        | "LogsDirectory"
        | "ConfigurationDirectory"
        | "StateDirectoryMode"
        | "CacheDirectoryMode"
        | "LogsDirectoryMode"
        | "ConfigurationDirectoryMode" => No(FOLDERS),
        "PIDFile" => No("the program has to stay in the foreground"),
        "BusName" => No("listend does not wait for a name on D-Bus"),
        "RemainAfterExit" => No("a worker is what runs"),
        "GuessMainPID" => No("the main process is the one that was started"),
        "PassEnvironment" => No("a worker has the environment of listend"),
        "UnsetEnvironment" => No("set the variable to an empty value"),
        "AmbientCapabilities" => {
            No("a worker needs no capability for a port that listend has bound")
        }
        "RestartPreventExitStatus" | "RestartForceExitStatus" => {
            No("see `success_exit_status` of `restart`")
        }
        "RestartSteps" => No("`backoff` doubles from its first to its longest delay"),
        "RestartKillSignal" | "FinalKillSignal" | "WatchdogSignal" => {
            No("only `stop_signal` and SIGKILL are sent")
        }
        "Slice"
        | "Delegate"
        | "CPUWeight"
        | "CPUShares"
        | "MemoryHigh"
        | "MemoryLow"
        | "MemoryMin"
        | "MemorySwapMax"
        | "BlockIOWeight"
        | "IPAddressDeny"
        | "IPAddressAllow"
        | "DeviceAllow"
        | "DevicePolicy"
        | "CPUAccounting"
        | "MemoryAccounting"
        | "TasksAccounting"
        | "IOAccounting"
        | "IPAccounting"
        | "ManagedOOMSwap"
        | "ManagedOOMMemoryPressure"
        | "OOMPolicy"
        | "AllowedCPUs" => No(RESOURCES),
        key if sandbox::is_key(key) => Elsewhere,
        key if is_sandbox(key) => No(SANDBOX),
        _ => No(NOT_HERE),
    }
}

fn is_sandbox(key: &str) -> bool {
    let starts = [
        "Protect",
        "Private",
        "Restrict",
        "SystemCall",
        "ReadOnly",
        "ReadWrite",
        "Inaccessible",
        "Bind",
        "Capability",
        "NoNewPrivileges",
        "Lock",
        "MemoryDeny",
        "Remove",
        "DynamicUser",
        "Proc",
        "Root",
        "NoExec",
        "Exec",
        "TemporaryFile",
        "Secure",
        "Mount",
        "SELinux",
        "AppArmor",
        "Smack",
        "PAMName",
        "NetworkNamespace",
        "IPCNamespace",
        "LoadCredential",
        "SetCredential",
        "ImportCredential",
        "UtmpIdentifier",
        "Personality",
    ];
    starts.iter().any(|start| key.starts_with(start))
}
