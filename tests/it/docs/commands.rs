//! The documents against the program: what they tell people to type is typed.
//!
//! In the documents below, a fenced block that begins with three backticks and
//!
//! - `yaml` is a configuration, which `listend check --no-bind` has to take;
//! - `console` is a session: what stands behind `$ ` is typed, with `> ` for the lines of a command
//!   that has several, and what stands under it has to be what it says;
//! - `sh` is a script, which has to succeed.
//!
//! One shell reads all the sessions and scripts of a document, in their order. It starts in an
//! empty folder and is alone: it has network, processes and /run of its own, so that any port may be
//! used, listend's default paths are free, and nothing that it started survives it.
//!
//! What is said is compared line by line. In a line of the document, `…` stands for anything; a
//! line of it alone stands for any number of lines. Times of the log, and the numbers behind `pid`
//! and `process`, may differ. A command that says nothing in the document may say anything, but has
//! to succeed; one that says something there may fail, as that is what it says. A command in the
//! background (`&`) is waited for until it has said all that stands under it; a `listend` under
//! which nothing stands, until `listend status` gets an answer.
//!
//! Comments of a line of their own, above a block, or for the first two anywhere in the document, say more:
//!
//! - `<!-- needs: curl python3 -->` skips the document where such a program is not installed; `crate:axum`
//!   means that cargo can have that crate without a network, `user:www-data` that there is that user,
//!   `gunicorn:flask` that the Python of gunicorn has the module flask, and `root` that listend or its workers become
//!   another user;
//! - `<!-- long: it compiles -->` skips the document without LISTEND_TEST_LONG, and gives each command more time;
//! - `<!-- file: app.yaml -->` also writes the block, of any kind, to a file of this name;
//! - `<!-- until -->` types each command of a session again until it says what it has to say;
//! - `<!-- not run: it installs packages -->` leaves the block alone. They are counted and told.
//!
//! Blocks of other kinds are left alone. Those of README.md that say `sh run`, `sh daemon` and
//! `yaml check` are the business of docs.rs.

use crate::harness::{TempDir, World, is_root, listend_path, require_tool, servers, skip};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long a command may take. Only a failing one ever takes so long.
const PATIENCE: Duration = Duration::from_secs(40);

/// The same in a document that is `long`.
const LONG_PATIENCE: Duration = Duration::from_secs(900);

/// What a shell of its own is, and how it is alone.
const ALONE: &[&str] = &[
    "--mount",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    /// The line of the document in which it starts, from 1.
    line: usize,
    /// What stands behind the backticks.
    info: String,
    /// What stands between them.
    body: String,
    /// The comments above it, without their marks.
    comments: Vec<String>,
}

impl Block {
    /// What a comment with this name says.
    fn comment(&self, name: &str) -> Option<&str> {
        let mut found = self.comments.iter().filter_map(|comment| {
            let rest = comment.strip_prefix(name)?;
            Some(rest.strip_prefix(':').unwrap_or(rest).trim())
        });
        found.next()
    }
}

/// The fenced blocks of a document.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut comments = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let body = lines.by_ref().take_while(|(_, line)| *line != "```");
            blocks.push(Block {
                line: number + 1,
                info: info.to_owned(),
                body: body.map(|(_, line)| line.to_owned() + "\n").collect(),
                comments: std::mem::take(&mut comments),
            });
            continue;
        }
        let fenced = line.trim_start().starts_with("```");
        assert!(!fenced, "line {}: a block that is indented", number + 1);
        let comment = line.strip_prefix("<!--");
        if let Some(comment) = comment.and_then(|rest| rest.strip_suffix("-->")) {
            comments.push(comment.trim().to_owned());
        } else if !line.is_empty() {
            comments.clear();
        }
    }
    blocks
}

/// A command of a session, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    command: String,
    said: Vec<String>,
}

