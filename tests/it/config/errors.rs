//! Mistakes in the YAML: all of them in one run, each with its place, and exit code 78.

use crate::harness::{Start, World, listend_path, require_root, require_tool};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

/// EX_CONFIG of sysexits.h.
const CONFIG: i32 = 78;

/// Kind, line and column of every error.
fn places(json: &Value) -> Vec<(String, u64, u64)> {
    let errors = json["errors"].as_array().expect("a list of errors");
    errors
        .iter()
        .map(|error| {
            let number = |key: &str| error[key].as_u64().unwrap_or(0);
            let kind = error["kind"].as_str().expect("a kind");
            (kind.to_owned(), number("line"), number("column"))
        })
        .collect()
}

fn place(kind: &str, line: u64, column: u64) -> (String, u64, u64) {
    (kind.to_owned(), line, column)
}

// Rule: "Every mistake of a file is reported in one run, each with file:line:column".
#[test]
fn every_mistake_of_a_file_is_reported_in_one_run() {
    let world = World::new();
    let yaml = "listeners:
  web: 127.0.0.1:99999
  api: { address: '127.0.0.1:9000', baklog: 5 }
  deep: { address: '127.0.0.1:9001', backlog: lots }
  bad name: 127.0.0.1:9002
workers:
  app:
    command: [app]
    listeners: [wep]
    stop_signal: SIGTREM
    user: [a, list]
  empty:
    command: []
  none: { listeners: [api] }
  hold: { command: [a, '{fd:nope}'], listeners: [api] }
";
    let json = world.check(yaml, &["--json"]).expect_code(CONFIG).json();
    let mut found = places(&json);
    found.sort_by_key(|(_, line, column)| (*line, *column));
    let expected = [
        place("bad-address", 2, 8),
        place("unknown-key", 3, 37),
        place("bad-value", 4, 47),
        place("bad-name", 5, 3),
        place("unknown-listener", 9, 17),
        place("unknown-signal", 10, 18),
        place("wrong-type", 11, 11),
        place("empty-command", 13, 14),
        place("missing-key", 14, 3),
        place("unknown-listener", 15, 25),
    ];
    let kinds = |list: &[(String, u64, u64)]| -> Vec<(String, u64)> {
        list.iter()
            .map(|(kind, line, _)| (kind.clone(), *line))
            .collect()
    };
    assert_eq!(kinds(&found), kinds(&expected), "{json:#}");
    // Where a missing key is missing, and where in a word a placeholder stands, is a matter of
    // taste; everything else has one place.
    for (found, wanted) in found.iter().zip(&expected) {
        if !["missing-key", "bad-template", "wrong-type"].contains(&wanted.0.as_str()) {
            assert_eq!(found, wanted, "{json:#}");
        }
    }
}

// Rule: "with file:line:column, the source line with a caret, and a "did you mean"".
#[test]
fn run_shows_place_line_caret_and_suggestion_and_exits_with_78() {
    let world = World::new();
    let yaml = "listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, touch, $DIR/marker]
    listenres: [web]
";
    let finished = world.run(yaml).finish().expect_code(CONFIG);
    let file = world.path("listend.yaml");
    let head = format!("{}:5:5: error:", file.display());
    assert!(finished.stderr.contains(&head), "{finished:#?}");
    assert!(
        finished.stderr.contains("5 |     listenres: [web]"),
        "{finished:#?}"
    );
    assert!(finished.stderr.contains("|     ^^^^^^^^^"), "{finished:#?}");
    assert!(
        finished.stderr.contains("did you mean `listeners`"),
        "{finished:#?}"
    );
    assert!(
        !finished.stderr.contains('\x1b'),
        "no colours in a pipe: {finished:#?}"
    );
    assert!(!world.path("marker").exists());
}

