use super::*;
use crate::config::SourceFile;
use std::path::PathBuf;

fn units(files: &[(&str, &str)]) -> Vec<Unit> {
    let unit = |(name, text): &(&str, &str)| Unit {
        name: (*name).to_owned(),
        text: (*text).to_owned(),
        drop_ins: Vec::new(),
    };
    files.iter().map(unit).collect()
}

/// The YAML, which has no errors.
fn made(format: Format, files: &[(&str, &str)]) -> String {
    let yaml = import(format, &units(files)).expect("it can be read");
    let file = SourceFile {
        name: "import".to_owned(),
        bytes: yaml.clone().into_bytes(),
        folder: PathBuf::from("/"),
    };
    let errors = config::read(vec![file]).report.errors;
    assert!(errors.is_empty(), "{yaml}\n{errors:?}");
    yaml
}

#[track_caller]
fn has(yaml: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            yaml.lines().any(|found| found.trim() == *line),
            "`{line}` is missing in\n{yaml}"
        );
    }
}

#[test]
fn a_socket_and_its_service() {
    let yaml = made(
        Format::Systemd,
        &[
            (
                "app.socket",
                "[Unit]\nDescription=The app\nAfter=network.target\n[Socket]\nListenStream=127.0.0.1:8080\n\
                 ListenStream=/run/app/%N.sock\nSocketMode=0660\nKeepAlive=yes\nKeepAliveTimeSec=2min\n\
                 FlushPending=yes\n",
            ),
            (
                "app.service",
                "[Service]\nExecStart=@/usr/bin/app app-name --port \\\n  ${PORT} '{x}'\nUser=nobody\n\
                 Environment=RUST_LOG=info \"B=c d\"\nRestart=on-failure\nRestartSec=1\nTimeoutStopSec=1min 30s\n\
                 LimitNOFILE=65536:infinity\nPrivateTmp=yes\nExecReload=/bin/kill -HUP $MAINPID\nType=notify\n\
                 SuccessExitStatus=75 SIGUSR1 DATAERR\n",
            ),
        ],
    );
    has(
        &yaml,
        &[
            "address: [127.0.0.1:8080, unix:/run/app/app.sock]",
            "mode: 0660",
            "remove_on_stop: false",
            "command: [/usr/bin/app, --port, \"${PORT}\", \"{{x}}\"]",
            "argv0: app-name",
            "expand_environment: true",
            "environment: { RUST_LOG: info, B: \"c d\" }",
            "restart: { policy: on-failure, backoff: 1s, success_exit_status: [ 75, SIGUSR1 ] }",
            "stop_timeout: 90s",
            "limits: { nofile: 65536:unlimited }",
            "reload_signal: SIGHUP",
            "ready: notify",
            "activation: on-demand",
            "private_tmp: true",
        ],
    );
    assert!(
        yaml.contains("not translated: FlushPending=yes: "),
        "{yaml}"
    );
    assert!(
        yaml.contains("not translated: After=network.target: "),
        "{yaml}"
    );
}

