//! Every dialect, alone and beside others, for any set of sockets: a worker has standard input, output and
//! error, and its own descriptors; and the variables name exactly those. Real processes.

use crate::harness::{Puppets, TempDir, probe_path};
use listend::config::{Endpoint, Template, Transport, UnixKind, UnixName};
use listend::handoff::{ALL, Dialect, Handoff, PidfdInode, belongs_to_a_handoff};
use listend::launch_spec::{Limit, Resource};
use listend::plan::WorkerPlan;
use listend::sys::Tell;
use listend::worker::{DaemonContext, InheritedSocket, Numbers, Preparation, SpawnInputs, launch};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

const NUMBERS: Numbers = Numbers {
    instance: 4,
    generation: 9,
};

/// A listening socket and what it is bound to.
fn socket(folder: &Path, kind: u8, index: usize) -> (OwnedFd, Endpoint) {
    let inet = |host: &str| {
        let listener = TcpListener::bind((host, 0)).expect("bind");
        let endpoint = Endpoint::Inet {
            transport: Transport::Tcp,
            address: listener.local_addr().expect("getsockname"),
            v6_only: true,
            optional: false,
            scope: None,
        };
        (listener.into(), endpoint)
    };
    match kind {
        0 => inet("127.0.0.1"),
        1 => inet("::1"),
        _ => {
            let path = folder.join(format!("{index}.sock"));
            let listener = UnixListener::bind(&path).expect("bind");
            let endpoint = Endpoint::Unix {
                kind: UnixKind::Stream,
                name: UnixName::Path(path),
            };
            (listener.into(), endpoint)
        }
    }
}

/// The numbers that the variables of a dialect name, read as its programs read them; none of a dialect
/// without variables.
fn named(
    dialect: &Dialect,
    variables: &BTreeMap<String, String>,
    count: usize,
) -> Option<Vec<i32>> {
    let text = |name: &str| variables.get(name).map_or("", String::as_str);
    let number = |text: &str| text.parse::<i32>().expect("a number");
    let after_equals = |entry: &str| number(entry.rsplit_once('=').expect("NAME=FD").1);
    let entries = |text: &str, by: char| {
        let entries = text.split(by).filter(|entry| !entry.is_empty());
        entries.map(after_equals).collect()
    };
    Some(match dialect.keyword {
        "systemd" if count == 0 => Vec::new(),
        "systemd" => {
            let count = number(text("LISTEN_FDS"));
            assert_eq!(text("LISTEN_FDNAMES").split(':').count() as i32, count);
            (3..3 + count).collect()
        }
        "nginx" => {
            assert_eq!(text("NGINX"), text("ANGIE"));
            assert!(count == 0 || text("NGINX").ends_with(';'));
            let numbers = text("NGINX").split_terminator(';');
            numbers.map(number).collect()
        }
        "server-starter" => entries(text("SERVER_STARTER_PORT"), ';'),
        "php-fpm" => entries(text("FPM_SOCKETS"), ','),
        "einhorn" => {
            let indexes = 0..number(text("EINHORN_FD_COUNT"));
            let each = indexes.map(|index| number(text(&format!("EINHORN_FD_{index}"))));
            let each: Vec<i32> = each.collect();
            let list = text("EINHORN_FDS").split_whitespace().map(number);
            assert_eq!(list.collect::<Vec<_>>(), each);
            each
        }
        "puma" => {
            let indexes = (0..).map(|index| variables.get(&format!("PUMA_INHERIT_{index}")));
            let values = indexes.map_while(|value| value);
            values
                .map(|value| number(value.split_once(':').expect("FD:URL").0))
                .collect()
        }
        _ => return None,
    })
}

