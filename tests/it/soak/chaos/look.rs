//! What is: status, processes, descriptors, sockets and files, each compared with what should be.

use super::load::ask;
use super::model::{APPS, ENDPOINTS, Model, Way};
use crate::harness::{children, probe_path, resident_kib, state};
use crate::sandbox::groups::Group;
use listend::control::{Status, WorkerState};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The longest reply that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// One call, on a connection of its own: the daemon may be replaced between two of them.
pub fn call(path: &Path, method: &str, parameters: &Value) -> io::Result<Value> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let method = format!("io.listend.Manager.{method}");
    let call = json!({ "method": method, "parameters": parameters });
    stream.write_all(format!("{call}\0").as_bytes())?;
    let mut reply = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while reply.last() != Some(&0) {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => reply.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    reply.pop();
    serde_json::from_slice(&reply).map_err(io::Error::other)
}

/// What the daemon says.
pub fn status(path: &Path) -> io::Result<Status> {
    let mut reply = call(path, "Status", &json!({}))?;
    serde_json::from_value(reply["parameters"].take()).map_err(io::Error::other)
}

/// The processes of a worker by what status says, with the name of the instance.
pub fn pids(status: &Status, worker: &str) -> Vec<(String, i32)> {
    let one = status.workers.iter().find(|one| one.name == worker);
    let instances = one.map_or(&[][..], |one| &one.instances);
    let pid = |pid: Option<u32>| pid.and_then(|pid| i32::try_from(pid).ok());
    instances
        .iter()
        .filter_map(|one| Some((one.name.clone(), pid(one.pid)?)))
        .collect()
}

/// Why status does not say that everything rests as it should.
pub fn unrest(model: &Model, status: &Status) -> Vec<String> {
    let mut bad = Vec::new();
    let is: BTreeMap<String, String> = status
        .listeners
        .iter()
        .map(|one| (one.name.clone(), format!("{:?}", one.state).to_lowercase()))
        .collect();
    let wanted: BTreeMap<String, String> = model
        .listeners_of_status()
        .into_iter()
        .map(|(name, state)| (name, state.to_owned()))
        .collect();
    for name in is.keys().chain(wanted.keys()).collect::<BTreeSet<_>>() {
        let (is, wanted) = (is.get(name), wanted.get(name));
        if is != wanted {
            bad.push(format!("status: listener {name} is {is:?}, not {wanted:?}"));
        }
    }
    let names: BTreeSet<&str> = status.workers.iter().map(|one| one.name.as_str()).collect();
    let wanted: BTreeSet<&str> = model.names().into_iter().collect();
    if names != wanted {
        bad.push(format!("status: workers {names:?}, not {wanted:?}"));
    }
    for worker in &status.workers {
        let name = &worker.name;
        if let Some(setback) = &worker.setback {
            bad.push(format!("status: {name} has a setback: {setback}"));
        }
        if worker.connections.is_some_and(|one| one.live > 0) {
            bad.push(format!("status: {name} has connections"));
        }
        let (least, most) = model.processes(name);
        let is_stopped = model.stopped.contains(name.as_str());
        let mut running = 0;
        for one in &worker.instances {
            let rests = match (&one.state, one.pid) {
                (WorkerState::Running, Some(_)) => {
                    running += 1;
                    true
                }
                (WorkerState::Waiting, None) => {
                    !is_stopped && (name == "demand" || name == "late" && !model.is_late_bound)
                }
                (WorkerState::Stopped, None) => is_stopped,
                _ => false,
            };
            if !rests || one.reloading {
                bad.push(format!(
                    "status: {} is {:?}, pid {:?}",
                    one.name, one.state, one.pid
                ));
            }
        }
        let count = model.scaled.get(name.as_str());
        let is_missing = count.is_some_and(|count| worker.instances.len() != *count as usize);
        if running < least || running > most || is_missing {
            let all = worker.instances.len();
            bad.push(format!(
                "status: {running} of {all} instances of {name} run, not {least} to {most}"
            ));
        }
    }
    bad
}

/// A process of this namespace.
struct Process {
    pid: i32,
    parent: i32,
    words: Vec<String>,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("list /proc");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse::<i32>().ok());
    let process = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = words.split('\0').map(str::to_owned).collect();
        Some(Process { pid, parent, words })
    };
    pids.filter_map(process).collect()
}