#[test]
fn the_sandbox_of_a_service() {
    let text = "[Service]\nExecStart=/bin/app\nNoNewPrivileges=1\nPrivateTmp=yes\nPrivateDevices=on\nPrivateDevices=no\n\
        ProtectSystem=yes\nProtectHome=read-only\nProtectProc=invisible\nProtectHostname=private\n\
        ReadWritePaths=-+/var/lib/app \"/srv/a b\"\nReadWriteDirectories=/opt\nInaccessiblePaths=/home/%u\n\
        CapabilityBoundingSet=cap_net_raw CAP_CHOWN\nCapabilityBoundingSet=~CAP_CHOWN\n\
        RestrictAddressFamilies=AF_INET AF_UNIX AF_NONSENSE\nRestrictNamespaces=~user\n\
        SystemCallFilter=@system-service nosuchcall\nSystemCallFilter=~@privileged @resources:EACCES\n\
        SystemCallArchitectures=native\nDynamicUser=yes\nBindPaths=/a\n\
        MemoryLimit=2G\nTasksMax=1\nCPUQuota=20%\nCPUQuota=\n";
    let yaml = made(Format::Systemd, &[("app.service", text)]);
    has(
        &yaml,
        &[
            "sandbox:",
            "no_new_privileges: true",
            "memory_max: 2G",
            "tasks_max: 1",
            "private_tmp: true",
            "protect_system: true",
            "protect_home: read-only",
            "protect_proc: invisible",
            "read_write_paths: [-/var/lib/app, \"/srv/a b\", /opt]",
            "capabilities: [CAP_NET_RAW]",
            "restrict_address_families: [AF_INET, AF_UNIX]",
            "system_calls: [\"@system-service\", \"~@privileged\", \"~@resources\"]",
            "# A forbidden system call fails with EPERM; systemd ends the process.",
        ],
    );
    for lost in [
        "ProtectHostname=private",
        "InaccessiblePaths=/home/%u",
        "RestrictAddressFamilies=AF_NONSENSE",
        "RestrictNamespaces=~user",
        "SystemCallFilter=nosuchcall",
        "DynamicUser=yes",
        "BindPaths=/a",
    ] {
        assert!(
            yaml.contains(&format!("not translated: {lost}: ")),
            "{lost}\n{yaml}"
        );
    }
    for off in ["private_devices", "cpu_quota"] {
        assert!(!yaml.contains(off), "{yaml}");
    }
    let none = made(
        Format::Systemd,
        &[(
            "app.service",
            "[Service]\nExecStart=/bin/app\nCapabilityBoundingSet=CAP_CHOWN\nCapabilityBoundingSet=\n\
             RestrictAddressFamilies=none\n",
        )],
    );
    has(
        &none,
        &["capabilities: []", "restrict_address_families: [none]"],
    );
    // What one key has wrong takes that key alone.
    let wrong = made(
        Format::Systemd,
        &[(
            "app.service",
            "[Service]\nExecStart=/bin/app\nProtectHome=maybe\nPrivateIPC=yes\n",
        )],
    );
    has(&wrong, &["private_ipc: true"]);
    assert!(
        wrong.contains("# not translated: protect_home: maybe: "),
        "{wrong}"
    );
}