#[test]
fn suggestions_are_given_for_listeners_signals_and_users() {
    let world = World::new();
    let yaml = "listeners: { webserver: '127.0.0.1:0' }
workers:
  a: { command: [a], listeners: [webservr] }
  b: { command: [b], listeners: [webserver], stop_signal: SIGTREM }
  c: { command: [c], listeners: [webserver], user: nobdy }
";
    let text = world.check(yaml, &[]).expect_code(CONFIG).text();
    for suggestion in ["webserver", "SIGTERM", "nobody"] {
        let wanted = format!("did you mean `{suggestion}`");
        assert!(text.contains(&wanted), "no {wanted} in {text}");
    }
}

#[test]
fn what_to_write_instead_is_said() {
    let world = World::new();
    for (yaml, hint) in [
        (
            "listeners: { web: [::1]:80 }",
            "quote an address with brackets",
        ),
        (
            "listeners: { web: [[::]:80] }",
            "quote an address with brackets",
        ),
        ("listeners: [web]", "write each as `NAME: VALUE`"),
        (
            "listeners: { web: '127.0.0.1:80,127.0.0.1:81' }",
            "or a list",
        ),
        (
            "listeners: { web: 'ssl:127.0.0.1:80' }",
            "write `127.0.0.1:80`",
        ),
        ("workers: { a: { command: { b: c } } }", "or a list of them"),
        (
            "workers: { a: { command: b, environment: [C=d] } }",
            "`NAME: VALUE`",
        ),
        (
            "workers: { a: { command: b, restart_policy: c } }",
            "`restart`",
        ),
        ("workers: { a: { command: b, memory: 5M } }", "`memory_max`"),
        (
            "workers: { a: { command: b, limits: { memory: 5M } } }",
            "`memory_max`",
        ),
        (
            "workers: { a: { command: b, limits: { memory_max: 5M } } }",
            "inside `sandbox:`",
        ),
        (
            "workers: { a: { command: b, type: notify } }",
            "`ready: notify`",
        ),
        (
            "workers: { a: { command: b, user: nosuch-user } }",
            "create the user",
        ),
        (
            "workers: { a: { command: b, environment_file: /nosuch } }",
            "makes the file optional",
        ),
        (
            "workers: { a: { command: b, environment_file: /etc } }",
            "name a file of lines",
        ),
    ] {
        let text = world.check(yaml, &["--no-bind"]).expect_code(CONFIG).text();
        assert!(text.contains(hint), "no {hint} in {text}");
    }
}