/// The sockets of the kernel, by inode: what each is, in words.
fn kernel_sockets() -> HashMap<String, String> {
    let mut all = HashMap::new();
    let read = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        for line in read(table).lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = words[..] else {
                continue;
            };
            let kind = &table[..3];
            let text = match (kind, state) {
                ("tcp", "0A") => format!("tcp {} listens", readable(local)),
                ("tcp", _) => "a connection".to_owned(),
                _ => format!("udp {}", readable(local)),
            };
            all.insert(inode.to_owned(), text);
        }
    }
    for line in read("unix").lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, flags, _, _, inode, ref path @ ..] = words[..] else {
            continue;
        };
        // SO_ACCEPTCON: __SO_ACCEPTCON of net.h.
        let listens = if flags == "00010000" { " listens" } else { "" };
        let text = match path.first() {
            Some(path) if !path.starts_with("@soak-client") => format!("unix {path}{listens}"),
            _ => "a unix socket".to_owned(),
        };
        all.insert(inode.to_owned(), text);
    }
    for line in read("netlink").lines().skip(1) {
        if let Some(inode) = line.split_whitespace().last() {
            all.insert(inode.to_owned(), "netlink".to_owned());
        }
    }
    all
}

/// `0100007F:1B59` as people write it.
fn readable(address: &str) -> String {
    let (host, port) = address.split_once(':').unwrap_or((address, "0"));
    let port = u16::from_str_radix(port, 16).unwrap_or(0);
    match u32::from_str_radix(host, 16) {
        Ok(host) => {
            let host = std::net::Ipv4Addr::from(host.to_le_bytes());
            format!("{host}:{port}")
        }
        Err(_) => format!("[{host}]:{port}"),
    }
}

/// What the descriptors of a process lead to.
fn descriptors(pid: i32) -> Vec<String> {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let links = folder.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

fn inode(link: &str) -> Option<&str> {
    link.strip_prefix("socket:[")?.strip_suffix(']')
}

/// How many descriptors of each kind a process has.
fn kinds(pid: i32, sockets: &HashMap<String, String>) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    // libfaketime opens its own in whatever it is loaded into.
    let all_links = descriptors(pid).into_iter();
    for link in all_links.filter(|link| !link.starts_with("/dev/shm/faketime")) {
        let kind = match inode(&link) {
            Some(inode) => match sockets.get(inode) {
                Some(text) => text.clone(),
                None => "another socket".to_owned(),
            },
            None => link
                .split(['[', '('])
                .next()
                .unwrap_or_default()
                .trim_end()
                .to_owned(),
        };
        *all.entry(kind).or_default() += 1;
    }
    all
}

/// What a process is by the kernel, as far as it is the same at each rest: user, signals, capabilities, filters,
/// threads, limits.
fn traits(pid: i32) -> BTreeMap<String, usize> {
    const KEPT: [&str; 16] = [
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "Threads",
        "SigBlk",
        "SigIgn",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Cpus_allowed_list",
    ];
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let kept = status.lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        KEPT.contains(&name)
    });
    let limits = read("limits");
    // An act lowers that of the daemon for a while.
    let limits = limits.lines().skip(1);
    let score = format!("oom_score_adj {}", read("oom_score_adj").trim());
    let texts = kept.chain(limits).map(str::to_owned).chain([score]);
    texts.map(|text| (text, 1)).collect()
}

/// An instance has the sockets of its worker, and nobody else's.
fn look_at_own(
    model: &Model,
    worker: &str,
    (instance, pid): (&str, i32),
    is: &BTreeMap<String, usize>,
    bad: &mut Vec<String>,
) {
    let declared = model.sockets();
    let own = model.sockets_of(worker);
    let has: BTreeSet<&String> = is.keys().filter(|text| declared.contains(*text)).collect();
    let own: BTreeSet<&String> = own.iter().collect();
    if has != own {
        bad.push(format!("{instance} ({pid}) has {has:?}, not {own:?}"));
    }
}

