//! What was lost once: each setting is translated, or a comment names it.

use super::{Format, has, made};

/// Each of these has a comment.
#[track_caller]
fn names(yaml: &str, lost: &[&str]) {
    for what in lost {
        let comment = format!("# not translated: {what}: ");
        assert!(yaml.contains(&comment), "`{comment}` is missing in\n{yaml}");
    }
}

#[track_caller]
fn lacks(yaml: &str, texts: &[&str]) {
    for text in texts {
        assert!(!yaml.contains(text), "`{text}` is in\n{yaml}");
    }
}

fn service(lines: &str) -> String {
    let text = format!("[Service]\nExecStart=/bin/app\n{lines}");
    made(Format::Systemd, &[("app.service", &text)])
}

#[test]
fn what_is_wrong_in_a_list_or_mapping_takes_nothing_else_with_it() {
    let yaml = service(
        "Environment=A=1 LISTEN_FDS=3\nLimitCPU=nonsense\nLimitNOFILE=9\n\
         RestartSec=9\nRestart=on-failure\nStartLimitBurst=0\n",
    );
    has(
        &yaml,
        &["A: 1", "nofile: 9", "policy: on-failure", "backoff: 9s"],
    );
    names(
        &yaml,
        &["LISTEN_FDS: 3", "cpu: nonsense", "limit: \"0 in 10s\""],
    );
    let yaml = made(
        Format::Systemd,
        &[
            (
                "a.socket",
                "[Socket]\nListenStream=/run/a\nListenStream=[::1:80\n",
            ),
            ("a.service", "[Service]\nExecStart=/bin/a\n"),
        ],
    );
    has(&yaml, &["address:", "- unix:/run/a", "listeners: [a]"]);
    names(&yaml, &["\"[::1:80\""]);
    // One word less would be another command.
    let yaml = made(
        Format::Systemd,
        &[("a.service", "[Service]\nExecStart=/bin/a $1 b\n")],
    );
    names(&yaml, &["command: [/bin/a, \"$1\", b]"]);
}

#[test]
fn a_specifier_takes_the_variable_that_has_it() {
    let yaml = made(
        Format::Systemd,
        &[(
            "app@.service",
            "[Service]\nExecStart=/bin/app\nEnvironment=A=%i B=c \"C=%%H:%%M\"\n\
             EnvironmentFile=/etc/default/app\nEnvironmentFile=-/etc/default/app-%i\n",
        )],
    );
    has(
        &yaml,
        &[
            "environment: { B: c, C: \"%H:%M\" }",
            "environment_file: [/etc/default/app]",
            "# Variables of `environment` win over those of `environment_file`; in systemd it is the other way round.",
        ],
    );
    names(
        &yaml,
        &["Environment=A=%i", "environment_file: -/etc/default/app-%i"],
    );
}

// systemd.service(5): `;` as a word of its own separates commands, `\;` is a semicolon.
#[test]
fn a_line_with_several_commands_is_several_commands() {
    let yaml = made(
        Format::Systemd,
        &[(
            "app.service",
            "[Service]\nType=oneshot\nExecStart=/bin/one a \"b ; c\" \\; d;e ; -/bin/two f ; /bin/three\n\
             ExecStartPre=/bin/four ; /bin/five\n\
             ExecReload=/bin/six ; /bin/kill -HUP $MAINPID\n",
        )],
    );
    has(
        &yaml,
        &[
            "command: [/bin/one, a, \"b ; c\", \";\", \"d;e\"]",
            "before_start: [/bin/four]",
            "reload_signal: SIGHUP",
        ],
    );
    names(
        &yaml,
        &[
            "ExecStart=-/bin/two f",
            "ExecStart=/bin/three",
            "ExecStartPre=/bin/five",
            "ExecReload=/bin/six",
        ],
    );
}

// systemd.service(5): 0 turns these timeouts off. A fraction is no reason to forget a time.
#[test]
fn times_of_systemd() {
    for (line, wanted) in [
        ("TimeoutStartSec=0", "start_timeout: infinity"),
        ("TimeoutStopSec=0", "stop_timeout: infinity"),
        ("TimeoutSec=0", "stop_timeout: infinity"),
        ("TimeoutStopSec=1.5", "stop_timeout: 1s500ms"),
        ("TimeoutStopSec=1d 2h", "stop_timeout: 93600s"),
        ("TimeoutStopSec=2minutes 3sec", "stop_timeout: 123s"),
        ("TimeoutStopSec=1w", "stop_timeout: 604800s"),
        ("TimeoutStopSec=500000us", "stop_timeout: 500ms"),
        (
            "Restart=always\nRestartSec=0.2",
            "restart: { policy: always, backoff: 200ms }",
        ),
        (
            "Restart=always\nRestartSec=500us",
            "restart: { policy: always, backoff: 1ms }",
        ),
        // The defaults of systemd, where those of listend would lose something.
        ("", "stop_timeout: 90s"),
        ("", "kill_mode: group"),
        ("KillMode=mixed", "kill_mode: process"),
    ] {
        has(&service(line), &[wanted]);
    }
    let yaml = service("WatchdogSec=abc\nRestartSec=abc\nTimeoutSec=abc\nRestart=always\n");
    names(
        &yaml,
        &["WatchdogSec=abc", "RestartSec=abc", "TimeoutSec=abc"],
    );
    names(
        &service("Restart=always\nRestartSec=0\n"),
        &["RestartSec=0"],
    );
}

