//! A failed bind as a [`Problem`]: what, why on this machine, and what to do.

use super::address_text::address_text;
use super::find::{Finding, find, find_file, find_others, find_socket};
use super::machine::Machine;
use super::reach::{Audience, audience};
use super::{kernel, kind_causes, option_causes, orphans, release, unix_causes};
use crate::config::{Endpoint, SocketKind, UnixName};
use crate::listener::{BindError, BindStep, OTHER_LIMITS, Obstacle, reuses_port};
use crate::plan::{ListenerId, ListenerPlan, Plan};
use crate::report::{Kind, Place, Problem, describe};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Addresses beyond these are counted, not listed.
const ADDRESSES_SHOWN: usize = 8;

/// Turns a failure into a problem, with its cause on this machine and what to do about it.
pub fn explain(error: &BindError, plan: &Plan, machine: &Machine) -> Problem {
    explained(error, plan, machine, own_pid()).0
}

/// The problem of a failed bind, without a look at this machine.
pub fn unexplained(error: &BindError, plan: &Plan) -> Problem {
    let listener = plan.listener(error.listener);
    let socket = &listener.sockets[error.socket];
    let endpoint = &socket.endpoint;
    let kind = match error.obstacle {
        Some(Obstacle::LiveServer { .. }) => Kind::LiveSocket,
        Some(Obstacle::NotASocket(_)) => Kind::NotASocket,
        Some(Obstacle::Unprobed | Obstacle::Interference | Obstacle::OtherHands(_)) | None => {
            Kind::Errno(error.errno)
        }
    };
    Problem::new(kind, message(error, &listener.name, endpoint))
        .at(place(error, listener).unwrap_or(socket.place))
        .of_listener(&listener.name)
        .with_address(endpoint.to_string())
}

/// As [`explain`], for what the listend with this pid has tried to bind.
pub fn explain_for_daemon(
    error: &BindError,
    plan: &Plan,
    machine: &Machine,
    daemon: i32,
) -> Problem {
    explained(error, plan, machine, daemon).0
}

/// As [`explain`], for `check`: an address held by the listend that runs this very configuration is no
/// error but advice ([`Kind::HeldByListend`]), because people check before they reload. What others
/// hold beside it is one, as it is for the reload.
pub fn explain_for_check(
    error: &BindError,
    plan: &Plan,
    machine: &Machine,
    config: &Path,
) -> Problem {
    let own = own_pid();
    let (problem, finding) = explained(error, plan, machine, own);
    let Some(pid) = finding.daemon_of(config, own) else {
        return problem;
    };
    if finding.sockets.iter().any(|(_, pids)| !pids.contains(&pid)) {
        return explain_for_daemon(error, plan, machine, pid);
    }
    let listener = plan.listener(error.listener);
    let endpoint = &listener.sockets[error.socket].endpoint;
    let (name, asked) = (&listener.name, address_text(endpoint));
    let is_inet = matches!(endpoint, Endpoint::Inet { .. });
    let mptcp = mptcp_listeners_on(endpoint, machine.of(listener));
    let other = finding.sockets.into_iter().filter_map(|(local, _)| {
        let address: Option<SocketAddr> = local.parse().ok();
        let is_mptcp = address.is_some_and(|address| mptcp.contains(&address.ip()));
        let is_same = is_mptcp == (endpoint.kind() == SocketKind::Mptcp);
        (!is_same || local != endpoint.to_string()).then(|| match is_mptcp {
            true => format!("mptcp {local}"),
            false if endpoint.kind() == SocketKind::Mptcp => format!("tcp {local}"),
            false => local,
        })
    });
    let mut other = other.filter(|_| is_inet);
    let has = match (error.obstacle, &error.path) {
        (Some(Obstacle::NotASocket(what)), _) => Some(format!("has {what} there")),
        (None, Some(link)) if error.step == BindStep::Symlink => {
            Some(format!("has something else at {}", link.display()))
        }
        _ => other.next().map(|local| format!("is bound to {local}")),
    };
    let (message, hint) = match has {
        None => (
            format!(
                "listener `{name}` is already bound to {asked} by the listend that runs this \
                 configuration (pid {pid})"
            ),
            "nothing to do: it is bound already, so it could not be tested".to_owned(),
        ),
        Some(has) => (
            format!(
                "listener `{name}`: {asked} could not be tested, because the listend that runs \
                 this configuration (pid {pid}) {has}"
            ),
            "`listend reload` binds the one and releases the other".to_owned(),
        ),
    };
    Problem {
        kind: Kind::HeldByListend,
        message,
        causes: Vec::new(),
        hint: Some(hint),
        ..problem
    }
}

