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
        [program:a]\ncommand=/bin/a \"$HOME\" %(ENV_X)s '%(ENV_X)s' %(here)s # comment\n\
        environment=A=\"1\",PATH=\"/opt:%(ENV_PATH)s\",HERE=\"%(here)s/x\",N=\"%(process_num)02d\",B='2'\n\
        directory=%(ENV_HOME)s/app\nnumprocs=2\nnumprocs_start=1\n";
    let yaml = made(Format::Supervisord, &[("supervisord.conf", text)]);
    has(
        &yaml,
        &[
            "environment: { GLOBAL: 1, A: 1, \"N\": \"{instance}\", B: 2 }",
            "command: [/bin/a, \"$$HOME\", \"$X\", \"${X}\", \"%(here)s\"]",
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
            "environment: { global: 1, own: 2 }",
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
        {"name":"b","script":"b.js","watch":true},
        {"name":"c","script":"c.js","autorestart":false,"restart_delay":9}]}"#;
    let yaml = made(Format::Pm2, &[("ecosystem.config.json", text)]);
    has(
        &yaml,
        &[
            "stop_signal: SIGINT",
            "kill_mode: group",
            "output: file:/var/log/o",
        ],
    );
    has(&yaml, &["restart: never"]);
    assert_eq!(yaml.matches("kill_mode: group").count(), 2, "{yaml}");
    names(&yaml, &["log_file: /var/log/l", "watch: true"]);
}

#[test]
fn a_release_of_a_procfile_runs_once() {
    let yaml = made(Format::Procfile, &[("Procfile", "release: ./migrate\n")]);
    has(&yaml, &["restart: never"]);
}

#[test]
fn fields_of_inetd() {
    let text = "127.0.0.1,10.0.0.1:8081\tstream\ttcp\tnowait\troot\t/bin/a a\n\
        8082 stream tcp nowait/10/20/5 root:wheel/daemon /bin/b b\n\
        8083 seqpacket tcp nowait root /bin/c c\n8084 raw tcp nowait root /bin/d d\n\
        8085 stream tcp sometimes root /bin/e e\ntime\tdgram\tudp\twait\troot\tinternal\n\
        localhost:8086 dgram udp wait root /bin/f f\n";
    let yaml = made(Format::Inetd, &[("inetd.conf", text)]);
    has(
        &yaml,
        &[
            "address: [127.0.0.1:8081, 10.0.0.1:8081]",
            "max_connections: none",
            "max_connections: 10",
            "max_connections_per_source: 5",
            "group: wheel",
            "address: udp://127.0.0.1:8086",
        ],
    );
    names(
        &yaml,
        &[
            "20 connections of an address in a minute",
            "login class daemon",
            "8083 seqpacket tcp nowait root /bin/c c",
            "8084 raw tcp nowait root /bin/d d",
            "8085 stream tcp sometimes root /bin/e e",
            "time dgram udp wait root internal",
        ],
    );
}

fn xinetd(text: &str) -> String {
    made(Format::Xinetd, &[("xinetd.conf", text)])
}

// Seen with xinetd 2.3.15.3 of Debian 12: without a flag, and with IPv6, it binds `*:PORT`, with IPv4
// `0.0.0.0:PORT`, with IPv6 and v6only `[::]:PORT`.
#[test]
fn the_family_of_xinetd() {
    for (lines, wanted) in [
        ("", "address: \":8081\""),
        ("flags = IPv6 REUSE", "address: \":8081\""),
        ("flags = IPv4", "address: 0.0.0.0:8081"),
        ("flags = IPv6\nv6only = yes", "address: \"[::]:8081\""),
        ("flags = IPv6\nv6only = no", "address: \":8081\""),
        ("flags = IPv6\nbind = localhost", "address: \"[::1]:8081\""),
        ("bind = localhost", "address: 127.0.0.1:8081"),
        ("interface = 10.0.0.1", "address: 10.0.0.1:8081"),
    ] {
        let yaml = xinetd(&format!(
            "service a\n{{\ntype = UNLISTED\nport = 8081\nsocket_type = stream\nwait = no\nserver = /bin/a\n{lines}\n}}\n"
        ));
        has(&yaml, &[wanted]);
        lacks(&yaml, &["not translated"]);
    }
}