/// The commands of a session.
fn steps(session: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in session.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let command = command.to_owned();
            let said = Vec::new();
            steps.push(Step { command, said });
            continue;
        }
        let step = steps.last_mut().expect("a session begins with a command");
        match line.strip_prefix('>') {
            Some(more) if step.said.is_empty() && (more.is_empty() || more.starts_with(' ')) => {
                step.command.push('\n');
                step.command
                    .push_str(more.strip_prefix(' ').unwrap_or(more));
            }
            _ => step.said.push(line.to_owned()),
        }
    }
    for step in &mut steps {
        while step.said.last().is_some_and(String::is_empty) {
            step.said.pop();
        }
    }
    steps
}

/// The line without what is another at every run: times, and numbers of processes.
fn timeless(line: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let is_time = word.len() >= 20
            && word.as_bytes().get(10) == Some(&b'T')
            && word.ends_with('Z')
            && word.starts_with(|first: char| first.is_ascii_digit());
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        let behind = out.last().map(|word| word.trim_start_matches('('));
        out.push(if is_time {
            "TIME".to_owned()
        } else if digits > 0 && matches!(behind, Some("pid" | "process")) {
            format!("N{}", &word[digits..])
        } else {
            word.to_owned()
        });
    }
    out.join(" ").trim_end().to_owned()
}