/// What workers that run accept from has O_NONBLOCK, as all of these need it. Nobody accepts from a shard whose
/// instance there is not.
fn look_at_flags(
    who: &Who,
    status: &Status,
    sockets: &HashMap<String, String>,
    bad: &mut Vec<String>,
) {
    let running = APPS.iter().flat_map(|worker| pids(status, worker));
    let taken: BTreeSet<String> = running.flat_map(|(_, pid)| descriptors(pid)).collect();
    let entries = fs::read_dir(format!("/proc/{}/fd", who.daemon))
        .into_iter()
        .flatten();
    for entry in entries.filter_map(Result::ok) {
        let link = fs::read_link(entry.path()).unwrap_or_default();
        let link = link.to_string_lossy();
        let Some(text) = inode(&link).and_then(|inode| sockets.get(inode)) else {
            continue;
        };
        let number = entry.file_name();
        let path = format!("/proc/{}/fdinfo/{}", who.daemon, number.to_string_lossy());
        let info = fs::read_to_string(path).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|text| i32::from_str_radix(text.trim(), 8).ok());
        let blocks = flags.is_some_and(|flags| flags & nix::libc::O_NONBLOCK == 0);
        if blocks && taken.contains(&*link) {
            bad.push(format!("{text} blocks"));
        }
    }
}

/// Each process of a worker with limits is in a group of its own, and there are no others.
pub fn groups(status: &Status, group: &Group) -> Vec<String> {
    let name = |(instance, pid): (String, i32)| (format!("listend.{instance}.{pid}"), vec![pid]);
    let wanted: BTreeMap<String, Vec<i32>> = pids(status, "boxed").into_iter().map(name).collect();
    let is: BTreeMap<String, Vec<i32>> = group.workers().into_iter().collect();
    match is == wanted {
        true => Vec::new(),
        false => vec![format!("the groups are {is:?}, not {wanted:?}")],
    }
}

/// So long listend is left alone to see that it sleeps.
const NAP: Duration = Duration::from_millis(300);
/// So often it may wake up meanwhile, for what workers with a watchdog tell.
const WAKES: u64 = 60;

/// Guard and daemon wait while there is nothing to do.
pub fn unquiet(who: &Who) -> Vec<String> {
    let all = [("guard", who.guard), ("daemon", who.daemon)];
    let before = all.map(|(_, pid)| switches(pid));
    std::thread::sleep(NAP);
    let now = all.map(|(_, pid)| switches(pid));
    let counts = now
        .into_iter()
        .zip(before)
        .map(|(now, before)| now.saturating_sub(before));
    let restless = all.iter().zip(counts).filter(|(_, count)| *count > WAKES);
    restless
        .map(|((name, _), count)| {
            format!("{name} ran {count} times in {NAP:?} in which there was nothing to do")
        })
        .collect()
}

/// How often a process was switched to.
fn switches(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
    counts
        .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
        .sum()
}

/// Who is who.
pub struct Who {
    pub guard: i32,
    pub daemon: i32,
}

/// A look at everything, of one moment at which nobody comes.
pub struct Look {
    pub bad: Vec<String>,
    /// What has to be the same at the next rest of the same shape.
    pub same: BTreeMap<String, BTreeMap<String, usize>>,
    pub memory: [u64; 2],
    /// The processes of listend's own that there are.
    pub helpers: String,
    /// The workers that are not children of the daemon, which was killed since they were started.
    pub adopted: usize,
}

pub fn look(model: &Model, dir: &Path, who: &Who, status: &Status) -> Look {
    let mut bad = Vec::new();
    let sockets = kernel_sockets();
    let (adopted, helpers) = look_at_processes(model, who, status, &mut bad);
    look_at_sockets(model, who, status, &sockets, &mut bad);
    look_at_files(model, dir, &mut bad);
    let mut same = BTreeMap::new();
    for (name, pid) in [("guard", who.guard), ("daemon", who.daemon)] {
        let mut is = kinds(pid, &sockets);
        is.extend(traits(pid));
        same.insert(name.to_owned(), is);
    }
    for worker in &status.workers {
        for (instance, pid) in pids(status, &worker.name) {
            let mut is = kinds(pid, &sockets);
            look_at_own(model, &worker.name, (&instance, pid), &is, &mut bad);
            if worker.name == "forwarded" {
                // It keeps pipes for clients that come.
                is.clear();
            }
            is.extend(traits(pid));
            same.insert(instance, is);
        }
    }
    look_at_flags(who, status, &sockets, &mut bad);
    for folder in ["/run", "/dev/mqueue"] {
        let mut names = BTreeMap::new();
        list(Path::new(folder), &mut names);
        same.insert(folder.to_owned(), names);
    }
    let memory = [who.guard, who.daemon].map(resident_kib);
    Look {
        bad,
        same,
        memory,
        helpers,
        adopted,
    }
}