/// As [`explain`], for `run`: where a listend already runs this configuration, the hint is how to
/// change that one. It is not this process, which may have the address because it was started with the socket.
pub fn explain_for_run(
    error: &BindError,
    plan: &Plan,
    machine: &Machine,
    config: &Path,
) -> Problem {
    let own = own_pid();
    let (problem, finding) = explained(error, plan, machine, own);
    if let Some(pid) = finding.daemon_of(config, own) {
        return problem.with_hint(format!(
            "listend already runs this configuration (pid {pid}): `listend reload` applies changes"
        ));
    }
    let is_inherited = finding.pids.contains(&own) && problem.related.is_empty();
    if is_inherited {
        return problem.with_hint(INHERITED.to_owned());
    }
    problem
}

/// The hint for an address that this process itself has, by a socket that it was started with and has not adopted.
const INHERITED: &str = "this listend was started with a socket at the address: pass it with LISTEN_FDS and \
                         LISTEN_PID (sd_listen_fds(3)), under the name of this listener or none, or start it \
                         without the socket";

/// The addresses on which MPTCP sockets listen at the port of a stream socket. MPTCP and TCP sockets
/// exclude each other, but a TCP listener is not an MPTCP listener.
fn mptcp_listeners_on(endpoint: &Endpoint, machine: &Machine) -> Vec<IpAddr> {
    match (endpoint.kind(), endpoint.port()) {
        (SocketKind::Tcp | SocketKind::Mptcp, Some(port)) => machine.mptcp_listeners(port),
        _ => Vec::new(),
    }
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// The problem, and who has the address; `own` is the process that has tried to bind it.
fn explained(error: &BindError, plan: &Plan, machine: &Machine, own: i32) -> (Problem, Finding) {
    let machine = machine.of(plan.listener(error.listener));
    let is_held = matches!(
        error.obstacle,
        None | Some(Obstacle::LiveServer { .. } | Obstacle::Unprobed)
    );
    let problem = unexplained(error, plan);
    if error.errno == Errno::EADDRINUSE as i32 && is_held && error.step != BindStep::EnterNamespace
    {
        return in_use(problem, error, plan, machine, own);
    }
    let problem = with_cause(problem, error, plan, machine);
    let is_link = error.step == BindStep::Symlink && error.errno == Errno::EEXIST as i32;
    let is_file = is_link || matches!(error.obstacle, Some(Obstacle::NotASocket(_)));
    let finding = match error.path.as_deref().filter(|_| is_file) {
        Some(path) => {
            let endpoint = &plan.listener(error.listener).sockets[error.socket].endpoint;
            find_file(endpoint, path, machine)
        }
        None => Finding::default(),
    };
    (problem, finding)
}

/// Explains a failure other than an address in use.
fn with_cause(problem: Problem, error: &BindError, plan: &Plan, machine: &Machine) -> Problem {
    let listener = plan.listener(error.listener);
    let endpoint = &listener.sockets[error.socket].endpoint;
    let errno = Errno::from_raw(error.errno);
    match error.obstacle {
        Some(Obstacle::NotASocket(what)) => {
            let hint = match endpoint.kind() {
                SocketKind::MessageQueue if what == OTHER_LIMITS => {
                    "a queue has its limits for good (mq_open(3)): choose another name, or remove it \
                     while listend does not run"
                }
                SocketKind::Fifo if !what.starts_with("a fifo") => {
                    "choose another path, or remove it, and listend creates a FIFO there"
                }
                SocketKind::Fifo | SocketKind::MessageQueue => {
                    "give it the owner, group and mode of the configuration, or remove it, and \
                     listend creates it"
                }
                SocketKind::Special => "only devices, and files of /proc and /sys, can be held",
                _ => {
                    "listend removes only sockets that no process listens on; choose another \
                     path, or remove it yourself"
                }
            };
            return problem.with_hint(hint);
        }
        Some(Obstacle::Interference) => {
            let hint = "find the other process that writes to the directory, and retry";
            return problem.with_hint(hint);
        }
        Some(Obstacle::OtherHands(_)) => {
            let hint = "choose a path whose directories belong to root, or name the directory \
                        itself and not a link to it";
            return problem.with_hint(hint);
        }
        Some(Obstacle::LiveServer { .. } | Obstacle::Unprobed) | None => {}
    }
    let path = error.path.as_deref();
    let is_queue = endpoint.kind() == SocketKind::MessageQueue;
    match (error.step, endpoint, path.or(endpoint.path())) {
        // Whatever was to be opened. A limit on message queues has the same errno (mq_open(3)).
        _ if matches!(errno, Errno::EMFILE | Errno::ENFILE) && !is_queue => {
            other(problem, errno, endpoint, machine.planned_sockets(plan))
        }
        (BindStep::EnterNamespace, ..) => {
            let path = path.unwrap_or(Path::new(""));
            option_causes::namespace(problem, error.errno, path, machine)
        }
        (BindStep::SetOption(call), ..) => {
            option_causes::explain(problem, call, errno, listener, machine)
        }
        _ if is_lacking(errno, error.step, endpoint) => {
            kernel::missing(problem, errno, endpoint, machine.kernel())
        }
        (_, Endpoint::MessageQueue { name }, _) => {
            kind_causes::message_queue(problem, errno, name, listener, machine)
        }
        (_, Endpoint::Special { path, .. }, _) => {
            let problem = kind_causes::special(problem, errno, path, machine);
            match problem.hint {
                Some(_) => problem,
                None => unix_causes::explain(problem, error, path, machine),
            }
        }
        (_, _, Some(path)) => unix_causes::explain(problem, error, path, machine),
        _ => match errno {
            Errno::EADDRNOTAVAIL => not_here(problem, endpoint, machine),
            Errno::EACCES | Errno::EPERM => forbidden(problem, endpoint, machine),
            errno => other(problem, errno, endpoint, machine.planned_sockets(plan)),
        },
    }
}

/// The place of the key that the failure is about; `None` if that is the address.
fn place(error: &BindError, listener: &ListenerPlan) -> Option<Place> {
    match error.step {
        BindStep::SetOption("IP_ADD_MEMBERSHIP" | "IPV6_ADD_MEMBERSHIP" | "MCAST_JOIN_GROUP") => {
            listener.place_of("multicast")
        }
        BindStep::SetOption(call) => listener.place_of(option_causes::key(call)),
        BindStep::EnterNamespace => listener.place_of("network_namespace"),
        BindStep::SetOwner => listener
            .place_of("owner")
            .or_else(|| listener.place_of("group")),
        BindStep::Symlink => listener.place_of("symlinks"),
        _ => None,
    }
}

/// Whether the kernel, or a sandbox, does not offer this kind of socket at all.
fn is_lacking(errno: Errno, step: BindStep, endpoint: &Endpoint) -> bool {
    match errno {
        Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT => true,
        Errno::ENOSYS => endpoint.kind() == SocketKind::MessageQueue,
        // MPTCP that is switched off; datagrams of a vsock without such a transport.
        Errno::ENOPROTOOPT | Errno::EOPNOTSUPP | Errno::ENODEV => match endpoint {
            Endpoint::Inet { .. } => step == BindStep::Socket,
            Endpoint::Vsock { .. } => true,
            _ => false,
        },
        _ => false,
    }
}

/// `cannot bind listener `web` to 127.0.0.1:80: address already in use (EADDRINUSE)`.
fn message(error: &BindError, name: &str, endpoint: &Endpoint) -> String {
    let target = address_text(endpoint);
    let cannot = format!("cannot bind listener `{name}` to {target}");
    let at = match &error.path {
        Some(path) if Some(path.as_path()) != endpoint.path() => format!(" {}", path.display()),
        _ => String::new(),
    };
    let reason = describe(error.errno);
    match (error.obstacle, error.step) {
        (Some(Obstacle::LiveServer { .. }), _) => format!("{cannot}: a server answers there"),
        (Some(Obstacle::NotASocket(what)), _) => {
            let wanted = match endpoint.kind() {
                SocketKind::Fifo | SocketKind::MessageQueue | SocketKind::Special => "",
                _ => ", not a socket",
            };
            format!("{cannot}: {what} is there{wanted}")
        }
        (Some(Obstacle::Unprobed), _) => {
            format!(
                "{cannot}: a socket is there, and whether it is in use cannot be seen: {reason}"
            )
        }
        (Some(Obstacle::OtherHands(why)), _) => {
            let path = error.path.clone().unwrap_or_default();
            format!("{cannot}: {}", why.about(&path))
        }
        (Some(Obstacle::Interference), _) => {
            format!("{cannot}: another process changed the path meanwhile")
        }
        (None, BindStep::Symlink) => {
            format!("{cannot}: cannot create the symbolic link{at}: {reason}")
        }
        (None, BindStep::CreateFolder) => format!("{cannot}: directory{at}: {reason}"),
        (None, BindStep::Probe) => format!("{cannot}: cannot see what is there: {reason}"),
        (None, BindStep::RemoveStale) => {
            format!("{cannot}: cannot replace the stale socket there: {reason}")
        }
        (None, BindStep::EnterNamespace) => {
            format!("{cannot}: cannot enter network namespace{at}: {reason}")
        }
        (None, BindStep::LeaveNamespace) => {
            format!("{cannot}: cannot return to listend's own network namespace: {reason}")
        }
        (None, BindStep::Open) => format!("{cannot}: cannot open it: {reason}"),
        (None, BindStep::Socket) => format!("{cannot}: cannot create a socket: {reason}"),
        (None, BindStep::SetOption(option)) => format!("{cannot}: cannot set {option}: {reason}"),
        (None, BindStep::SetOwner) => format!("{cannot}: cannot set owner and group: {reason}"),
        (None, BindStep::SetMode) => format!("{cannot}: cannot set the mode{at}: {reason}"),
        (None, BindStep::Listen) => {
            format!("cannot listen for listener `{name}` on {target}: {reason}")
        }
        (None, BindStep::ReadBack) => format!("{cannot}: cannot read it back: {reason}"),
        (None, BindStep::Bind) => format!("{cannot}: {reason}"),
    }
}

fn in_use(
    problem: Problem,
    error: &BindError,
    plan: &Plan,
    machine: &Machine,
    own: i32,
) -> (Problem, Finding) {
    let endpoint = &plan.listener(error.listener).sockets[error.socket].endpoint;
    let mut finding = match error.obstacle {
        Some(Obstacle::LiveServer {
            socket: Some(inode),
        }) => find_socket(endpoint, inode, machine),
        _ => find(endpoint, machine),
    };
    let ourselves = finding.pids.contains(&own);
    let nobody = finding.pids.is_empty();
    let rival = (ourselves || (nobody && endpoint.path().is_some()))
        // `check` has released everything again by now, and so nobody is seen to hold it.
        .then(|| rival(error, plan))
        .flatten();
    if ourselves && rival.is_none() {
        // Its own socket is no obstacle to the process that gives it up for the new one.
        finding = find_others(endpoint, machine, own);
    }
    let mut problem = Problem {
        causes: finding.causes.clone(),
        ..problem
    };
    if reuses_port(plan.listener(error.listener)) {
        let cause = "SO_REUSEPORT shares an address only among sockets that all have it and belong \
                     to one user (socket(7))";
        problem = problem.with_cause(cause.to_owned());
    }
    let hint = if let Some((id, index)) = rival {
        if !ourselves {
            problem.causes.clear();
        }
        let other = plan.listener(id);
        let socket = &other.sockets[index];
        let what = format!(
            "listener `{}` has {}",
            other.name,
            address_text(&socket.endpoint)
        );
        problem = problem.with_related(socket.place, what);
        "give one of the two another address".to_owned()
    } else {
        release::hint(&finding, endpoint, machine)
    };
    problem.holder = finding.holders.first().cloned();
    if let Some((causes, hint)) = orphans::explain(&finding.pids, machine) {
        let listener = plan.listener(error.listener);
        let message = format!(
            "cannot bind listener `{}` to {}: workers that listend has left behind hold it",
            listener.name,
            address_text(endpoint)
        );
        let problem = Problem {
            kind: Kind::OrphanedWorkers,
            message,
            causes,
            ..problem
        };
        return (problem.with_hint(hint), finding);
    }
    (problem.with_hint(hint), finding)
}

/// Another socket of the same plan that is in the way.
fn rival(error: &BindError, plan: &Plan) -> Option<(ListenerId, usize)> {
    let asked = &plan.listener(error.listener).sockets[error.socket].endpoint;
    for (id, listener) in plan.listeners() {
        let other = |(index, socket): (usize, &crate::plan::SocketPlan)| {
            let itself = id == error.listener && index == error.socket;
            (!itself && collide(asked, &socket.endpoint)).then_some((id, index))
        };
        if let Some(found) = listener.addresses().iter().enumerate().find_map(other) {
            return Some(found);
        }
    }
    None
}

fn collide(one: &Endpoint, other: &Endpoint) -> bool {
    match (one, other) {
        (Endpoint::Unix { name: one, .. }, Endpoint::Unix { name: other, .. }) => {
            match (one, other) {
                // Byte by byte: comparing paths part by part is slow where there are thousands.
                (UnixName::Path(one), UnixName::Path(other)) => {
                    one.as_os_str() == other.as_os_str() || same_by_link(one, other)
                }
                _ => one == other,
            }
        }
        _ => one.overlaps(other),
    }
}

/// Whether the two paths are one by a link among their folders. The names of the files are
/// compared first, so that folders are looked at only where it matters.
fn same_by_link(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| path.parent()?.canonicalize().ok();
    one.file_name() == other.file_name() && folder(one).is_some() && folder(one) == folder(other)
}

fn not_here(problem: Problem, endpoint: &Endpoint, machine: &Machine) -> Problem {
    if matches!(endpoint, Endpoint::Vsock { .. }) {
        return kind_causes::vsock_not_here(problem);
    }
    let Endpoint::Inet { address, .. } = endpoint else {
        return problem;
    };
    let (cause, hint) = addresses_here(*address, machine);
    problem.with_cause(cause).with_hint(hint)
}

/// The cause and the hint for a missing address: the addresses of its family that this machine has.
pub(super) fn addresses_here(asked: SocketAddr, machine: &Machine) -> (String, String) {
    let family = if asked.is_ipv4() { "IPv4" } else { "IPv6" };
    let here: Vec<String> = machine
        .interfaces()
        .iter()
        .filter(|interface| interface.address.is_ipv4() == asked.is_ipv4())
        .map(|interface| format!("{} ({})", interface.address, interface.name))
        .collect();
    let place = machine.place();
    let cause = match here.len() {
        0 => format!("{place} has no {family} address at all"),
        n if n > ADDRESSES_SHOWN => format!(
            "{place} has {} and {} more",
            here[..ADDRESSES_SHOWN].join(", "),
            n - ADDRESSES_SHOWN
        ),
        _ => format!("{place} has {}", here.join(", ")),
    };
    // A public IPv6 address is seldom translated.
    let translated = if asked.is_ipv4() && audience(asked.ip()) == Audience::Everybody {
        "a public address that NAT translates (in a cloud, behind a router) is not this machine's: \
         bind its private one, or 0.0.0.0; "
    } else {
        ""
    };
    let hint = format!(
        "check the spelling; {translated}if the address comes later (DHCP, VRRP, a VPN): `free_bind: \
         true` binds it at once, `wait_for_address: 30s` when it comes, and with `optional: true` \
         everything else starts without it"
    );
    (cause, hint)
}

fn forbidden(problem: Problem, endpoint: &Endpoint, machine: &Machine) -> Problem {
    let start = machine.settings().unprivileged_start;
    match endpoint.port() {
        Some(port) if port != 0 && port < start && !machine.process().may_bind_low_ports => problem
            .with_cause(format!(
                "ports below {start} need CAP_NET_BIND_SERVICE, which user {} does not have here",
                machine.user(machine.process().uid)
            ))
            .with_hint(format!(
                "one of: run listend as root; AmbientCapabilities=CAP_NET_BIND_SERVICE in its \
                 systemd unit; setcap cap_net_bind_service=+ep on the listend binary; {} \
                 net.ipv4.ip_unprivileged_port_start={port}",
                machine.sysctl()
            )),
        _ => problem.with_hint(
            "a security module (SELinux, AppArmor), a seccomp filter or a cgroup program forbids \
             it; the kernel's log may say which",
        ),
    }
}

/// Every listener is bound, but that leaves too few descriptors (RLIMIT_NOFILE) for anything else.
pub fn no_room_left(plan: &Plan, machine: &Machine) -> Problem {
    let message = "the listeners leave no descriptors for workers: too many open files (EMFILE)";
    let problem = Problem::new(Kind::Errno(Errno::EMFILE as i32), message);
    too_many_files(problem, machine.planned_sockets(plan))
}

fn too_many_files(problem: Problem, sockets: usize) -> Problem {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    problem
        .with_cause(format!(
            "this process may have {limit} descriptors open, and the configuration has \
             {sockets} sockets"
        ))
        .with_hint(format!(
            "raise the limit: LimitNOFILE={0} in the systemd unit, or ulimit -n {0} in the shell",
            (sockets + 256).next_power_of_two()
        ))
}

/// Errnos that are not about the address; `None` where their name says all there is to say.
fn other(problem: Problem, errno: Errno, endpoint: &Endpoint, sockets: usize) -> Problem {
    match errno {
        Errno::EMFILE => too_many_files(problem, sockets),
        Errno::ENFILE => problem
            .with_cause("the whole machine has no descriptor left")
            .with_hint("raise the limit: sysctl -w fs.file-max=NUMBER"),
        Errno::EINVAL if link_local_without_scope(endpoint) => problem
            .with_cause("a link-local address exists once on each interface")
            .with_hint(
                "this version has no scope ids (`%eth0`): bind another address of the interface, \
                 or [::]",
            ),
        Errno::ENOBUFS | Errno::ENOMEM => {
            problem.with_hint("the kernel is short of memory for sockets")
        }
        _ => problem,
    }
}

fn link_local_without_scope(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Inet {
            address: SocketAddr::V6(six),
            ..
        } => six.scope_id() == 0 && is_link_local(IpAddr::V6(*six.ip())),
        _ => false,
    }
}

/// Whether the address is in fe80::/10.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(six) if six.segments()[0] & 0xffc0 == 0xfe80)
}
