//! The abilities of the kernel, and why it lacks a kind of socket.

use crate::config::{Endpoint, SocketKind};
use crate::report::Problem;
use nix::errno::Errno;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

/// The facts about the running kernel; every part is empty where it cannot be read.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    /// The release from uname(2).
    pub(super) release: String,
    /// The modules that are loaded (/proc/modules), with `_` for `-`.
    pub(super) loaded: HashSet<String>,
    /// The modules that could be loaded, from /lib/modules.
    pub(super) loadable: HashSet<String>,
    /// The protocols that sockets can have now (/proc/net/protocols).
    pub(super) protocols: HashSet<String>,
    /// The value of `net.mptcp.enabled`.
    pub(super) mptcp_enabled: Option<bool>,
    /// The build configuration of the kernel (/proc/config.gz or /boot), read only when needed.
    pub(super) built: OnceCell<HashMap<String, Built>>,
}

/// The value of a part in the build configuration of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Built {
    /// Part of the kernel itself.
    In,
    /// Built as a module.
    Module,
}

impl Kernel {
    pub(super) fn read() -> Kernel {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let release = text("/proc/sys/kernel/osrelease").trim().to_owned();
        let first_words = |text: &str| -> HashSet<String> {
            let words = text.lines().filter_map(|line| line.split(' ').next());
            words.map(str::to_owned).collect()
        };
        Kernel {
            loaded: first_words(&text("/proc/modules")),
            loadable: text(&format!("/lib/modules/{release}/modules.dep"))
                .lines()
                .filter_map(module_of)
                .collect(),
            protocols: first_words(&text("/proc/net/protocols")),
            mptcp_enabled: match text("/proc/sys/net/mptcp/enabled").trim() {
                "1" => Some(true),
                "0" => Some(false),
                _ => None,
            },
            built: OnceCell::new(),
            release,
        }
    }

    /// The value of this part; `None` where the build configuration cannot be read.
    fn built(&self, setting: &str) -> Option<Option<Built>> {
        let all = self.built.get_or_init(read_configuration);
        (!all.is_empty()).then(|| all.get(setting).copied())
    }
}

/// The name of the module in a line of modules.dep: `kernel/net/sctp/sctp.ko.xz: …` → `sctp`.
fn module_of(line: &str) -> Option<String> {
    let path = line.split(':').next()?;
    let file = path.rsplit('/').next()?;
    Some(file.split(".ko").next()?.replace('-', "_"))
}

fn read_configuration() -> HashMap<String, Built> {
    let all = procfs::kernel_config().unwrap_or_default();
    let built = all.into_iter().filter_map(|(name, setting)| match setting {
        procfs::ConfigSetting::Yes => Some((name, Built::In)),
        procfs::ConfigSetting::Module => Some((name, Built::Module)),
        procfs::ConfigSetting::Value(_) => None,
    });
    built.collect()
}

/// A part of the kernel that a kind of socket needs.
struct Part {
    words: &'static str,
    /// Names in /proc/net/protocols, one of which is there if the kernel has it.
    protocols: &'static [&'static str],
    module: &'static str,
    setting: &'static str,
    /// The alternative where the kernel cannot be changed.
    instead: &'static str,
}

fn part(kind: SocketKind) -> Option<Part> {
    let part = |words, protocols, module, setting, instead| {
        Some(Part {
            words,
            protocols,
            module,
            setting,
            instead,
        })
    };
    match kind {
        SocketKind::Sctp => part(
            "SCTP",
            &["SCTP", "SCTPv6"],
            "sctp",
            "CONFIG_IP_SCTP",
            "tcp://",
        ),
        SocketKind::Mptcp => part("MPTCP", &["MPTCP", "MPTCPv6"], "", "CONFIG_MPTCP", "tcp://"),
        SocketKind::UdpLite => part(
            "UDP-Lite",
            &["UDP-Lite", "UDPLITEv6"],
            "",
            "CONFIG_INET",
            "udp://",
        ),
        SocketKind::VsockStream | SocketKind::VsockDatagram | SocketKind::VsockSeqPacket => part(
            "vsock",
            &["AF_VSOCK"],
            "vsock",
            "CONFIG_VSOCKETS",
            "unix: or tcp://",
        ),
        SocketKind::UnixStream | SocketKind::UnixDatagram | SocketKind::UnixSeqPacket => part(
            "unix sockets",
            &["UNIX", "UNIX-STREAM"],
            "unix",
            "CONFIG_UNIX",
            "tcp://",
        ),
        SocketKind::MessageQueue => part(
            "POSIX message queues",
            &[],
            "",
            "CONFIG_POSIX_MQUEUE",
            "unix-dgram:",
        ),
        SocketKind::Netlink
        | SocketKind::Tcp
        | SocketKind::Udp
        | SocketKind::Fifo
        | SocketKind::Special => None,
    }
}

