//! The report of `listend explain` for people: labels on the left, at most 100 columns.

use super::facts::{ConfiguredWorker, Explanation};
use crate::config::{Setting, Source};
use crate::control::short;
use crate::diagnose::{
    Audience, Bind, Facts, HolderFacts, PathFacts, PortFacts, QueueFacts, Reach, State, unseen,
};
use crate::report::{Kind, Problem, Sources};
use crate::sandbox::{self, Preset, Sandbox};
use std::fmt::Write;

/// The column in which the values start.
const MARGIN: usize = 14;
/// The same for the settings of a worker, whose names are longer.
const MARGIN_OF_SETTINGS: usize = 30;
/// No line is longer, but for words that are.
const WIDTH: usize = 100;

/// Addresses beyond these are counted, not listed.
const WAYS_SHOWN: usize = 12;

/// The whole report.
pub(super) fn text(explanation: &Explanation, sources: &Sources) -> String {
    let mut page = Page::default();
    if let Some(configured) = &explanation.configured {
        page.title(&format!("listener {}", configured.name));
        if let Some(place) = configured.place {
            page.line("written", &sources.position(place));
            page.line("", sources.line(place).unwrap_or("").trim());
        }
        let workers = match configured.workers.len() {
            0 => "no worker uses it".to_owned(),
            _ => configured.workers.join(", "),
        };
        page.line("workers", &workers);
    }
    for facts in &explanation.sockets {
        page.title(&facts.address);
        let findings = &explanation.findings;
        let taken = |problem: &Problem| match problem.kind {
            Kind::Errno(errno) => errno == nix::libc::EADDRINUSE,
            kind => matches!(kind, Kind::LiveSocket | Kind::OrphanedWorkers),
        };
        let mut errors = findings.errors.iter().filter(|one| about(one, facts));
        socket(&mut page, facts, errors.any(taken));
        let held = facts.holders.as_ref().is_some_and(|all| !all.is_empty());
        for error in findings.errors.iter().filter(|one| about(one, facts)) {
            problem(&mut page, "why not", error, held);
        }
        for advice in findings.advice.iter().filter(|one| about(one, facts)) {
            problem(&mut page, "advice", advice, held);
        }
    }
    if let Some(configured) = &explanation.worker {
        worker(&mut page, configured, sources);
    }
    page.text
}

/// The settings that differ from the defaults come first.
fn worker(page: &mut Page, worker: &ConfiguredWorker, sources: &Sources) {
    page.title(&format!("worker {}", worker.name));
    page.line("written", &sources.position(worker.place));
    for advice in &worker.advice {
        problem(page, "advice", advice, false);
    }
    let mut settings: Vec<(u8, &Setting, String)> = Vec::new();
    for setting in &worker.settings {
        let (rank, source) = match setting.source {
            Source::Written(place) => (0, sources.position(place)),
            Source::Preset(name) => (1, format!("preset {name}")),
            Source::Default => (2, "default".to_owned()),
        };
        settings.push((rank, setting, source));
    }
    settings.sort_by_key(|(rank, ..)| *rank);
    page.margin = MARGIN_OF_SETTINGS;
    for (_, Setting { key, value, .. }, source) in settings {
        page.line(key, &format!("{value} ({source})"));
    }
    sandbox(page, worker.sandbox.as_ref());
    page.margin = MARGIN;
}

/// What a worker is kept from, as a table; of one that is kept from nothing only how to begin.
fn sandbox(page: &mut Page, sandbox: Option<&Sandbox>) {
    let lines = sandbox::lines(sandbox);
    let score = sandbox::score(&lines);
    let Some(sandbox) = sandbox else {
        page.line(
            "sandbox",
            &format!("none: {score} of 10 are open; begin with `sandbox: basic`"),
        );
        return;
    };
    page.line("sandbox", &format!("{sandbox}: {score} of 10 are open"));
    for line in &lines {
        let state = match line.closed {
            100 => line.enforced_by.to_owned(),
            0 => format!("open: {}", line.without),
            _ => format!("partly, by {}: {}", line.enforced_by, line.without),
        };
        page.line(
            &format!("  {}", line.key),
            &format!("{} ({state})", line.value),
        );
    }
    if let Some(next) = sandbox::next_step(&lines) {
        let stricter = sandbox.preset.and_then(Preset::next);
        let stricter = stricter.map_or(String::new(), |one| {
            format!(", or `preset: {}`", one.word())
        });
        page.line("  next", &format!("`{}`{stricter}", next.key));
    }
}