/// Whether a line is what the document has, in which `…` is anything.
fn is_line(shown: &str, line: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in between {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether these are the lines that the document has, all of them or, where more may come, the
/// first.
fn is_text(shown: &[String], lines: &[String], more_may_come: bool) -> bool {
    match shown.split_first() {
        None => lines.is_empty() || more_may_come,
        Some((gap, behind)) if gap == "…" => {
            (0..=lines.len()).any(|skipped| is_text(behind, &lines[skipped..], more_may_come))
        }
        Some((first, behind)) => lines.split_first().is_some_and(|(line, rest)| {
            is_line(first, line) && is_text(behind, rest, more_may_come)
        }),
    }
}

/// The shell of a document.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    statuses: Receiver<i32>,
    folder: TempDir,
    outputs: TempDir,
    count: u32,
    /// How long a command may take.
    patience: Duration,
}

impl Shell {
    /// A new one; if it cannot be alone here, the test is skipped.
    fn new() -> Option<Shell> {
        require_tool("ip")?;
        let unshare = require_tool("unshare")?;
        let mut alone = ALONE.to_vec();
        if !is_root() {
            alone.extend(["--user", "--map-root-user"]);
        }
        let tried = Command::new(&unshare).args(&alone).arg("true").output();
        let tried = tried.expect("start unshare");
        if !tried.status.success() {
            let why = String::from_utf8_lossy(&tried.stderr).into_owned();
            skip(&format!("no namespaces to be had: {why}"));
            return None;
        }
        let folder = TempDir::new();
        let outputs = TempDir::new();
        let bin = outputs.path().join("bin");
        fs::create_dir(&bin).expect("create a folder");
        std::os::unix::fs::symlink(listend_path(), bin.join("listend")).expect("link listend");
        let folders = std::env::join_paths(program_folders()).expect("no folder has a colon");
        let begin = "mount -t tmpfs -o mode=755 tmpfs /run && mount -t tmpfs -o mode=755 tmpfs /srv && \
                     ip link set lo up && exec sh";
        let mut child = Command::new(unshare)
            .args(&alone)
            .args(["sh", "-c", begin])
            .current_dir(folder.path())
            .env_clear()
            .env(
                "PATH",
                format!("{}:{}", bin.display(), folders.to_string_lossy()),
            )
            .env("HOME", folder.path())
            // What compilers keep, and where rustup has put them.
            .envs(
                KEPT.iter()
                    .filter_map(|(name, below)| Some((name, kept(name, below)?))),
            )
            .env("CARGO_NET_OFFLINE", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a shell");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = child.stdout.take().expect("a pipe");
        let (send, statuses) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let status = line.parse().expect("the shell says only a status");
                if send.send(status).is_err() {
                    break;
                }
            }
        });
        Some(Shell {
            child,
            stdin,
            statuses,
            folder,
            outputs,
            count: 0,
            patience: PATIENCE,
        })
    }

    /// Types a command; its status, and the file with what it says. The command cannot read what is
    /// typed behind it, and what it leaves in the background goes on writing to the same file.
    fn run(&mut self, place: &str, command: &str) -> (i32, PathBuf) {
        self.count += 1;
        let output = self.outputs.path().join(self.count.to_string());
        let path = output.display();
        let text = format!(
            "{{ (exit ${{last:-0}})\n{command}\n}} </dev/null >{path} 2>&1\nlast=$?; echo $last\n"
        );
        let typed = self.stdin.write_all(text.as_bytes());
        typed.unwrap_or_else(|error| panic!("{place}: {command}: the shell has gone: {error}"));
        let status = self.statuses.recv_timeout(self.patience);
        let status = status.unwrap_or_else(|error| {
            let said = fs::read_to_string(&output).unwrap_or_default();
            panic!("{place}: `{command}` does not end ({error}); it said:\n{said}")
        });
        (status, output)
    }

    /// Types a step of a session, and compares.
    fn step(&mut self, place: &str, step: &Step, until: bool) {
        let background = step.command.trim_end().ends_with('&');
        let shown: Vec<String> = step.said.iter().map(|line| timeless(line)).collect();
        let deadline = Instant::now() + self.patience;
        let (mut status, mut output) = self.run(place, &step.command);
        loop {
            let said = fs::read(&output).expect("read what a command said");
            let said = String::from_utf8_lossy(&said).into_owned();
            let lines: Vec<String> = said.trim_end().lines().map(timeless).collect();
            let late = Instant::now() > deadline;
            if shown.is_empty() {
                assert_eq!(status, 0, "{place}: `{}` says:\n{said}", step.command);
                if !(background && step.command.starts_with("listend ")) || self.answers(place) {
                    return;
                }
            } else if is_text(&shown, &lines, background) {
                return;
            } else if !background && !until {
                panic!("{place}: `{}` says:\n{said}", step.command);
            }
            assert!(!late, "{place}: `{}` still says:\n{said}", step.command);
            std::thread::sleep(Duration::from_millis(20));
            if until && !background {
                (status, output) = self.run(place, &step.command);
            }
        }
    }

    /// Whether a listend answers.
    fn answers(&mut self, place: &str) -> bool {
        self.run(place, "listend status; test $? -ne 69").0 == 0
    }

    /// Writes a file that the document shows.
    fn file(&self, name: &str, body: &str) {
        let path = self.folder.path().join(name);
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        assert!(inside, "{name} is no name of a file");
        fs::create_dir_all(path.parent().expect("a folder")).expect("create a folder");
        fs::write(path, body).expect("write a file");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The first process of a process namespace takes all others of it along
        // (pid_namespaces(7)), and unshare's `--kill-child` sees to the first.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Variables of compilers, and where below HOME they point to without them.
const KEPT: &[(&str, &str)] = &[
    ("CARGO_HOME", ".cargo"),
    ("GOCACHE", ".cache/go-build"),
    ("RUSTUP_HOME", ".rustup"),
];

fn kept(variable: &str, below: &str) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(below));
    let path = std::env::var_os(variable)
        .map(PathBuf::from)
        .or_else(home)?;
    path.is_dir().then_some(path)
}

/// Where programs are: PATH, and what scripts/test-setup and scripts/server-setup have installed for Python.
fn program_folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    folders.push(crate::servers::source::cache().join("venv/bin"));
    folders.push(servers::environment());
    folders
}

/// Whether this machine has what a document needs.
fn is_there(what: &str) -> bool {
    match what.split_once(':') {
        None if what == "root" => is_root(),
        Some(("crate", name)) => {
            let Some(home) = kept("CARGO_HOME", ".cargo") else {
                return false;
            };
            let sources = fs::read_dir(home.join("registry/src"));
            let sources = sources.into_iter().flatten().flatten();
            let crates =
                sources.flat_map(|source| fs::read_dir(source.path()).into_iter().flatten());
            crates.flatten().any(|one| {
                let file = one.file_name();
                let version = file.to_str().and_then(|file| file.strip_prefix(name));
                let version = version.and_then(|version| version.strip_prefix('-'));
                version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
            })
        }
        Some(("user", name)) => nix::unistd::User::from_name(name).is_ok_and(|user| user.is_some()),
        Some((program, module)) => {
            let folders = program_folders();
            let mut found = folders.iter().map(|folder| folder.join(program));
            let script = found.find(|script| script.is_file());
            let script = script.and_then(|script| fs::read_to_string(script).ok());
            let python = script
                .as_deref()
                .and_then(|text| text.lines().next()?.strip_prefix("#!"));
            python.is_some_and(|python| {
                let mut command = Command::new(python);
                command
                    .args(["-c", &format!("import {module}")])
                    .stderr(Stdio::null());
                command.status().is_ok_and(|status| status.success())
            })
        }
        _ => program_folders()
            .iter()
            .any(|folder| folder.join(what).is_file()),
    }
}