/// Adds why a socket of this kind cannot be created (socket(2), mq_open(3)), and what to do.
pub(super) fn missing(
    problem: Problem,
    errno: Errno,
    endpoint: &Endpoint,
    kernel: &Kernel,
) -> Problem {
    let kind = endpoint.kind();
    if kind == SocketKind::Mptcp && kernel.mptcp_enabled == Some(false) {
        return problem
            .with_cause("MPTCP is disabled (net.mptcp.enabled=0)")
            .with_hint("enable it: sysctl -w net.mptcp.enabled=1, or use tcp://");
    }
    if kind == SocketKind::VsockDatagram && kernel.protocols.contains("AF_VSOCK") {
        return problem
            .with_cause("of all vsock transports only VMware's has datagrams")
            .with_hint("use vsock: or vsock-seqpacket:");
    }
    if let Some(part) = part(kind)
        && !part
            .protocols
            .iter()
            .any(|name| kernel.protocols.contains(*name))
    {
        return lacks(problem, &part, kernel);
    }
    let six = matches!(
        endpoint,
        Endpoint::Inet {
            address: SocketAddr::V6(_),
            ..
        }
    );
    match endpoint {
        Endpoint::Inet { .. } if six && errno == Errno::EAFNOSUPPORT => problem
            .with_cause(
                "this kernel has no IPv6: it is disabled (ipv6.disable=1 on the kernel's command \
                 line) or not built in",
            )
            .with_hint("use an IPv4 address, or enable IPv6"),
        Endpoint::Netlink { family, .. } => problem
            .with_cause(format!(
                "the kernel ({}) has no netlink family `{family}`",
                kernel.release
            ))
            .with_hint("load the module that provides it, or correct the family"),
        _ => problem
            .with_cause(
                "this kernel, or a sandbox around listend, does not offer this kind of socket",
            )
            .with_hint(
                "check RestrictAddressFamilies= in its systemd unit, at seccomp filters, and at \
                 the kernel's modules",
            ),
    }
}

