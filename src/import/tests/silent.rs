//! No line of a file is without a trace: without it, something else is printed.

use super::{Format, units};
use crate::import::import;

/// Files as they are found, with what is no default.
const FILES: &[(Format, &str, &str)] = &[
    (
        Format::Systemd,
        "app.socket",
        r#"[Unit]
Description=OpenBSD Secure Shell server socket
Before=sockets.target
ConditionPathExists=!/etc/ssh/sshd_not_to_be_run
[Socket]
ListenStream=22
ListenStream=[::1]:2222
Accept=yes
FreeBind=yes
Backlog=100
NoDelay=yes
KeepAliveTimeSec=2min
MaxConnections=9
MaxConnectionsPerSource=3
TriggerLimitBurst=9
PollLimitBurst=50
IPTOS=low-delay
SmackLabel=x
[Install]
Alias=sshd.socket
"#,
    ),
    (
        Format::Systemd,
        "app.service",
        r#"[Unit]
Description=HAProxy Load Balancer
After=network-online.target
Wants=network-online.target
StartLimitBurst=3
StartLimitIntervalSec=60
[Service]
EnvironmentFile=-/etc/default/haproxy
BindReadOnlyPaths=/dev/log:/var/lib/haproxy/dev/log
Environment="CONFIG=/etc/haproxy/haproxy.cfg" PIDFILE=/run/haproxy.pid
Environment=HOST=%H
ExecStartPre=/bin/check $CONFIG ; -/bin/other
ExecStart=@/usr/sbin/haproxy haproxy -Ws -f $CONFIG -p $PIDFILE
ExecReload=/usr/sbin/haproxy -c
ExecReload=/bin/kill -USR2 $MAINPID
ExecStop=/bin/stop
KillMode=mixed
KillSignal=SIGUSR1
Restart=always
RestartSec=0.5
RestartMaxDelaySec=1min
SuccessExitStatus=143 DATAERR
Type=notify
NotifyAccess=all
TimeoutStartSec=0
TimeoutStopSec=1.5
WatchdogSec=30
User=haproxy
Group=haproxy
SupplementaryGroups=ssl
UMask=0077
Nice=5
LimitNOFILE=65536
LimitCPU=1min
StandardOutput=append:/var/log/out
StandardError=append:/var/log/err
SyslogIdentifier=x
RuntimeDirectory=a b
RuntimeDirectoryMode=0750
StateDirectory=x
WorkingDirectory=-/srv
PrivateTmp=true
ProtectSystem=strict
ReadWritePaths=/var/lib/haproxy
CapabilityBoundingSet=CAP_CHOWN
SystemCallFilter=@system-service
SystemCallErrorNumber=EACCES
DynamicUser=yes
MemoryMax=1G
MemoryHigh=1G
Slice=x.slice
OOMScoreAdjust=-500
IgnoreSIGPIPE=no
FileDescriptorStoreMax=9
RuntimeMaxSec=1d
NoSuchSetting=1
Sockets=no.socket
[Install]
Also=x.service
"#,
    ),
    (
        Format::Inetd,
        "inetd.conf",
        r#"ftp stream tcp nowait root /usr/sbin/tcpd /usr/sbin/in.ftpd
time dgram udp wait root internal
talk dgram udp wait nobody.tty /usr/sbin/in.talkd in.talkd
127.0.0.1,10.0.0.1:8081 stream tcp nowait/10/20/5 root:wheel/daemon /bin/b b
8083 raw tcp nowait root /bin/c c
rstatd/1-3 dgram rpc/udp wait root /usr/sbin/rpc.rstatd rpc.rstatd
"#,
    ),
    (
        Format::Xinetd,
        "xinetd.conf",
        r#"defaults
{
instances = 60
log_type = SYSLOG authpriv
cps = 25 30
umask = 002
only_from = 10.0.0.0/8
disabled = off
env = X=1
}
service off
{
}
service cvs
{
port = 2401
socket_type = dgram
wait = yes
user = root
group = tty
passenv = PATH
env = HOME=/var/cvs
server = /usr/bin/cvs
server_args = -f --allow-root=/var/cvs pserver
bind = 127.0.0.1
nice = 5
flags = KEEPALIVE NAMEINARGS SENSOR
only_from += 192.168.0.0/16
rlimit_as = 8M
access_times = 08:00-18:00
banner = /etc/banner
max_load = 2
}
service proxy
{
port = 8888
redirect = 192.168.1.1 80
flags = IPv6
v6only = yes
wait = no
per_source = 3
}
includedir /etc/xinetd.d
"#,
    ),
    (
        Format::Supervisord,
        "supervisord.conf",
        r#"[supervisord]
user=root
umask=027
environment=GLOBAL="1"
[program:a]
command=/bin/a %(ENV_X)s %(here)s
    --more
directory=/srv/app
user=www-data
numprocs=2
numprocs_start=1
autostart=false
autorestart=true
startsecs=10
startretries=5
stopsignal=QUIT
stopwaitsecs=60
stopasgroup=true
stdout_logfile=/var/log/a.log
stdout_logfile_maxbytes=1MB
stderr_logfile=/var/log/a.err
environment=PATH="/opt:%(ENV_PATH)s",KEEP="yes"
priority=999
[fcgi-program:b]
command=/usr/bin/php-cgi
socket=unix:///run/b.sock
socket_owner=www-data:adm
socket_mode=0770
socket_backlog=9
exitcodes=0,2
[group:x]
[include]
files=*.conf
"#,
    ),
    (
        Format::Circus,
        "circus.ini",
        r#"[circus]
check_delay = 5
[env]
global = 1
[watcher:web]
cmd = /bin/web --fd $(circus.sockets.web)
args = -v
use_sockets = True
numprocesses = 3
copy_env = False
warmup_delay = 0.5
graceful_timeout = 0.5
max_retry = 5
stdout_stream.filename = /var/log/web.log
stderr_stream.filename = /var/log/web.err
hooks.before_start = my.hook
uid = www-data
gid = adm
working_dir = /srv
stop_signal = INT
stop_children = True
respawn = False
rlimit_nofile = 500
rlimit_bad = 1
[env:web]
pythonpath = /srv
path = $PATH:/opt
[socket:web]
host = ::1
port = 8080
backlog = 9
so_reuseport = True
[other]
"#,
    ),
    (
        Format::Procfile,
        "Procfile",
        r#"web: bundle exec puma -p $PORT
release: ./migrate
bad line
"#,
    ),
    (
        Format::Compose,
        "compose.yaml",
        r#"services:
  web:
    image: nginx
    command: nginx
    restart: on-failure:3
    user: '33:33'
    working_dir: /srv
    stop_signal: SIGQUIT
    stop_grace_period: 9s
    mem_limit: 1g
    cpus: 0.5
    pids_limit: 9
    init: true
    healthcheck: {interval: 9s}
    ports:
      - '8080:80'
      - '9000-9001:9000-9001/udp'
    environment:
      - A=1
      - B=${X}
    env_file:
      - a.env
    ulimits:
      nofile: 9
      core: -1
  db:
    command: db
    deploy:
      replicas: 2
      restart_policy: {condition: any, max_attempts: 3}
      resources: {limits: {memory: 1g}, reservations: {cpus: 1}}
      mode: global
volumes: {x: }
"#,
    ),
    (
        Format::Pm2,
        "ecosystem.config.json",
        r#"{"apps": [{"name": "api",
"script": "a.js",
"args": "-v",
"interpreter": "/opt/node",
"interpreter_args": "--x",
"instances": "max",
"exec_mode": "cluster",
"cwd": "/srv",
"env": {"PORT": 3000},
"env_production": {},
"kill_timeout": 9,
"listen_timeout": 9,
"restart_delay": 9,
"wait_ready": true,
"max_memory_restart": "1G",
"max_restarts": 9,
"watch": true,
"treekill": false,
"out_file": "/o",
"log_file": "/l",
"cron_restart": "0 0 * * *",
"user": "www-data"
}],
"deploy": {},
"x": 1}
"#,
    ),
];

/// Lines that hold others together.
fn is_frame(line: &str) -> bool {
    let opens = ["[", "{", "}", "service ", "defaults"]
        .iter()
        .any(|start| line.starts_with(start));
    let is_name = line.ends_with(':') || line.starts_with("\"script\"");
    // The default, or what the line before says.
    let is_default = line.starts_with("wait = ") || line == "socket_type = dgram";
    opens || is_name || is_default
}

#[test]
fn each_line_is_translated_or_named() {
    let mut silent = Vec::new();
    for (format, name, text) in FILES {
        let service = ("app@.service", "[Service]\nExecStart=/bin/app\n");
        let made = |text: &str| {
            let files = match name.ends_with(".socket") {
                true => units(&[(name, text), service]),
                false => units(&[(name, text)]),
            };
            import(*format, &files).unwrap_or_default()
        };
        let whole = made(text);
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if is_frame(line.trim()) {
                continue;
            }
            let mut others = lines.clone();
            others.remove(index);
            let without = made(&(others.join("\n") + "\n"));
            if without == whole {
                silent.push(format!("{name}: {line}"));
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}