/// What became of the blocks of a document.
#[derive(Debug, Default)]
struct Count {
    configurations: usize,
    commands: usize,
    left_alone: Vec<String>,
}

/// Does all that a document says.
fn follow(document: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{document}: {error}"));
    follow_text(document, &text);
}

/// The same of a text that is called so.
#[expect(clippy::print_stdout, reason = "shown by cargo test -- --show-output")]
pub(super) fn follow_text(document: &str, text: &str) {
    let blocks = blocks(text);
    // Those of the document stand above its words, and not above a block.
    let about = |name: &str| {
        let comments = text.lines().filter_map(|line| {
            let comment = line.strip_prefix("<!--")?.strip_suffix("-->")?.trim();
            comment.strip_prefix(name)?.strip_prefix(": ")
        });
        comments.collect::<Vec<&str>>()
    };
    for what in about("needs").iter().flat_map(|all| all.split_whitespace()) {
        if !is_there(what) {
            skip(&format!("{document}: {what} is not installed"));
            return;
        }
    }
    let long = about("long");
    if let (Some(why), None) = (long.first(), std::env::var_os("LISTEND_TEST_LONG")) {
        skip(&format!("{document}: only with LISTEND_TEST_LONG: {why}"));
        return;
    }
    let world = World::new();
    let Some(mut shell) = Shell::new() else {
        return;
    };
    if !long.is_empty() {
        shell.patience = LONG_PATIENCE;
    }
    let mut count = Count::default();
    for block in &blocks {
        follow_block(document, block, &world, &mut shell, &mut count);
    }
    let left_alone = count.left_alone.len();
    println!(
        "{document}: {} configurations checked, {} commands run, {left_alone} blocks not run",
        count.configurations, count.commands
    );
    for block in count.left_alone {
        println!("  {block}");
    }
}

fn follow_block(
    document: &str,
    block: &Block,
    world: &World,
    shell: &mut Shell,
    count: &mut Count,
) {
    let place = format!("{document}:{}", block.line);
    if let Some(reason) = block.comment("not run") {
        assert!(!reason.is_empty(), "{place}: not run, and why?");
        count.left_alone.push(format!("{place}: {reason}"));
        return;
    }
    if let Some(name) = block.comment("file") {
        shell.file(name, &block.body);
    }
    match block.info.as_str() {
        "yaml" => {
            let finished = world.check(&block.body, &["--no-bind"]);
            assert_eq!(finished.code, Some(0), "{place}: {}", finished.text());
            count.configurations += 1;
        }
        "console" => {
            for step in steps(&block.body) {
                shell.step(&place, &step, block.comment("until").is_some());
                count.commands += 1;
            }
        }
        "sh" if document == "README.md" => {
            count.left_alone.push(format!("{place}: for people to try"));
        }
        "sh" => {
            let (status, output) = shell.run(&place, &format!("set -e\n{}set +e", block.body));
            let said = fs::read_to_string(output).unwrap_or_default();
            assert_eq!(status, 0, "{place}: {said}");
            count.commands += 1;
        }
        other => {
            let is_session = block.body.lines().any(|line| line.starts_with("$ "));
            let may_be = document == "README.md" && other.is_empty();
            assert!(!is_session || may_be, "{place}: is it a `console`?");
        }
    }
}

#[test]
fn readme() {
    follow("README.md");
}