#[test]
fn defaults_of_xinetd() {
    let one = |name: &str, lines: &str| {
        format!(
            "service {name}\n{{\ntype = UNLISTED\nport = 8081\nsocket_type = stream\nwait = no\nuser = root\nserver = /bin/{name}\n{lines}\n}}\n"
        )
    };
    let defaults = "defaults\n{\nonly_from = 10.0.0.0/8\ndisabled = off\nenv = A=1\ngroups = yes\nno_access = 10.1.1.1\nno_access = 10.2.2.2\n}\n";
    // The defaults may come last, from a file of their own.
    let text = one(
        "first",
        "only_from += 192.168.0.0/16\nenv += B=2\nno_access -= 10.1.1.1",
    ) + &one("off", "")
        + &one(
            "own",
            "only_from = 1.2.3.4\ngroups = no\ncps = 5 30\nserver_args = \"x y\"\numask = 22",
        )
        + defaults;
    let yaml = xinetd(&text);
    has(
        &yaml,
        &[
            "environment: { B: 2 }",
            "supplementary_groups: []",
            "max_connections: none",
            "umask: 0022",
            // xinetd knows no quotes.
            r#"command: [/bin/own, "\"x", "y\""]"#,
        ],
    );
    names(
        &yaml,
        &[
            "only_from = 10.0.0.0/8 192.168.0.0/16",
            "no_access = 10.2.2.2",
            "only_from = 1.2.3.4",
            "service off",
            "cps = 5 30",
            // Seen with xinetd: only a service can have it.
            "env = A=1 of the defaults",
        ],
    );
    assert_eq!(yaml.matches("supplementary_groups").count(), 1, "{yaml}");
    let enabled = xinetd(&format!(
        "defaults\n{{\nenabled = a\n}}\n{}{}",
        one("a", ""),
        one("b", "")
    ));
    names(&enabled, &["service b"]);
    assert!(
        enabled.contains("/bin/a") && !enabled.contains("/bin/b"),
        "{enabled}"
    );
}

#[test]
fn services_of_xinetd_that_are_no_listeners() {
    let one = |name: &str, lines: &str| {
        format!(
            "service {name}\n{{\nport = 8081\nsocket_type = stream\nwait = no\nserver = /bin/{name}\n{lines}\n}}\n"
        )
    };
    let text = one("mux", "type = TCPMUX UNLISTED")
        + &one("plus", "type = TCPMUXPLUS UNLISTED")
        + &one("raw", "type = UNLISTED\nsocket_type = raw");
    let yaml = xinetd(&text);
    names(&yaml, &["service mux", "service plus", "service raw"]);
    lacks(&yaml, &["address"]);
}

#[test]
fn variables_and_limits_of_circus() {
    let text = "[watcher:a]\ncmd = /bin/a $(CIRCUS.WID) ((circus.env.user)) $(Circus.Sockets.Web)\n\
        use_sockets = True\nrlimit_core = -1\n[socket:web]\nport = 8080\n";
    let yaml = made(Format::Circus, &[("circus.ini", text)]);
    has(
        &yaml,
        &[
            "command: [/bin/a, \"{instance}\", \"((circus.env.user))\", \"{fd:web}\"]",
            "limits: { core: unlimited }",
        ],
    );
    names(&yaml, &["((circus.env.user))"]);
}

#[test]
fn environments_of_circus_go_to_those_whose_names_match() {
    let text = "[watcher:web-1]\ncmd = /bin/a $(circus.sockets.x) $(circus.sockets.y) $(circus.sockets.x)\n\
        use_sockets = True\n[watcher:other]\ncmd = /bin/b\n[env:web-*, oth?r]\nA = 1\n[env:web]\nB = 1\n\
        [socket:x]\npath = /run/x\n[socket:y]\npath = /run/y\numask = 63\n";
    let yaml = made(Format::Circus, &[("circus.ini", text)]);
    assert_eq!(yaml.matches("environment: { A: 1 }").count(), 2, "{yaml}");
    names(&yaml, &["[env:web]"]);
    has(
        &yaml,
        &["listeners: [x, \"y\"]", "mode: 0666", "mode: 0600"],
    );
}