// Rule: "duplicate address (also across wildcard and specific address where the kernel would
// refuse it)", "so `0.0.0.0:80` and `[::]:80` never collide".
#[test]
fn addresses_that_the_kernel_would_refuse_together_are_found_before_binding() {
    let world = World::new();
    for (first, second, collide) in [
        ("127.0.0.1:8080", "127.0.0.1:8080", true),
        ("0.0.0.0:8080", "127.0.0.1:8080", true),
        ("127.0.0.1:8080", "0.0.0.0:8080", true),
        (":8080", "127.0.0.1:8080", true),
        (":8080", "0.0.0.0:8080", true),
        (":8080", "[::1]:8080", true),
        ("[::]:8080", "[::1]:8080", true),
        ("localhost:8080", "127.0.0.1:8080", true),
        ("unix:/run/a.sock", "unix:/run/a.sock", true),
        ("unix:/run/a.sock", "unix-dgram:/run/a.sock", true),
        ("unix:/run/a.sock", "unix:/run//./a.sock", true),
        ("unix:@a", "unix:@a", true),
        ("udp://127.0.0.1:53", "udp://127.0.0.1:53", true),
        ("0.0.0.0:8080", "[::]:8080", false),
        ("127.0.0.1:8080", "[::1]:8080", false),
        ("127.0.0.1:8080", "127.0.0.2:8080", false),
        ("127.0.0.1:8080", "udp://127.0.0.1:8080", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
        ("unix:@a", "unix-dgram:@a", false),
        ("unix:/run/a.sock", "unix:@/run/a.sock", false),
    ] {
        let yaml = format!("listeners:\n  first: '{first}'\n  second: '{second}'\n");
        let finished = world.check(&yaml, &["--json", "--no-bind"]);
        let code = finished.code;
        let json = finished.json();
        if collide {
            assert_eq!(code, Some(CONFIG), "{first} and {second}: {json:#}");
            let found = places(&json);
            assert_eq!(
                found,
                [place("duplicate-address", 3, 11)],
                "{first} and {second}"
            );
            assert!(json["errors"][0].to_string().contains("first"), "{json:#}");
        } else {
            assert_eq!(code, Some(0), "{first} and {second}: {json:#}");
        }
    }
}

// Rule: "drop-ins `conf.d/*.yaml` in the same folder (the same name twice is an error that shows
// both places)".
#[test]
fn drop_ins_are_read_and_a_name_in_two_files_shows_both_places() {
    let world = World::new();
    fs::create_dir(world.path("conf.d")).expect("create a folder");
    world.write(
        "conf.d/10-more.yaml",
        "listeners:\n  more: unix:$DIR/more.sock\n",
    );
    world.write("conf.d/ignored.txt", "no: yaml\n");
    let daemon = world.run(
        "
listeners: { web: 'unix:$DIR/web.sock' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [web, more] } }
",
    );
    let env = world.puppet().report.env;
    assert_eq!(env["LISTEN_FDNAMES"], "web:more");
    daemon.stop();

    world.write(
        "conf.d/20-twice.yaml",
        "\nlisteners:\n  web: unix:$DIR/other.sock\n",
    );
    let yaml = "listeners:\n  web: 'unix:$DIR/web.sock'\n";
    let json = world.check(yaml, &["--json"]).expect_code(CONFIG).json();
    let error = &json["errors"][0];
    assert_eq!(error["kind"], "duplicate-name", "{json:#}");
    let both = error.to_string();
    assert!(
        both.contains("20-twice.yaml") && both.contains("listend.yaml"),
        "{both}"
    );
    let text = world.check(yaml, &[]).text();
    assert!(text.contains("conf.d/20-twice.yaml:3:3"), "{text}");
    assert!(text.contains("listend.yaml:2:3"), "{text}");
}

#[test]
fn a_key_twice_in_one_mapping_is_an_error() {
    let world = World::new();
    let yaml = "listeners:\n  web: 127.0.0.1:0\n  web: 127.0.0.1:0\n";
    let json = world.check(yaml, &["--json"]).expect_code(CONFIG).json();
    assert_eq!(places(&json), [place("duplicate-key", 3, 3)]);
}

// Rule: "Never let two live workers with opposite needs share one listener."
#[test]
fn two_workers_that_want_one_listener_blocking_and_nonblocking_are_an_error() {
    let world = World::new();
    let yaml = "listeners: { web: '127.0.0.1:0' }
workers:
  php: { command: [$PROBE, serve], listeners: [web] }
  tokio: { command: [$PROBE, serve], listeners: [web], nonblocking: true }
";
    let json = world.check(yaml, &["--json"]).expect_code(CONFIG).json();
    let kinds: Vec<_> = places(&json).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["nonblocking-conflict"]);
}

// Rule: "A value that a later version of listend will take."
#[test]
fn a_protocol_that_cannot_pass_a_socket_is_told_from_a_typing_error() {
    let world = World::new();
    let yaml = "listeners: { web: '127.0.0.1:0', dns: 'udp://127.0.0.1:0' }
workers:
  a: { command: [a], listeners: [dns], handoff: nginx }
  b: { command: [b], listeners: [web], activation: eeger }
";
    let json = world.check(yaml, &["--json"]).expect_code(CONFIG).json();
    let kinds: Vec<_> = places(&json).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["bad-value", "bad-value"], "{json:#}");
}