/// All processes of this namespace.
pub fn everybody() -> Vec<i32> {
    processes().into_iter().map(|one| one.pid).collect()
}

/// Everything below, without following links.
fn list(folder: &Path, names: &mut BTreeMap<String, usize>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        names.insert(path.display().to_string(), 1);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&path, names);
        }
    }
}

/// Each process is one that should be there, and tells the right revision.
fn look_at_processes(
    model: &Model,
    who: &Who,
    status: &Status,
    bad: &mut Vec<String>,
) -> (usize, String) {
    let ours = std::process::id() as i32;
    let mut known: BTreeMap<i32, String> = BTreeMap::new();
    for worker in &status.workers {
        for (instance, pid) in pids(status, &worker.name) {
            known.insert(pid, instance);
        }
    }
    let all = processes();
    let mut adopted = 0;
    let mut helpers: BTreeMap<&str, usize> = BTreeMap::new();
    for process in &all {
        let Process { pid, parent, words } = process;
        let is_of_listend = [who.daemon, who.guard].contains(parent);
        let has = |word: &str| words.iter().any(|one| one == word);
        let is_known = [1, ours, who.guard, who.daemon].contains(pid);
        // What the soak itself has started is none of listend's.
        if is_known || *parent == ours {
            continue;
        }
        if state(*pid) == Some('Z') {
            bad.push(format!("{pid} is a zombie of {parent}"));
        } else if known.contains_key(pid) {
            adopted += usize::from(*parent != who.daemon);
            if !is_of_listend {
                bad.push(format!("{} ({pid}) is a child of {parent}", known[pid]));
            }
        } else if is_of_listend && has("__write") {
            *helpers.entry("writer").or_default() += 1;
        } else if is_of_listend && has("__watch") {
            *helpers.entry("watch").or_default() += 1;
        } else if is_of_listend && has("web") {
            *helpers.entry("page").or_default() += 1;
        } else if has("backend")
            && known
                .get(parent)
                .is_some_and(|of| of.starts_with("forwarded"))
        {
            *helpers.entry("backend").or_default() += 1;
        } else {
            bad.push(format!(
                "nobody knows {pid}, a child of {parent}: {words:?}"
            ));
        }
    }
    let watchers = usize::from(!model.stopped.contains("watched"));
    for (name, least, most) in [
        ("writer", 0, 1),
        ("watch", watchers, watchers),
        ("page", 0, 1),
        ("backend", 1, 1),
    ] {
        let count = helpers.get(name).copied().unwrap_or(0);
        if count < least || count > most {
            bad.push(format!(
                "{count} processes for {name}, not {least} to {most}"
            ));
        }
    }
    for (pid, instance) in &known {
        let Some(process) = all.iter().find(|one| one.pid == *pid) else {
            bad.push(format!("{instance}: there is no process {pid}"));
            continue;
        };
        let worker = instance.rsplit_once('.').map_or("", |(worker, _)| worker);
        let Some(revision) = model.revisions.get(worker) else {
            continue;
        };
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        let wanted = format!("APP_VERSION=r{revision}");
        if !environment.split('\0').any(|one| one == wanted) {
            let is = environment.split('\0').find(|one| one.starts_with("APP_"));
            bad.push(format!("{instance}, pid {pid}, has {is:?}, not {wanted}"));
        }
        let program = probe_path().to_string_lossy();
        if process.words.first().is_none_or(|word| *word != program) {
            bad.push(format!("{instance}, pid {pid}, is {:?}", process.words));
        }
    }
    (adopted, format!("{helpers:?}"))
}