// Rule: the words of a command are those that the other supervisor sees.
#[test]
fn words_are_split_as_the_other_splits_them() {
    let unit = r#"[Service]
ExecStart=/bin/echo a\x20b "t\tx" #fff 'n\n' \075\u00e9 "\q" "C:\\x" \";
Environment="A=x\ty" B=#x
ExecStartPre=/bin/true --color #fff
"#;
    let yaml = made(Format::Systemd, &[("a.service", unit)]);
    has(
        &yaml,
        &[
            r##"command: [/bin/echo, "a b", "t\tx", "#fff", "n\n", "=é", "\\q", "C:\\x", "\";"]"##,
            r##"environment: { A: "x\ty", B: "#x" }"##,
            r##"before_start: [/bin/true, --color, "#fff"]"##,
        ],
    );
    let inetd = "8080 stream tcp nowait root /bin/echo echo #fff 'a b'\n";
    has(
        &made(Format::Inetd, &[("inetd.conf", inetd)]),
        &[r##"command: [/bin/echo, "#fff", "a b"]"##],
    );
}

#[test]
fn a_process_for_each_connection() {
    let yaml = made(
        Format::Systemd,
        &[
            (
                "echo.socket",
                "[Socket]\nListenStream=7\nAccept=yes\nMaxConnections=5\nTriggerLimitBurst=9\n",
            ),
            (
                "echo@.service",
                "[Service]\nExecStart=-/bin/cat\nStandardInput=socket\nExecStartPre=/bin/true\n",
            ),
        ],
    );
    has(
        &yaml,
        &[
            "address: [\":7\"]",
            "activation: per-connection",
            "handoff: inetd",
            "max_connections: 5",
            "accept_rate: \"9 in 2s\"",
        ],
    );
}

#[test]
fn what_systemd_listens_on() {
    let yaml = made(
        Format::Systemd,
        &[
            (
                "all.socket",
                "[Socket]\nListenDatagram=[::1]:53\nListenSequentialPacket=/run/q\nListenStream=@name\n\
                 ListenStream=vsock:2:80\nListenFIFO=/run/f\nListenMessageQueue=/q\nListenNetlink=route 1361\n\
                 ListenUSBFunction=/x\n",
            ),
            ("all.service", "[Service]\nExecStart=/bin/all\n"),
        ],
    );
    assert!(yaml.contains("netlink:route 0x551"), "{yaml}");
    assert!(yaml.contains("unix-seqpacket:/run/q"), "{yaml}");
    assert!(yaml.contains("udp://[::1]:53"), "{yaml}");
    assert!(
        yaml.contains("not translated: ListenUSBFunction=/x"),
        "{yaml}"
    );
}

#[test]
fn lines_of_inetd() {
    let yaml = made(
        Format::Inetd,
        &[(
            "inetd.conf",
            "# comment\nident stream tcp nowait.40 nobody /usr/sbin/identd identd -i\n\
             tftp dgram udp wait root /usr/sbin/in.tftpd in.tftpd -s /srv\n\
             127.0.0.1:finger stream tcp6 nowait nobody:tty /usr/sbin/tcpd /usr/sbin/in.fingerd\n\
             daytime stream tcp nowait root internal\n",
        )],
    );
    has(
        &yaml,
        &[
            "address: 0.0.0.0:113",
            "address: udp://0.0.0.0:69",
            "command: [/usr/sbin/identd, -i]",
            "accept_rate: \"40 in 1m\"",
            "argv0: /usr/sbin/in.fingerd",
            "group: tty",
            "activation: on-demand",
            "ignore_sigpipe: false",
        ],
    );
    assert!(yaml.contains("not translated: daytime stream"), "{yaml}");
}

#[test]
fn services_of_xinetd() {
    let yaml = made(
        Format::Xinetd,
        &[(
            "ident",
            "defaults\n{\n instances = 60\n}\nservice ident\n{\n socket_type = stream\n wait = no\n user = nobody\n\
             server = /usr/sbin/identd\n server_args = -i\n per_source = 5\n cps = 25 30\n\
             only_from = 10.0.0.0/8\n flags = NODELAY IPv6\n}\nservice off\n{\n disable = yes\n}\n",
        )],
    );
    has(
        &yaml,
        &[
            "address: \":113\"",
            "max_connections: 60",
            "overflow: close",
            "max_connections_per_source: 5",
            "accept_rate: \"25 in 1s\"",
            "ignore_sigpipe: false",
            "no_delay: true",
        ],
    );
    assert!(yaml.contains("not translated: only_from"), "{yaml}");
}

#[test]
fn watchers_of_circus() {
    let yaml = made(
        Format::Circus,
        &[(
            "circus.ini",
            "[circus]\ncheck_delay = 5\n[socket:web]\nhost = 127.0.0.1\nport = 8080\n[watcher:app]\n\
             cmd = uvicorn --fd $(circus.sockets.web) app:app\nuse_sockets = True\nnumprocesses = 2\n\
             graceful_timeout = 45\nstop_signal = TERM\nrlimit_nofile = 500\n[env:app]\nlang = C\n",
        )],
    );
    has(
        &yaml,
        &[
            "address: 127.0.0.1:8080",
            "listeners: [web]",
            "instances: 2",
            "stop_timeout: 45s",
            "environment: { lang: C }",
            "limits: { nofile: 500 }",
        ],
    );
    assert!(yaml.contains("{fd:web}"), "{yaml}");
}

#[test]
fn programs_of_supervisord() {
    let yaml = made(
        Format::Supervisord,
        &[(
            "supervisord.conf",
            "[fcgi-program:app]\ncommand=/usr/bin/app -n %(process_num)02d ; comment\nsocket=unix:///run/%(program_name)s.sock\n\
             socket_mode=0660\nnumprocs=4\nautorestart=unexpected\nexitcodes=0,2\nstopsignal=QUIT\nstopwaitsecs=30\n\
             environment=LANG=\"C.UTF-8\",X='a,b'\nstdout_logfile=/var/log/app.log\n[program:two]\ncommand=x %(ENV_HOME)s\n",
        )],
    );
    has(
        &yaml,
        &[
            "address: unix:/run/app.sock",
            "instances: 4",
            "handoff: fd0",
            "stop_signal: SIGQUIT",
            "environment: { LANG: C.UTF-8, X: \"a,b\" }",
            "output: file:/var/log/app.log",
            "restart: { policy: on-failure, success_exit_status: [ 0, 2 ] }",
        ],
    );
    assert!(
        yaml.contains("{instance}") && yaml.contains("[x, \"$HOME\"]"),
        "{yaml}"
    );
}

#[test]
fn the_small_ones() {
    let yaml = made(
        Format::Procfile,
        &[(
            "Procfile",
            "web: bundle exec puma -p $PORT\nworker: rake {jobs}\n",
        )],
    );
    has(
        &yaml,
        &[
            "address: 127.0.0.1:5000",
            "environment: { PORT: \"{port}\" }",
        ],
    );
    assert!(yaml.contains("rake {{jobs}}"), "{yaml}");
    // exec(1p) has neither variables in front nor what the shell does itself.
    let script = |line: &str| made(Format::Procfile, &[("Procfile", &format!("a: {line}\n"))]);
    let assigns = script("A=b rake $A");
    has(
        &assigns,
        &[r#"command: [/bin/sh, -c, "exec env A=b rake $A"]"#],
    );
    for line in ["cd app && ./run", "cd app", "./one | ./two"] {
        has(
            &script(line),
            &[
                &format!(r#"command: [/bin/sh, -c, "{line}"]"#),
                "kill_mode: group",
            ],
        );
    }
    let yaml = made(
        Format::Compose,
        &[(
            "compose.yaml",
            "services:\n  web:\n    image: nginx\n    ports: ['8080:80', '127.0.0.1:53:53/udp', '9']\n\
             \x20   environment: [A=b, 'C=${D}', E=x$$y, F]\n\
             \x20   command: [a, $$B, $G]\n\
             \x20   restart: unless-stopped\n    user: '33:33'\n    depends_on: [db]\n\
             \x20   deploy: {replicas: 3}\nvolumes: {x: }\n",
        )],
    );
    has(
        &yaml,
        &[
            "instances: 3",
            "restart: always",
            "group: 33",
            "address: udp://127.0.0.1:53",
            r#"command: [a, "$B", "$G"]"#,
            "# not translated: $G: the file's own variables are not known",
            r#"environment: { A: b, C: "${{D}}", E: "x$y" }"#,
        ],
    );
    assert!(yaml.contains("not translated: ports: 9"), "{yaml}");
    let yaml = made(
        Format::Pm2,
        &[(
            "ecosystem.config.json",
            r#"{"apps":[{"name":"api","script":"./api.js","args":"--x 1","instances":4,"exec_mode":"cluster",
               "env":{"PORT":3000},"kill_timeout":3000,"max_memory_restart":"1G"}]}"#,
        )],
    );
    has(
        &yaml,
        &[
            "command: [node, ./api.js, --x, 1]",
            "instances: 4",
            "stop_timeout: 3000ms",
        ],
    );
}

#[test]
fn a_file_that_defines_nothing_is_named() {
    let commented = "#discard stream tcp nowait root internal\n";
    let yaml = made(Format::Inetd, &[("inetd.conf", commented)]);
    assert_eq!(yaml, "# inetd.conf: no listener or worker is defined\n");
}

#[test]
fn what_check_refuses_is_a_comment() {
    let yaml = made(
        Format::Systemd,
        &[
            (
                "a.socket",
                "[Socket]\nListenStream=/run/a\nNoDelay=yes\nListenStream=[nonsense\n",
            ),
            (
                "a.service",
                "[Service]\nExecStart=/bin/a\nNice=77\nUser=a b\n[Install]\nAlso=b.service\n",
            ),
            ("b.service", "[Service]\nType=oneshot\n"),
        ],
    );
    assert!(yaml.contains("# not translated: nice: 77: "), "{yaml}");
}

mod lost;
mod silent;