#[test]
fn a_missing_file_and_a_broken_one_exit_with_78() {
    let world = World::new();
    let missing = world.path("missing.yaml");
    let words = ["check", "--json", "-c", missing.to_str().expect("UTF-8")];
    let json = world.finish(words).expect_code(CONFIG).json();
    assert_eq!(json["errors"][0]["kind"], "unreadable", "{json:#}");
    for broken in [
        "listeners: [",
        "listeners:\n\tweb: 127.0.0.1:1\n",
        "a: b: c",
        "listeners: { web: '",
        "%",
    ] {
        let finished = world.check(broken, &["--json"]).expect_code(CONFIG);
        let json = finished.json();
        assert_eq!(
            json["errors"][0]["kind"], "yaml-syntax",
            "{broken:?}: {json:#}"
        );
        assert!(json["errors"][0]["line"].as_u64() >= Some(1), "{json:#}");
    }
}

// Rule: "Never a panic, whatever the bytes".
#[test]
fn bytes_that_are_no_text_are_an_error_and_no_panic() {
    let world = World::new();
    let file = world.path("bytes.yaml");
    let deep = "[".repeat(100_000);
    let samples: [&[u8]; 6] = [
        b"\xff\xfe\x00\x01",
        b"\0",
        b"listeners: \xc3\x28",
        deep.as_bytes(),
        b"a: &a [*a, *a]",
        b"? [x]\n: y",
    ];
    for bytes in samples {
        fs::write(&file, bytes).expect("write");
        let words = ["check", "-c", file.to_str().expect("UTF-8")];
        let finished = world.finish(words);
        assert_eq!(finished.code, Some(CONFIG), "{finished:#?}");
        assert!(!finished.text().contains("panicked"), "{finished:#?}");
    }
}

// Rule: a process may write the configuration, and take its time; without one nothing is waited for.
#[test]
fn a_fifo_is_read_if_a_process_writes_to_it() {
    let world = World::new();
    let fifo = world.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).expect("a FIFO");
    let check = || world.start(Start::new(["check", "--no-bind", "$DIR/fifo"]));
    let nobody = check().finish().expect_code(CONFIG);
    assert!(
        nobody.stderr.contains("a FIFO, and no process writes"),
        "{nobody:#?}"
    );
    // It waits for the reader.
    let open = || fs::File::options().write(true).open(&fifo).expect("open");
    let waits = check();
    let mut writer = open();
    writer
        .write_all(b"listeners: { web: 'unix:@it/fifo' }")
        .expect("write");
    drop(writer);
    waits.finish().expect_code(0);
    // It has nothing to say.
    let waits = check();
    drop(open());
    waits.finish().expect_code(0);
    // It says nothing for longer than is waited for one.
    let Some(bash) = require_tool("bash") else {
        return;
    };
    let slow =
        "exec \"$0\" check --no-bind <(sleep 5.5; echo 'listeners: { web: \"unix:@it/fifo\" }')";
    let mut start = Start::of(&bash, ["-c", slow]);
    start.words_behind([listend_path().to_str().expect("UTF-8")]);
    world.start(start).finish().expect_code(0);
}

#[test]
fn a_missing_environment_file_is_an_error_unless_marked() {
    let world = World::new();
    let yaml = "workers:
  app:
    command: [$PROBE, serve]
    environment_file: [-$DIR/missing.env, $DIR/missing.env]
";
    let json = world.check(yaml, &["--json"]).expect_code(CONFIG).json();
    assert_eq!(
        places(&json),
        [place("environment-file", 4, 0)].map(|mut one| {
            one.2 = json["errors"][0]["column"].as_u64().unwrap_or(0);
            one
        })
    );
    assert_eq!(json["errors"].as_array().map(Vec::len), Some(1), "{json:#}");
}