/// By the kernel's tables exactly what is declared listens, and listend and the workers have it.
fn look_at_sockets(
    model: &Model,
    who: &Who,
    status: &Status,
    sockets: &HashMap<String, String>,
    bad: &mut Vec<String>,
) {
    let mut holders: HashMap<String, Vec<i32>> = HashMap::new();
    for process in processes() {
        for link in descriptors(process.pid) {
            if let Some(inode) = inode(&link) {
                holders
                    .entry(inode.to_owned())
                    .or_default()
                    .push(process.pid);
            }
        }
    }
    let ours = std::process::id() as i32;
    let backends = pids(status, "forwarded");
    let backends: Vec<i32> = backends
        .iter()
        .flat_map(|(_, pid)| children(*pid))
        .collect();
    let mut wanted = model.sockets();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for (inode, text) in sockets {
        let is_meant =
            text.ends_with(" listens") || text.starts_with("udp ") || text.starts_with("unix /");
        let nobody = Vec::new();
        let holders = holders.get(inode).unwrap_or(&nobody);
        // The guard is told of the daemon at a socket of its own.
        let is_of_others = |pid: &i32| {
            let is_guard = *pid == who.guard && text.starts_with("unix /run/listend-guard");
            *pid == ours || backends.contains(pid) || is_guard
        };
        let is_others = !holders.is_empty() && holders.iter().all(is_of_others);
        if !is_meant || is_others {
            continue;
        }
        *found.entry(text).or_default() += 1;
        if !model.sockets().contains(text) {
            bad.push(format!("{text} is not declared; {holders:?} have it"));
        } else if !holders.contains(&who.daemon) {
            bad.push(format!("the daemon does not have {text}; {holders:?} do"));
        }
        wanted.remove(text);
    }
    for text in wanted {
        bad.push(format!("nobody: {text}"));
    }
    for (text, count) in found {
        if count > 1 && !model.may_be_several(text) {
            bad.push(format!("{count} sockets: {text}"));
        }
    }
    // The standard descriptors of a worker may be sockets of no listener (output: journal), which none has here.
    let daemons: BTreeSet<String> = descriptors(who.daemon).into_iter().collect();
    for worker in &status.workers {
        for (instance, pid) in pids(status, &worker.name) {
            let theirs = descriptors(pid);
            let strange = theirs.iter().find(|link| {
                let text = inode(link).and_then(|inode| sockets.get(inode));
                let is_listener = text.is_some_and(|text| text.ends_with(" listens"));
                is_listener && !daemons.contains(*link)
            });
            if let Some(link) = strange {
                bad.push(format!("{instance} ({pid}) has {link}, and the daemon not"));
            }
        }
    }
}

fn look_at_files(model: &Model, dir: &Path, bad: &mut Vec<String>) {
    const OURS: [&str; 9] = [
        "listend.yaml",
        "disk",
        "src",
        "sink",
        "events",
        "flood.py",
        "time",
        "faketime.log",
        "manager",
    ];
    let entries = fs::read_dir(dir).expect("a folder");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names: BTreeSet<String> = names
        .filter(|name| !OURS.contains(&name.as_str()))
        .collect();
    let wanted = model.files();
    let left: Vec<_> = names.difference(&wanted).collect();
    let gone: Vec<_> = wanted.difference(&names).collect();
    if !left.is_empty() || !gone.is_empty() {
        bad.push(format!("files: {left:?} are too many, {gone:?} missing"));
    }
}

/// One request at each endpoint, answered by a process of its worker with the right revision.
pub fn ask_everybody(model: &Model, dir: &Path, closed: &BTreeSet<&str>) -> Vec<String> {
    let mut bad = Vec::new();
    for endpoint in ENDPOINTS {
        if closed.contains(endpoint.name) {
            continue;
        }
        let answer = match ask(endpoint.way, dir) {
            Ok(answer) => answer,
            Err(error) => {
                bad.push(format!("{}: {error}", endpoint.name));
                continue;
            }
        };
        if matches!(endpoint.way, Way::Echo(_) | Way::Page(_)) {
            continue;
        }
        let revision = model.revisions.get(endpoint.worker).copied().unwrap_or(0);
        let word = answer.split_whitespace().next().unwrap_or_default();
        if word != format!("r{revision}") {
            bad.push(format!(
                "{}: answered {word}, not r{revision}",
                endpoint.name
            ));
        }
    }
    bad
}