fn about(problem: &Problem, facts: &Facts) -> bool {
    problem.address.as_ref() == Some(&facts.address)
}

/// `held`: who holds the address stands above.
fn problem(page: &mut Page, label: &str, problem: &Problem, held: bool) {
    // The words of an errno end with its name.
    let code = match problem.kind {
        Kind::Errno(_) => String::new(),
        kind => format!(" [{}]", kind.code()),
    };
    page.line(label, &format!("{}{code}", problem.message));
    for cause in &problem.causes {
        if !(held && cause.starts_with("held by ")) {
            page.line("", &format!("cause: {cause}"));
        }
    }
    if let Some(hint) = &problem.hint {
        page.line("", &format!("hint: {hint}"));
    }
}

/// `taken` if somebody has the address, seen or not.
fn socket(page: &mut Page, facts: &Facts, taken: bool) {
    page.line("what", &what(facts));
    holders(page, facts, taken);
    page.line(
        "bind",
        match facts.bind {
            Bind::Possible => "would work (bound, then released)",
            Bind::Impossible => "would fail",
            Bind::HeldByListend => "is held by the listend that runs this configuration",
            Bind::LeftOut => "would be left out: this machine does not have it",
        },
    );
    if let Some(reach) = &facts.reach {
        self::reach(page, reach);
    }
    if let Some(port) = &facts.port {
        self::port(page, port);
    }
    if let Some(queue) = facts.queue {
        self::queue(page, queue, facts);
    }
    if let Some(path) = &facts.path {
        self::path(page, path);
    }
}

fn what(facts: &Facts) -> String {
    let kind = match facts.kind {
        "tcp" => "TCP",
        "udp" => "UDP",
        "mptcp" => "MPTCP",
        "sctp" => "SCTP",
        "udplite" => "UDP-Lite",
        "unix-stream" => "unix stream socket",
        "unix-dgram" => "unix datagram socket",
        "unix-seqpacket" => "unix seqpacket socket",
        "mqueue" => "POSIX message queue",
        "fifo" => "FIFO",
        "special" => "special file",
        other => other,
    };
    let family = match (facts.family, facts.dual_stack) {
        (Some("ipv4"), _) => " on IPv4",
        (_, Some(true)) => " on IPv6 and IPv4 (dual-stack)",
        (Some(_), _) => " on IPv6 only",
        _ if facts.address.starts_with('@') => ", abstract: it has no file and no permissions",
        _ => "",
    };
    let scope = facts.scope.as_ref();
    let scope = scope.map_or_else(String::new, |name| format!(", scope {name}"));
    format!("{kind}{family}{scope}")
}

fn holders(page: &mut Page, facts: &Facts, taken: bool) {
    let Some(holders) = &facts.holders else {
        page.line("held by", "unknown: the kernel has no table of it here");
        return;
    };
    if holders.is_empty() {
        let text = match (taken, facts.all_visible) {
            (false, _) => "nobody",
            (_, true) => "no process visible: it may be in another network or process namespace",
            (_, false) => "no process visible: run as root to see the processes of other users",
        };
        page.line("held by", text);
    }
    for holder in holders {
        page.line("held by", &self::holder(holder, facts));
        if let (Some(since), Some(age)) = (&holder.since, holder.age) {
            page.line("", &format!("since {since} ({} ago)", short(age)));
        }
    }
}

fn holder(holder: &HolderFacts, facts: &Facts) -> String {
    let who = match (&holder.process, &holder.socket_user) {
        (Some(process), _) => {
            let unit = process.unit.as_ref();
            let unit = unit.map_or_else(String::new, |unit| format!(", {unit}"));
            let more = match holder.pids.len().saturating_sub(1) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "{} (pid {}, user {}{unit}){more}",
                process.command, process.pid, process.user
            )
        }
        (None, Some(user)) if facts.all_visible => {
            format!("a process of user {user}, {}", unseen(user))
        }
        (None, Some(user)) => format!("a process of user {user} (run as root to see it)"),
        (None, None) => "a process that this user may not see".to_owned(),
    };
    let remote = holder.remote.as_deref().unwrap_or("?");
    let local = &holder.local;
    match holder.state {
        State::Server if facts.queue.is_some() => format!("{who}, listening on {local}"),
        State::Server => format!("{who}, bound to {local}"),
        State::Connection => format!("{who}, a connection from {local} to {remote}"),
        State::Closing => {
            format!("no process: a connection to {remote} that the peer has not closed yet")
        }
        State::TimeWait => format!("no process: a connection to {remote} in TIME_WAIT"),
    }
}