#[test]
fn tutorial() {
    follow("docs/tutorial.md");
}

#[test]
fn migrating() {
    follow("docs/migrating.md");
}

#[test]
fn comparison() {
    follow("docs/comparison.md");
}

#[test]
fn troubleshooting() {
    follow("docs/troubleshooting.md");
}

#[test]
fn a_block_has_its_comments_and_a_session_its_commands() {
    let text = "# Title\n\n<!-- old -->\nwords\n<!-- file: a.yaml -->\n<!-- until -->\n\n```console\n\
                $ one \\\n> two\nsaid\n> said as well\n$ three\n\n```\n";
    let found = blocks(text);
    assert_eq!(found.len(), 1);
    let block = &found[0];
    assert_eq!((block.line, block.info.as_str()), (8, "console"));
    assert_eq!(block.comment("file"), Some("a.yaml"));
    assert_eq!(block.comment("until"), Some(""));
    assert_eq!(block.comment("old"), None);
    let step = |command: &str, said: &[&str]| Step {
        command: command.to_owned(),
        said: said.iter().map(|&line| line.to_owned()).collect(),
    };
    let wanted = [
        step("one \\\ntwo", &["said", "> said as well"]),
        step("three", &[]),
    ];
    assert_eq!(steps(&block.body), wanted);
}

#[test]
fn a_text_is_compared_but_for_what_differs_at_every_run() {
    let lines =
        |lines: &[&str]| -> Vec<String> { lines.iter().map(|line| timeless(line)).collect() };
    let said = lines(&[
        "2026-11-22T12:36:33.128Z INFO app.0: started, pid 4711",
        "held by nc (pid 7, user root), listening on 127.0.0.1:80",
        "the end",
    ]);
    let is = |shown: &[&str], more| is_text(&lines(shown), &said, more);
    let log = "2025-01-01T00:00:00.000Z INFO app.0: started, pid 1";
    let held = "held by nc (pid 13762, user root), listening on 127.0.0.1:80";
    assert!(is(&[log, held, "the end"], false));
    assert!(is(&["…", "the end"], false));
    assert!(is(&["… INFO app.0: …", "…"], false));
    assert!(is(&[log], true));
    assert!(!is(&[log], false));
    assert!(!is(&["…", "the end", "and more"], false));
    assert!(!is(
        &[
            log,
            "held by nc (pid 7, user root), listening on 127.0.0.1:81",
            "…"
        ],
        false
    ));
    assert!(!is(&["… WARN …", "…"], false));
    assert!(!is(&["the end"], false));
}

/// A document with a daemon, and this session behind its start.
fn document(session: &str) -> String {
    format!(
        "<!-- file: conf/app.yaml -->\n```yaml\nlisteners: {{ web: 127.0.0.1:8080 }}\nworkers:\n  \
         app: {{ command: [listend, hello-worker], listeners: [web] }}\n```\n```console\n\
         $ cd conf\n$ listend run app.yaml &\n{session}```\n"
    )
}

#[test]
fn a_daemon_in_the_background_is_waited_for() {
    let session = "$ listend status\nlistend …\n\nLISTENER …\nweb  …  listening\n\nWORKER …\napp …\n\
                   $ pwd | grep -c conf\n1\n$ kill $! && wait\n$ listend status\n\
                   listend: no daemon answers …\n…\n$ echo $?\n69\n";
    follow_text("a document", &document(session));
}

#[test]
fn what_is_not_so_is_found() {
    if Shell::new().is_none() {
        return;
    }
    for wrong in [
        "$ listend status\nlistend …\n\nLISTENER …\nweb  …  missing\n…\n",
        "$ listend restart nobody\n",
        "$ echo one; echo two\none\n",
        "$ (exit 3)\n",
    ] {
        let text = document(wrong);
        let found = std::panic::catch_unwind(|| follow_text("a document", &text));
        assert!(found.is_err(), "{wrong}");
    }
    let bad = "```yaml\nlisteners: { web: nowhere }\n```\n";
    let found = std::panic::catch_unwind(|| follow_text("a document", bad));
    assert!(found.is_err());
}