// What a worker's user makes of the path decides neither what root reads nor what it tells.
#[test]
fn an_environment_file_of_the_worker_shows_nothing_of_roots() {
    if !require_root() {
        return;
    }
    const NOBODY: u32 = 65_534;
    let world = World::new();
    fs::create_dir(world.path("home")).expect("create a folder");
    chown(world.path("home"), Some(NOBODY), Some(NOBODY)).expect("chown");
    let yaml = "workers:
  app:
    command: [$PROBE, serve]
    user: nobody
    environment_file: $DIR/home/env
";
    let secret = world.write("secret", "root:$6$hash:19000\nTOKEN=hidden\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("chmod");
    symlink(&secret, world.path("home/env")).expect("link");
    let refused = world.check(yaml, &["--dump", "plan"]).expect_code(CONFIG);
    let text = refused.text();
    assert!(text.contains("home/env is a symbolic link that"), "{text}");
    assert!(!text.contains("hash") && !text.contains("hidden"), "{text}");
    // With what it may read itself it may do as it likes, and still no text is told.
    let own = world.write("home/own", "A=1\nroot:$6$hash:19000\n");
    fs::remove_file(world.path("home/env")).expect("remove");
    symlink(&own, world.path("home/env")).expect("link");
    let wrong = world.check(yaml, &[]).expect_code(CONFIG).text();
    assert!(
        wrong.contains("home/env:2:1") && wrong.contains("no `=`"),
        "{wrong}"
    );
    assert!(!wrong.contains("hash"), "{wrong}");
    fs::write(&own, "A=1\n").expect("write");
    world.check(yaml, &["--no-bind"]).expect_code(0);
}

// Rule: "Exit codes: … 64 usage".
#[test]
fn a_wrong_command_line_exits_with_64() {
    let world = World::new();
    let wrong: [&[&str]; 6] = [
        &["no-such-verb"],
        &["run", "--no-such-option"],
        &["check", "-c"],
        &["exec"],
        &["exec", "-l", "127.0.0.1:0"],
        &[],
    ];
    for words in wrong {
        let finished = world.finish(words.iter().copied());
        assert_eq!(finished.code, Some(64), "{words:?}: {finished:#?}");
        assert!(!finished.stderr.is_empty(), "{words:?}");
    }
}

// Rule: "Every verb has `--help`".
#[test]
fn help_and_version_go_to_standard_output_with_exit_code_0() {
    let world = World::new();
    let good: [&[&str]; 7] = [
        &["--help"],
        &["--version"],
        &["run", "--help"],
        &["check", "--help"],
        &["exec", "--help"],
        &["hello-worker", "--help"],
        &["help"],
    ];
    for words in good {
        let finished = world.start(Start::new(words.iter().copied())).finish();
        assert_eq!(finished.code, Some(0), "{words:?}: {finished:#?}");
        assert!(!finished.stdout.is_empty(), "{words:?}");
        assert!(finished.stderr.is_empty(), "{words:?}: {finished:#?}");
    }
}

/// The kinds of all advice.
fn advice(json: &Value) -> Vec<&str> {
    let advice = json["advice"].as_array().expect("a list of advice");
    let kinds = advice
        .iter()
        .map(|one| one["kind"].as_str().expect("a kind"));
    kinds.collect()
}

// execve(2): MAX_ARG_STRLEN, 32 pages with the NUL, and a quarter of the stack for everything.
#[test]
fn what_execve_would_not_take_is_refused_with_its_place() {
    let world = World::new();
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page = usize::try_from(page.expect("sysconf").expect("a number")).expect("positive");
    let longest = 32 * page;
    let check = |value: usize, more: &str| {
        let value = "x".repeat(value);
        let yaml = format!(
            "workers:\n  app:\n    command: [/bin/true]\n    silence: no-listeners\n    \
             environment: {{ BIG: {value} }}\n{more}"
        );
        world.check(&yaml, &["--json", "--no-bind"])
    };
    // `BIG=` and a NUL are part of it.
    check(longest - 5, "").expect_code(0);
    let json = check(longest - 4, "").expect_code(CONFIG).json();
    assert_eq!(places(&json), [place("bad-value", 5, 25)]);
    let json = check(longest - 5, "    limits: { stack: 64K }\n");
    let json = json.expect_code(CONFIG).json();
    assert_eq!(places(&json), [place("bad-value", 2, 3)]);

    let long = "x".repeat(longest);
    world.write("variables", &format!("FROM_A_FILE={long}\n"));
    let yaml = format!(
        "workers:\n  app:\n    command: [/bin/true, {long}]\n    environment_file: variables\n"
    );
    let json = world.check(&yaml, &["--json", "--no-bind"]).json();
    let expected = [place("bad-value", 3, 26), place("bad-value", 4, 23)];
    assert_eq!(places(&json), expected);
}

#[test]
fn what_only_a_shell_would_understand_is_told() {
    let world = World::new();
    let check = |command: &str| {
        let yaml = format!(
            "workers:\n  app:\n    silence: [no-listeners, command-not-found]\n    \
             command: {command}\n"
        );
        let json = world.check(&yaml, &["--json"]).expect_code(0).json();
        advice(&json)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for command in [
        "a && b",
        "'a || b'",
        "a | b",
        "a ; b",
        "a &",
        "a > c",
        "a >c",
        "a 2>/dev/null",
        "a &> c",
        "'a < b'",
        "a $HOME",
        "[a, $HOME]",
    ] {
        assert_eq!(check(command), ["no-shell"], "{command}");
    }
    for command in [
        "sh -c 'a && b > c'",
        "[a, '&&', '>']",
        "awk '{{print $1}}'",
        "[a, '$1', 'x$HOME', '$$']",
        "a -> b=>c a&b 'daemon off;'",
    ] {
        assert_eq!(check(command), [""; 0], "{command}");
    }
}

#[test]
fn a_variable_that_nothing_sets_is_told() {
    let world = World::new();
    let yaml = "workers:
  app:
    command: [/bin/true, $ONE, 'a${TWO}', '${PATH}', $LISTEN_FDS]
    after_ready: [/bin/true, $MAINPID, $THREE]
    expand_environment: true
    environment: { ONE: '1' }
    silence: no-listeners
";
    let json = world.check(yaml, &["--json"]).expect_code(0).json();
    assert_eq!(advice(&json), ["unset-variable", "unset-variable"]);
    let text = json.to_string();
    assert!(text.contains("$TWO") && text.contains("$THREE"), "{json:#}");
    assert!(
        !text.contains("$ONE") && !text.contains("MAINPID"),
        "{json:#}"
    );
}

#[test]
fn folders_and_programs_of_hooks_that_are_not_there_are_told() {
    let world = World::new();
    let check = |lines: &str| {
        let yaml = format!(
            "workers:\n  app:\n    command: [/bin/true]\n    silence: no-listeners\n{lines}"
        );
        let json = world.check(&yaml, &["--json"]).expect_code(0).json();
        advice(&json)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    world.write("file", "");
    world.write_script("script", "#!/no/such/interpreter -x\n");
    world.write_script("windows", "#!/bin/sh\r\n");
    world.write_script("relative", "#!bin/none\n");
    world.write_script("good", "#! /bin/sh -e\r\n");
    world.write_script("text", "echo hello\n");
    world.write_script("empty", "");
    world.write_script("of-folder", "#!/etc\n");
    for (lines, kind) in [
        ("    working_directory: $DIR/none", "path-missing"),
        ("    working_directory: $DIR/file", "path-missing"),
        ("    output: file:$DIR/none/app.log", "path-missing"),
        (
            "    output: 'file:$DIR/none/{instance}.log'",
            "path-missing",
        ),
        ("    output: file:$DIR/", "path-missing"),
        ("    before_start: [$DIR/none]", "command-not-found"),
        ("    before_start: [$DIR/script]", "command-not-found"),
        ("    before_start: [$DIR/windows]", "command-not-found"),
        (
            "    after_ready: { command: $DIR/none }",
            "command-not-found",
        ),
        ("    after_stop: [no-such-program]", "command-not-found"),
        ("    reload_command: [$DIR/file]", "command-not-found"),
        ("    before_start: [$DIR/file/x]", "command-not-found"),
        ("    before_start: [$DIR/text]", "command-not-found"),
        ("    before_start: [$DIR/empty]", "command-not-found"),
        ("    before_start: [$DIR/of-folder]", "command-not-found"),
    ] {
        assert_eq!(check(lines), [kind], "{lines}");
    }
    for lines in [
        "    working_directory: $DIR",
        "    working_directory: $DIR/none-{instance}",
        "    output: 'file:$DIR/app-{instance}.log'",
        "    output: file:/listend-test.log",
        "    before_start: [/bin/true]",
        // From where a relative path counts is known only at the spawn.
        "    before_start: [$DIR/relative]",
        "    before_start: [$DIR/good]",
    ] {
        assert_eq!(check(lines), [""; 0], "{lines}");
    }
}

#[test]
fn a_command_that_a_shell_or_systemd_would_understand_is_told_apart() {
    let world = World::new();
    for (command, hint) in [
        (
            "FOO=bar python3 app.py",
            "write a variable as `environment:",
        ),
        ("~/app", "write the path of the home directory"),
        ("-/usr/bin/no-such", "only in units of systemd"),
        ("/no/such=program", "retried with growing delays"),
        ("no-such-program", "retried with growing delays"),
    ] {
        let yaml =
            format!("workers:\n  app:\n    command: \"{command}\"\n    silence: no-listeners\n");
        let said = world.check(&yaml, &[]).expect_code(0);
        assert!(said.stderr.contains(hint), "{command}: {}", said.stderr);
    }
}

// A reload refuses it, because a file that is just being written is empty for a moment.
#[test]
fn an_empty_configuration_is_told() {
    let world = World::new();
    // What is in a file that cannot be read is not known.
    let finished = world.finish(["check", "--json", "$DIR/nothing.yaml"]);
    assert_eq!(advice(&finished.expect_code(78).json()), [""; 0]);
    for yaml in ["", "# nothing\n", "listeners: {}\nworkers: {}\n"] {
        let json = world.check(yaml, &["--json"]).expect_code(0).json();
        assert_eq!(advice(&json), ["nothing-configured"], "{yaml:?}");
    }
    let yaml = "silence: nothing-configured\n";
    let json = world.check(yaml, &["--json"]).expect_code(0).json();
    assert_eq!(advice(&json), [""; 0]);
}

#[test]
fn check_says_who_reaches_each_listener() {
    let world = World::new();
    let listeners = |count: usize| -> String {
        let one = |number| format!("  l{number}: 127.0.0.1:0\n");
        (1..=count).map(one).collect()
    };
    let yaml = |count| format!("listeners:\n{}", listeners(count));
    let out = world.check(&yaml(20), &[]).expect_code(0).stdout;
    assert!(
        out.contains("\n  l20: 127.0.0.1:0: this machine only\n"),
        "{out}"
    );
    assert_eq!(out.lines().count(), 21, "{out}");
    let out = world.check(&yaml(22), &["--no-bind"]).expect_code(0).stdout;
    assert!(out.ends_with("\n  and 2 listeners more\n"), "{out}");
    assert_eq!(out.lines().count(), 22, "{out}");
}

#[test]
fn a_drop_in_that_is_not_read_is_told() {
    let world = World::new();
    fs::create_dir(world.path("conf.d")).expect("create a folder");
    world.write("conf.d/web.yml", "listeners: { web: 127.0.0.1:0 }\n");
    world.write("conf.d/.hidden.yml", "");
    world.write("conf.d/readme.txt", "");
    let yaml = "workers: { app: { command: /bin/true, silence: no-listeners } }\n";
    let json = world.check(yaml, &["--json"]).expect_code(0).json();
    assert_eq!(advice(&json), ["ignored-file"], "{json:#}");
    assert!(json.to_string().contains("conf.d/web.yml"), "{json:#}");
    let yaml = format!("{yaml}silence: ignored-file\n");
    let json = world.check(&yaml, &["--json"]).expect_code(0).json();
    assert_eq!(advice(&json), [""; 0]);
}