#[test]
fn a_process_that_names_its_port_gets_a_listener() {
    let text = "api: node -e 'f(process.env.PORT)'\nother: a --PORTS $XPORT\nadmin: a ${PORT:-1}\n";
    let yaml = made(Format::Procfile, &[("Procfile", text)]);
    has(
        &yaml,
        &["address: 127.0.0.1:5000", "address: 127.0.0.1:5200"],
    );
    lacks(&yaml, &["5100"]);
}

#[test]
fn instances_of_a_template_have_a_name() {
    let socket = "[Unit]\nDescription=For %i\n[Socket]\nListenStream=/run/app/%i.sock\nListenStream=127.0.0.1:80%i\n\
        SocketUser=www-%i\n";
    let service = "[Service]\nExecStart=/bin/app %i %I %p %n\nUser=www-%i\nEnvironment=NAME=%i\n";
    let yaml = made(
        Format::Systemd,
        &[("app@01.socket", socket), ("app@01.service", service)],
    );
    has(
        &yaml,
        &[
            "app@01:",
            "# For 01",
            "address: [unix:/run/app/01.sock, 127.0.0.1:8001]",
            "owner: www-01",
            "command: [/bin/app, 01, 01, app, app@01.service]",
            "listeners: [app@01]",
            "user: www-01",
            "environment: { NAME: 01 }",
        ],
    );
    lacks(&yaml, &["not translated", "Replace the specifiers"]);
}

#[test]
fn ports_of_containers_and_fractions_of_compose() {
    let text = "services:\n  a: {command: /bin/a, ports: ['8080:80', '9000:9000', {target: 443, published: 8443}],\n\
        \x20   mem_limit: 1.5g}\n";
    let yaml = made(Format::Compose, &[("compose.yaml", text)]);
    names(
        &yaml,
        &["port 80 of the container", "port 443 of the container"],
    );
    lacks(&yaml, &["port 9000"]);
    has(&yaml, &["memory_max: 1536M"]);
}

#[test]
fn limits_of_time_and_conditions_of_a_unit() {
    let yaml = service("LimitCPU=1min\nLimitNOFILE=4096\nExecCondition=/bin/test -e /x\n");
    has(&yaml, &["limits: { cpu: 60, nofile: 4096 }"]);
    names(&yaml, &["ExecCondition=/bin/test -e /x"]);
    lacks(&yaml, &["sandbox"]);
}

// listend ignores it, and a pipe of a script ended otherwise than before.
#[test]
fn what_leaves_sigpipe_alone_is_told_from_what_ignores_it() {
    let compose = |keys: &str| format!("services:\n  a:\n    image: a\n    command: [/a]\n{keys}");
    let leaves = "ignore_sigpipe: false";
    for (format, name, text) in [
        (
            Format::Circus,
            "circus.ini",
            "[watcher:a]\ncmd = /bin/a\n".to_owned(),
        ),
        (
            Format::Pm2,
            "ecosystem.config.json",
            r#"{"apps": [{"name": "a", "script": "/a"}]}"#.to_owned(),
        ),
        (
            Format::Procfile,
            "Procfile",
            "a: yes | head -1\n".to_owned(),
        ),
        (Format::Compose, "compose.yaml", compose("    init: true\n")),
    ] {
        has(&made(format, &[(name, &text)]), &[leaves]);
    }
    let ignored = [
        (
            Format::Supervisord,
            "supervisord.conf",
            "[program:a]\ncommand=/a\n".to_owned(),
        ),
        // The first process of a container has no default actions (pid_namespaces(7)).
        (
            Format::Compose,
            "compose.yaml",
            compose("    init: false\n"),
        ),
    ];
    for (format, name, text) in ignored {
        lacks(&made(format, &[(name, &text)]), &["sigpipe", "init"]);
    }
}