#[test]
fn outputs_that_differ_are_named() {
    let yaml =
        service("StandardOutput=append:/var/log/a.log\nStandardError=append:/var/log/a.err\n");
    has(&yaml, &["output: file:/var/log/a.log"]);
    names(&yaml, &["StandardError=append:/var/log/a.err"]);
    let yaml = service("StandardError=append:/var/log/a.err\n");
    names(&yaml, &["StandardError=append:/var/log/a.err"]);
    lacks(&yaml, &["output: file"]);
    let yaml = service("StandardOutput=append:/var/log/a.log\nStandardError=journal\n");
    names(&yaml, &["StandardError=journal"]);
    for same in ["inherit", "append:/var/log/a.log"] {
        let yaml = service(&format!(
            "StandardOutput=append:/var/log/a.log\nStandardError={same}\n"
        ));
        has(&yaml, &["output: file:/var/log/a.log"]);
        lacks(&yaml, &["StandardError"]);
    }
    // A connection is standard output, too.
    let yaml = service("StandardInput=socket\nStandardOutput=journal\n");
    names(&yaml, &["StandardOutput=journal"]);
}

#[test]
fn what_a_unit_says_is_not_passed_over() {
    let yaml = service(
        "Sockets=other.socket\nSupplementaryGroups=video\nNotifyAccess=none\nRestart=on-failure\n",
    );
    names(&yaml, &["Sockets=other.socket", "NotifyAccess=none"]);
    has(
        &yaml,
        &["# `supplementary_groups` are all that it has; systemd adds them to the user's own."],
    );
    let yaml = made(
        Format::Systemd,
        &[(
            "app.service",
            "[Service]\nExecStart=-/bin/app\nRestart=on-failure\n[Install]\nAlias=b.service\n",
        )],
    );
    names(&yaml, &["- before the command", "Alias=b.service"]);
    let yaml = made(
        Format::Systemd,
        &[
            (
                "a.socket",
                "[Unit]\nStartLimitBurst=3\n[Socket]\nListenStream=80\nPollLimitBurst=50\nPollLimitIntervalSec=10s\n",
            ),
            ("a.service", "[Service]\nExecStart=/bin/a\n"),
            ("a.timer", "[Timer]\nOnBootSec=1\n"),
        ],
    );
    names(
        &yaml,
        &[
            "PollLimitBurst=50",
            "PollLimitIntervalSec=10s",
            "StartLimitBurst=3",
            "a.timer",
        ],
    );
}

#[test]
fn a_variable_of_supervisord_takes_nothing_else_with_it() {
    let text = "[supervisord]\nenvironment=GLOBAL=\"1\",A=\"of all\"\numask=027\nuser=root\n\
        [program:a]\ncommand=/bin/a \"$HOME\" %(ENV_X)s %(here)s # comment\n\
        environment=A=\"1\",PATH=\"/opt:%(ENV_PATH)s\",HERE=\"%(here)s/x\",N=\"%(process_num)02d\",B='2'\n\
        directory=%(ENV_HOME)s/app\nnumprocs=2\nnumprocs_start=1\n";
    let yaml = made(Format::Supervisord, &[("supervisord.conf", text)]);
    has(
        &yaml,
        &[
            "environment: { GLOBAL: 1, A: 1, \"N\": \"{instance}\", B: 2 }",
            "command: [/bin/a, \"$$HOME\", \"${X}\", \"%(here)s\"]",
            "expand_environment: true",
            "umask: 0027",
        ],
    );
    names(
        &yaml,
        &[
            "environment PATH=/opt:%(ENV_PATH)s",
            "environment HERE=%(here)s/x",
            "directory=%(ENV_HOME)s/app",
            "%(here)s",
            "%(process_num)02d",
            "numprocs_start=1",
            "user=root",
        ],
    );
}

#[test]
fn outputs_and_sockets_of_supervisord() {
    let text = "[program:a]\ncommand=/bin/a\nstdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\n\
        stderr_logfile=/dev/fd/2\n\
        [fcgi-program:tcp]\ncommand=/bin/b\nsocket=tcp://localhost:9002\n\
        [fcgi-program:any]\ncommand=/bin/b\nsocket=tcp://:9003\n\
        [fcgi-program:unix]\ncommand=/bin/b\nsocket=unix:///run/b.sock\nuser=www-data\n";
    let yaml = made(Format::Supervisord, &[("supervisord.conf", text)]);
    lacks(
        &yaml,
        &[
            "/dev/stdout",
            "/dev/fd/2",
            "maxbytes",
            "not translated: handoff",
        ],
    );
    has(
        &yaml,
        &[
            "address: 127.0.0.1:9002",
            "address: 0.0.0.0:9003",
            "owner: www-data",
        ],
    );
}