fn check(kinds: &[u8], handoff: &Handoff, listen_pid: bool) {
    let dir = TempDir::new();
    let events = dir.path().join("events");
    let puppets = Puppets::listen(&events);
    let bound: Vec<(OwnedFd, Endpoint)> = kinds
        .iter()
        .enumerate()
        .map(|(index, kind)| socket(dir.path(), *kind, index))
        .collect();
    let inherited = bound.iter().map(|(fd, address)| InheritedSocket {
        listener: "web",
        fd: fd.as_raw_fd(),
        address,
    });
    let inherited: Vec<_> = inherited.collect();
    let words = [probe_path(), Path::new("puppet"), &events];
    let words = words.map(|word| Template::literal(word.to_str().expect("UTF-8")));
    let worker = WorkerPlan {
        name: "app".to_owned(),
        command: words.to_vec(),
        handoff: handoff.clone(),
        listen_pid,
        ..WorkerPlan::default()
    };
    let around = DaemonContext {
        signals: listend::sys::changed_signals(),
        listend: "/usr/bin/listend".to_owned(),
        pid: std::process::id(),
        inode: PidfdInode::Tell,
        open_files: Limit {
            resource: Resource::Nofile,
            soft: Some(1024),
            hard: Some(4096),
        },
    };
    let given = SpawnInputs {
        sockets: &inherited,
        ..SpawnInputs::default()
    };
    let preparation = Preparation::new(&worker, given, NUMBERS, &around).expect("prepare");
    let prepared = preparation.program(None).expect("a program");
    let launched = launch(prepared, Tell::ByPipe).expect("launch");
    let pid = launched.pid;
    let puppet = puppets.next(|| !crate::harness::exists(pid));
    let report = puppet.report.clone();
    listend::sys::discard(launched);

    let links = report.fds.iter().map(|fd| (fd.number, fd.target.clone()));
    let links: BTreeMap<i32, String> = links.collect();
    let first = handoff.first_fd();
    let own: Vec<i32> = (first..).take(kinds.len()).collect();
    let mut expected: Vec<i32> = [0, 1, 2].into_iter().chain(own.iter().copied()).collect();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(
        links.keys().copied().collect::<Vec<_>>(),
        expected,
        "{handoff}"
    );
    for (number, (fd, _)) in own.iter().zip(&bound) {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let link = std::fs::read_link(link).expect("readlink");
        assert_eq!(links[number], link.to_string_lossy(), "{handoff}");
    }
    let variables = report.env.clone().into_iter();
    let mut variables: BTreeMap<String, String> = variables
        .filter(|(name, _)| belongs_to_a_handoff(name) && !name.starts_with("LISTEND_"))
        .collect();
    for dialect in handoff.dialects() {
        if let Some(numbers) = named(dialect, &variables, kinds.len()) {
            assert_eq!(numbers, own, "{dialect:?} in {handoff}");
        }
    }
    let tells = listen_pid && handoff.tells_the_pid() && !kinds.is_empty();
    let told = variables.get("LISTEN_PID").cloned();
    assert_eq!(told, tells.then(|| pid.to_string()), "{handoff}");
    assert_eq!(variables.contains_key("LISTEN_PIDFDID"), tells, "{handoff}");
    if handoff
        .dialects()
        .iter()
        .any(|dialect| dialect.keyword == "einhorn")
    {
        assert_eq!(
            variables["EINHORN_MASTER_PID"],
            std::process::id().to_string()
        );
    }
    // Nothing of another dialect.
    for (keyword, prefix) in [
        ("systemd", "LISTEN_"),
        ("nginx", "NGINX"),
        ("nginx", "ANGIE"),
        ("server-starter", "SERVER_STARTER_"),
        ("einhorn", "EINHORN_"),
        ("php-fpm", "FPM_SOCKETS"),
        ("puma", "PUMA_INHERIT_"),
    ] {
        if handoff
            .dialects()
            .iter()
            .any(|dialect| dialect.keyword == keyword)
        {
            variables.retain(|name, _| !name.starts_with(prefix));
        }
    }
    assert_eq!(variables, BTreeMap::new(), "{handoff}");
}

/// One dialect, or several of those that combine.
fn any_handoff() -> impl Strategy<Value = Handoff> {
    let combining = ALL.iter().copied().filter(|dialect| dialect.combines);
    let combining: Vec<&'static Dialect> = combining.collect();
    let most = combining.len();
    prop_oneof![
        prop::sample::select(ALL).prop_map(Handoff::one),
        prop::sample::subsequence(combining, 1..=most).prop_map(Handoff::of),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_worker_has_its_own_descriptors_and_the_variables_name_exactly_those(
        kinds in prop::collection::vec(0..3u8, 0..12),
        handoff in any_handoff(),
        listen_pid in any::<bool>(),
    ) {
        let most = if handoff.first_fd() == 0 { 1 } else { kinds.len() };
        check(&kinds[..most.min(kinds.len())], &handoff, listen_pid);
    }
}