fn lacks(problem: Problem, part: &Part, kernel: &Kernel) -> Problem {
    let Part {
        words,
        module,
        setting,
        instead,
        ..
    } = part;
    let release = &kernel.release;
    let load = format!(
        "load the module: modprobe {module} (at every boot: a line `{module}` in a file under \
         /etc/modules-load.d), or use {instead}"
    );
    let built = kernel.built(setting);
    if module.is_empty() || built == Some(None) {
        let why = match built {
            Some(None) => format!("it was built without it ({setting} is not set)"),
            _ => "it is not among the protocols it lists".to_owned(),
        };
        return problem
            .with_cause(format!("this kernel ({release}) has no {words}: {why}"))
            .with_hint(format!("use a kernel with {setting}, or {instead}"));
    }
    if kernel.loaded.contains(*module) {
        return problem
            .with_cause(format!(
                "the module `{module}` is loaded, but {words} is not offered here"
            ))
            .with_hint(
                "check RestrictAddressFamilies= in the systemd unit and at seccomp filters",
            );
    }
    let state = if kernel.loadable.contains(*module) || built == Some(Some(Built::Module)) {
        "is there, but not loaded"
    } else if kernel.loadable.is_empty() {
        "is not loaded"
    } else {
        "is not loaded and not under /lib/modules; some distributions have it in a separate \
         package (linux-modules-extra, kernel-modules-extra)"
    };
    problem
        .with_cause(format!(
            "this kernel ({release}) has no {words}: the module `{module}` {state}"
        ))
        .with_hint(load)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Transport, UnixKind};
    use crate::report::Kind;

    fn inet(transport: Transport, address: &str) -> Endpoint {
        Endpoint::Inet {
            transport,
            address: address.parse().unwrap(),
            v6_only: true,
            optional: false,
            scope: None,
        }
    }

    fn kernel(configuration: &[(&str, Built)]) -> Kernel {
        let all = configuration.iter();
        Kernel {
            release: "6.1".to_owned(),
            protocols: ["TCP", "UNIX"].map(str::to_owned).into(),
            built: OnceCell::from(
                all.map(|(name, built)| ((*name).to_owned(), *built))
                    .collect::<HashMap<_, _>>(),
            ),
            ..Kernel::default()
        }
    }

    fn said(errno: Errno, endpoint: &Endpoint, kernel: &Kernel) -> (String, String) {
        let problem = Problem::new(Kind::Errno(errno as i32), "x");
        let problem = missing(problem, errno, endpoint, kernel);
        (problem.causes.join("; "), problem.hint.unwrap())
    }

    #[test]
    fn a_module_that_is_not_loaded_is_named() {
        let sctp = inet(Transport::Sctp, "127.0.0.1:80");
        let mut machine = kernel(&[("CONFIG_IP_SCTP", Built::Module)]);
        let (cause, hint) = said(Errno::EPROTONOSUPPORT, &sctp, &machine);
        assert_eq!(
            cause,
            "this kernel (6.1) has no SCTP: the module `sctp` is there, but not loaded"
        );
        assert!(hint.contains("modprobe sctp"), "{hint}");

        machine.built = OnceCell::from(HashMap::from([("CONFIG_INET".to_owned(), Built::In)]));
        let (cause, hint) = said(Errno::EPROTONOSUPPORT, &sctp, &machine);
        assert!(cause.contains("CONFIG_IP_SCTP is not set"), "{cause}");
        assert!(!hint.contains("modprobe"), "{hint}");

        machine.built = OnceCell::from(HashMap::new());
        machine.loadable = module_of("kernel/drivers/net/dummy.ko.xz:")
            .into_iter()
            .collect();
        let (cause, _) = said(Errno::EPROTONOSUPPORT, &sctp, &machine);
        assert!(cause.contains("modules-extra"), "{cause}");
    }

    #[test]
    fn what_is_there_but_refused_is_a_sandbox() {
        let vsock = Endpoint::Vsock {
            kind: UnixKind::Datagram,
            cid: u32::MAX,
            port: 80,
        };
        let mut machine = kernel(&[]);
        machine.protocols.insert("AF_VSOCK".to_owned());
        machine.protocols.insert("SCTP".to_owned());
        let (cause, _) = said(Errno::EOPNOTSUPP, &vsock, &machine);
        assert!(cause.contains("VMware"), "{cause}");
        let sctp = inet(Transport::Sctp, "127.0.0.1:80");
        let (_, hint) = said(Errno::EPROTONOSUPPORT, &sctp, &machine);
        assert!(hint.contains("RestrictAddressFamilies="), "{hint}");
    }

    #[test]
    fn what_is_switched_off_is_told() {
        let mptcp = inet(Transport::Mptcp, "127.0.0.1:80");
        let mut machine = kernel(&[]);
        let (cause, _) = said(Errno::EPROTONOSUPPORT, &mptcp, &machine);
        assert!(cause.contains("no MPTCP"), "{cause}");
        machine.mptcp_enabled = Some(false);
        let (_, hint) = said(Errno::ENOPROTOOPT, &mptcp, &machine);
        assert!(hint.contains("net.mptcp.enabled=1"), "{hint}");
        let six = inet(Transport::Tcp, "[::1]:80");
        let (cause, _) = said(Errno::EAFNOSUPPORT, &six, &machine);
        assert!(cause.contains("ipv6.disable=1"), "{cause}");
    }
}