fn reach(page: &mut Page, reach: &Reach) {
    page.line("reach", reach.who.words());
    for way in reach.through.iter().take(WAYS_SHOWN) {
        let text = format!(
            "{} ({}, network {})",
            way.address, way.interface, way.network
        );
        page.line("", &text);
    }
    let more = reach.through.len().saturating_sub(WAYS_SHOWN);
    if more > 0 {
        page.line("", &format!("and {more} more addresses"));
    }
    if reach.who > Audience::ThisMachine {
        page.line("", "firewalls were not checked");
    }
}

fn port(page: &mut Page, port: &PortFacts) {
    let privileged = if port.privileged {
        format!("privileged (below {})", port.unprivileged_start)
    } else {
        format!("not privileged (from {} on)", port.unprivileged_start)
    };
    let range = port.ephemeral_range;
    let range = range.map_or_else(String::new, |(low, high)| format!(" ({low}-{high})"));
    let not = |yes: bool| if yes { "" } else { "not " };
    page.line(
        "port",
        &format!(
            "{}: {privileged}, {}ephemeral{range}, {}reserved",
            port.number,
            not(port.ephemeral),
            not(port.reserved)
        ),
    );
    if port.registered.is_empty() {
        page.line("registered", "not with IANA");
    }
    for entry in &port.registered {
        let about = match entry.description {
            "" => String::new(),
            words => format!(": {words}"),
        };
        let transports = entry.transports.join(", ");
        page.line(
            "registered",
            &format!("{} ({transports}){about}", entry.name),
        );
    }
}

fn queue(page: &mut Page, queue: QueueFacts, facts: &Facts) {
    let limit = queue
        .somaxconn
        .map_or_else(String::new, |limit| format!(", net.core.somaxconn {limit}"));
    let holders = facts.holders.iter().flatten();
    let waiting: Vec<u32> = holders.filter_map(|holder| holder.waiting).collect();
    let now = match waiting.iter().max() {
        Some(most) => format!("; {most} waiting now"),
        None => String::new(),
    };
    page.line(
        "queue",
        &format!("{} (backlog {}{limit}){now}", queue.limit, queue.backlog),
    );
}

fn path(page: &mut Page, path: &PathFacts) {
    let PathFacts {
        owner, group, mode, ..
    } = path;
    let found = match path.found {
        "nothing" => format!("does not exist; it would be {owner}:{group} with mode {mode}"),
        found => format!("{found} exists: {owner}:{group} with mode {mode}"),
    };
    page.line("path", &found);
    for (index, who) in path.who.iter().enumerate() {
        page.line(if index == 0 { "who" } else { "" }, who);
    }
}

/// Text that is written line by line.
struct Page {
    text: String,
    /// The column in which the values start.
    margin: usize,
}

impl Default for Page {
    fn default() -> Self {
        Page {
            text: String::new(),
            margin: MARGIN,
        }
    }
}

// Writing into a String cannot fail, so the results of write! are dropped here.
impl Page {
    fn title(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let _ = writeln!(self.text, "{}", clean(title));
    }

    /// A label and a value, which is wrapped between words.
    fn line(&mut self, label: &str, value: &str) {
        let value = clean(value);
        let mut lead = label;
        let mut line = String::new();
        for word in value.split(' ') {
            let length = line.chars().count() + 1 + word.chars().count();
            if !line.is_empty() && self.margin + length > WIDTH {
                self.put(lead, &line);
                lead = "";
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.put(lead, &line);
    }

    fn put(&mut self, label: &str, line: &str) {
        let width = self.margin - 3;
        let _ = writeln!(self.text, "  {label:width$} {line}");
    }
}

/// Names of processes and paths stand in it, and it may go to a terminal.
fn clean(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_wrapped_under_their_start() {
        let mut page = Page::default();
        page.line("why", &"word ".repeat(40));
        assert!(page.text.lines().count() > 1);
        assert!(page.text.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(
            page.text
                .lines()
                .skip(1)
                .all(|line| line.starts_with(&" ".repeat(MARGIN)))
        );
    }
}