#[test]
fn sections_and_times_of_circus() {
    let text = "[env]\nglobal = 1\npath = $PATH:/opt\n[watcher:a]\ncmd = /bin/a\ncopy_env = False\n\
        warmup_delay = 3\ngraceful_timeout = 0.5\nrlimit_nofile = 9\nrlimit_bad = 1\n\
        stdout_stream.class = FileStream\nstdout_stream.filename = /var/log/a.log\n[env:a]\nown = 2\n[other]\nx = 1\n";
    let yaml = made(Format::Circus, &[("circus.ini", text)]);
    has(
        &yaml,
        &[
            "environment: { GLOBAL: 1, OWN: 2 }",
            "stop_timeout: 500ms",
            "nofile: 9",
        ],
    );
    names(
        &yaml,
        &[
            "path = $PATH:/opt",
            "copy_env = False",
            "warmup_delay = 3",
            "bad: 1",
            "[other]",
        ],
    );
    lacks(&yaml, &["FileStream"]);
}

#[test]
fn restarts_and_resources_of_compose() {
    let text = "x-env: &env\n  A: 1\nservices:\n  few: {command: /bin/a, restart: 'on-failure:3'}\n\
        \x20 none: {command: /bin/a}\n\
        \x20 web:\n    command: /bin/a\n    environment:\n      <<: *env\n      B: 2\n      C: ${X:-c}\n\
        \x20   ports: ['8080:80', '${PORT:-7070}:70', '9000-9001:80-81', 'nonsense:1']\n\
        \x20   env_file: [a.env, {path: b.env}, {path: c.env, required: false}]\n\
        \x20   deploy:\n      mode: replicated\n      replicas: 2\n\
        \x20     resources: {limits: {cpus: '0.50', memory: 50m, pids: 100}, reservations: {memory: 20M}}\n\
        \x20     restart_policy: {condition: on-failure, delay: 5s, max_attempts: 4, window: 2m}\n\
        \x20 once: {command: /bin/a, deploy: {restart_policy: {condition: none}}}\n\
        \x20 any: {command: /bin/a, restart: 'no', deploy: {restart_policy: {delay: 5s, max_attempts: 4}}}\n\
        \x20 old: {command: /bin/a, restart: always, mem_limit: 1g, cpus: 1.5, pids_limit: 50, oom_score_adj: 9, group_add: [audio]}\n";
    let yaml = made(Format::Compose, &[("compose.yaml", text)]);
    has(
        &yaml,
        &[
            "restart: { policy: on-failure, limit: \"3 in 365d\", cool_down: never }",
            "restart: never",
            "environment: { A: 1, B: 2, C: c }",
            "address: \":7070\"",
            "address: \":9000-9001\"",
            "environment_file: [a.env, b.env, -c.env]",
            "instances: 2",
            "restart: { policy: on-failure, backoff: 5s, limit: \"4 in 2m\", cool_down: never }",
            "restart: { policy: always, backoff: 5s, limit: \"4 in 365d\", cool_down: never }",
            "memory_max: 50M",
            "cpu_quota: 50%",
            "tasks_max: 100",
            "memory_max: 1G",
            "cpu_quota: 150%",
            "tasks_max: 50",
            "oom_score_adjust: 9",
        ],
    );
    assert_eq!(yaml.matches("restart: never").count(), 2, "{yaml}");
    names(
        &yaml,
        &[
            "deploy.resources.reservations: {\"memory\":\"20M\"}",
            "deploy.mode: replicated",
            "C=${X:-c}",
            "ports: ${PORT:-7070}:70",
        ],
    );
    lacks(&yaml, &["not translated: listeners"]);
}

#[test]
fn signals_and_files_of_pm2() {
    let text = r#"{"apps":[{"name":"a","script":"a.js","log_file":"/var/log/l","out_file":"/var/log/o","treekill":false},
        {"name":"b","script":"b.js","watch":true}]}"#;
    let yaml = made(Format::Pm2, &[("ecosystem.config.json", text)]);
    has(
        &yaml,
        &[
            "stop_signal: SIGINT",
            "kill_mode: group",
            "output: file:/var/log/o",
        ],
    );
    assert_eq!(yaml.matches("kill_mode: group").count(), 1, "{yaml}");
    names(&yaml, &["log_file: /var/log/l", "watch: true"]);
}

#[test]
fn a_release_of_a_procfile_runs_once() {
    let yaml = made(Format::Procfile, &[("Procfile", "release: ./migrate\n")]);
    has(&yaml, &["restart: never"]);
}
