//! Configurations of servers, as texts, against listeners.

use super::with_files;
use crate::config::{self, SourceFile};
use crate::host::{Facts, ServerFiles};
use crate::plan;
use crate::report::Kind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files in memory, by their paths.
struct Texts(BTreeMap<PathBuf, String>);

impl ServerFiles for Texts {
    fn text(&self, path: &Path) -> Option<String> {
        self.0.get(path).cloned()
    }

    fn entries(&self, folder: &Path) -> Option<Vec<PathBuf>> {
        let paths = self.0.keys().filter(|path| path.parent() == Some(folder));
        let paths: Vec<PathBuf> = paths.cloned().collect();
        (!paths.is_empty()).then_some(paths)
    }
}

/// The messages and hints about a worker with this preset and command, at these listeners.
fn advice(preset: &str, command: &str, addresses: &[&str], files: &[(&str, &str)]) -> Vec<String> {
    advice_about(preset, command, "", addresses, files)
}

/// The same, about a worker with these further keys.
fn advice_about(
    preset: &str,
    command: &str,
    keys: &str,
    addresses: &[&str],
    files: &[(&str, &str)],
) -> Vec<String> {
    let names = ["web", "two", "three"];
    let listeners: Vec<String> = names
        .iter()
        .zip(addresses)
        .map(|(name, address)| format!("  {name}: '{address}'\n"))
        .collect();
    let taken = names[..addresses.len()].join(", ");
    let yaml = format!(
        "listeners:\n{}workers:\n  app:\n    preset: {preset}\n    \
         command: {command}\n    listeners: [{taken}]\n{keys}",
        listeners.concat()
    );
    let loaded = config::read(vec![SourceFile {
        name: "test.yaml".to_owned(),
        bytes: yaml.into_bytes(),
        folder: "/".into(),
    }]);
    assert_eq!(loaded.report.errors, []);
    let mut sources = loaded.sources;
    let (plan, _) = plan::resolve(loaded.config, &Facts::default(), &mut sources);
    let files = files
        .iter()
        .map(|(path, text)| (path.into(), (*text).to_owned()));
    let advice = with_files(&plan, &Texts(files.collect()), 0);
    let told = advice.into_iter().map(|problem| {
        assert!(
            matches!(
                problem.kind,
                Kind::ServerConfiguration | Kind::ServerSupport
            ),
            "{problem:?}"
        );
        assert_eq!(problem.worker.as_deref(), Some("app"));
        assert_eq!(
            problem.place.map(|place| place.line),
            Some(4 + addresses.len() as u32)
        );
        format!("{} | {}", problem.message, problem.hint.unwrap_or_default())
    });
    told.collect()
}

/// Asserts that there is one piece of advice for each of these texts, which it contains.
#[track_caller]
fn assert_told(told: &[String], wanted: &[&str]) {
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    for (one, words) in told.iter().zip(wanted) {
        assert!(one.contains(words), "{one} lacks {words}");
    }
}

const NGINX: &str = "/etc/nginx/nginx.conf";

#[test]
fn nginx_that_listens_where_the_listeners_are_is_well() {
    let text = "
        http {
            server { listen 127.0.0.1:8080; listen [::1]:8080 default_server; }
            # server { listen 9; }
            include sites/*.conf;
        }";
    let files = [
        (NGINX, text),
        (
            "/etc/nginx/sites/a.conf",
            "server { listen \"unix:/run/a b.sock\" ; }",
        ),
        ("/etc/nginx/sites/a.conf.off", "server { listen 81; }"),
    ];
    let at = ["127.0.0.1:8080", "[::1]:8080", "unix:/run/a b.sock"];
    assert_told(&advice("nginx", "[nginx]", &at, &files), &[]);
}

#[test]
fn nginx_is_compared_by_the_exact_address() {
    let files = [(NGINX, "http { server {\n listen 8080 reuseport;\n} }")];
    assert_told(
        &advice("nginx", "[nginx]", &["127.0.0.1:8080"], &files),
        &[
            "`reuseport` of `listen 8080` (/etc/nginx/nginx.conf:2) makes",
            "address 0.0.0.0:8080 of `listen 8080` (/etc/nginx/nginx.conf:2), so nginx binds that \
             itself, and clients are refused whenever it restarts | nginx takes a socket of exactly \
             the same address, and `web` is 127.0.0.1:8080",
            "closes the listener `web`: no `listen` in /etc/nginx/nginx.conf has the address \
             127.0.0.1:8080 | write `listen 127.0.0.1:8080;`",
        ],
    );
}

#[test]
fn nginx_binds_one_address_where_a_wildcard_covers_the_others() {
    let text = "http { server { listen *:80; } server { listen 127.0.0.1:80; } }";
    assert_told(
        &advice("nginx", "[nginx]", &["0.0.0.0:80"], &[(NGINX, text)]),
        &[],
    );
}

#[test]
fn nginx_without_a_listen_is_at_port_80() {
    let text = "http { server { root /srv; } }";
    assert_told(
        &advice("nginx", "[nginx]", &["0.0.0.0:80"], &[(NGINX, text)]),
        &[],
    );
    assert_told(
        &advice(
            "nginx",
            "[nginx, -c, /n.conf]",
            &["127.0.0.1:81"],
            &[("/n.conf", text)],
        ),
        &[
            "the default of the server that ends at /n.conf:1",
            "`listen 127.0.0.1:81;`",
        ],
    );
}

#[test]
fn nginx_that_cannot_be_read_as_a_whole_is_not_said_to_lack_a_listen() {
    let text = "http { include /etc/nginx/missing.conf; server { listen 8080; } }";
    let at = ["0.0.0.0:8080", "127.0.0.1:9090"];
    assert_told(&advice("nginx", "[nginx]", &at, &[(NGINX, text)]), &[]);
    let names = "http { server { listen example.org:8080; } server { listen 8080; } }";
    assert_told(&advice("nginx", "[nginx]", &at, &[(NGINX, names)]), &[]);
    // A configuration elsewhere is not the one of the default.
    assert_told(
        &advice("nginx", "[nginx, -p, /srv]", &at, &[(NGINX, names)]),
        &[],
    );
    assert_told(&advice("nginx", "[nginx]", &at, &[]), &[]);
    // One that includes itself comes to an end.
    let endless = [(
        NGINX,
        "http { server { listen 8080; } include nginx.conf; }",
    )];
    assert_told(&advice("nginx", "[nginx]", &at, &endless), &[]);
}

#[test]
fn php_fpm_is_compared_by_its_pools() {
    let main = "[global]\nprocess_control_timeout = 20s\ninclude=/etc/php/8.2/fpm/pool.d/*.conf\n";
    let pool = ";[x]\n[www]\nlisten = /run/php/$pool.sock\n[tcp]\nlisten = 9000 ; comment\n";
    let files = [
        ("/etc/php/8.2/fpm/php-fpm.conf", main),
        ("/etc/php/8.2/fpm/pool.d/www.conf", pool),
    ];
    let at = ["unix:/run/php/www.sock", "0.0.0.0:9000"];
    let command = "[/usr/sbin/php-fpm8.2, -F]";
    assert_told(
        &advice("php-fpm", command, &at, &files),
        &["php-fpm removes /run/php/www.sock of the listener `web` when it stops"],
    );
    // With that hint.
    let hidden = "[global]\nprocess_control_timeout = 20s\n[www]\nlisten = /nonexistent/web.sock\n";
    let variable = "environment: {FPM_SOCKETS: '/nonexistent/web.sock={fd:web}'}";
    let command_with = format!("[php-fpm, -y, /fpm.conf]\n    handoff: none\n    {variable}");
    assert_told(
        &advice("php-fpm", &command_with, &at[..1], &[("/fpm.conf", hidden)]),
        &[],
    );
    let at = ["unix:/run/php/other.sock", "127.0.0.1:9000"];
    assert_told(
        &advice("php-fpm", command, &at, &files),
        &[
            "pool `www`, `listen = /run/php/www.sock` (/etc/php/8.2/fpm/pool.d/www.conf:3)",
            "pool `tcp`, `listen = 9000` (/etc/php/8.2/fpm/pool.d/www.conf:5), so php-fpm binds that \
             itself, and clients are refused whenever it restarts | php-fpm takes a socket of exactly \
             the same address, and `two` is 127.0.0.1:9000",
            "removes the path of the listener `web` at its start",
            "closes the listener `two` at its start",
        ],
    );
    let files = [("/fpm.conf", "[www]\nlisten = 127.0.0.1:9000\n")];
    assert_told(
        &advice(
            "php-fpm",
            "[php-fpm, -y, /fpm.conf]",
            &["127.0.0.1:9000"],
            &files,
        ),
        &["/fpm.conf has no `process_control_timeout`"],
    );
}

#[test]
fn servers_that_are_told_a_number_must_have_it() {
    let at = ["127.0.0.1:8000"];
    assert_told(
        &advice("uvicorn", "[uvicorn, 'app:app']", &at, &[]),
        &[
            "does not get the listener `web`: its command has no number of a descriptor | add `--fd \
           {fd:web}` to the command",
        ],
    );
    assert_told(
        &advice(
            "uvicorn",
            "[uvicorn, --fd, '{fd:web}', 'app:app']",
            &at,
            &[],
        ),
        &[],
    );
    assert_told(
        &advice(
            "hypercorn",
            "[hypercorn, --bind, 'fd://3', 'app:app']",
            &at,
            &[],
        ),
        &[],
    );
    assert_told(&advice("uwsgi", "[uwsgi, --ini, app.ini]", &at, &[]), &[]);
}

#[test]
fn gunicorn_ignores_what_it_is_to_bind() {
    let at = ["127.0.0.1:8000"];
    assert_told(&advice("gunicorn", "[gunicorn, 'app:app']", &at, &[]), &[]);
    for command in [
        "[gunicorn, --bind, '0.0.0.0:80', 'app:app']",
        "[gunicorn, '--bind=0.0.0.0:80', 'app:app']",
        "[gunicorn, '-b0.0.0.0:80', 'app:app']",
    ] {
        let told = advice("gunicorn", command, &at, &[]);
        assert_told(&told, &["gunicorn ignores `--bind 0.0.0.0:80`"]);
    }
    assert_told(
        &advice("gunicorn", "[gunicorn, --reuse-port, 'app:app']", &at, &[]),
        &["does not take its listeners with `--reuse-port`"],
    );
}

#[test]
fn puma_needs_a_bind_or_the_flag() {
    let at = ["127.0.0.1:9292"];
    let flag = "[puma, --bind-to-activated-sockets=only]";
    assert_told(&advice("puma", flag, &at, &[]), &[]);
    let flag = "[puma, --bind-to-activated-sockets, only]";
    assert_told(&advice("puma", flag, &at, &[]), &[]);
    let flag = "[puma, --bind-to-activated-sockets, config.ru]";
    let binds = ["puma binds 0.0.0.0:9292 as well"];
    assert_told(&advice("puma", flag, &at, &[]), &binds);
    let closes = ["puma closes the listeners of the worker"];
    assert_told(&advice("puma", "[puma]", &at, &[]), &closes);
    let file = [("/srv/puma.rb", "bind 'tcp://127.0.0.1:9292'\n")];
    assert_told(&advice("puma", "[puma, -C, /srv/puma.rb]", &at, &file), &[]);
    assert_told(
        &advice("puma", "[puma, -C, /srv/other.rb]", &at, &file),
        &closes,
    );
}

#[test]
fn nginx_cannot_change_its_user_in_a_sandbox() {
    let at = ["127.0.0.1:8080"];
    let command = "[nginx, -c, /srv/nginx.conf]";
    let site = "http { server { listen 127.0.0.1:8080; } }\n";
    let told = |user: &str, keys: &str| {
        let text = format!("{user}{site}");
        advice_about("nginx", command, keys, &at, &[("/srv/nginx.conf", &text)])
    };
    let ends = ["starts as root and changes to www-data"];
    let sandbox = "    sandbox: basic\n";
    assert_told(&told("user www-data;\n", sandbox), &ends);
    assert_told(&told("", sandbox), &["changes to another user"]);
    assert_told(&told("user root;\n", sandbox), &[]);
    assert_told(&told("user www-data;\n", ""), &[]);
    let able = "    sandbox: { preset: basic, capabilities: [CAP_SETUID, CAP_SETGID] }\n";
    assert_told(&told("user www-data;\n", able), &[]);
}

// Only of nginx was it told.
#[test]
fn other_servers_cannot_change_their_user_in_a_sandbox_either() {
    let at = ["127.0.0.1:8080"];
    let sandbox = "    sandbox: basic\n";
    let able = "    sandbox: { preset: basic, capabilities: [CAP_KILL, CAP_SETUID, CAP_SETGID] }\n";
    let fpm = |user: &str| {
        format!("[global]\nprocess_control_timeout = 9s\n[www]\n{user}listen = 127.0.0.1:8080\n")
    };
    let haproxy = |user: &str| {
        format!(
            "global\n  {user}\nuserlist u\n  user x password y\nfrontend f\n  bind fd@${{FD}}\n"
        )
    };
    let lighttpd = |user: &str| format!("{user}server.systemd-socket-activation = \"enable\"\n");
    for (preset, command, text, changes, stays) in [
        (
            "php-fpm",
            "[php-fpm, -y, /srv/conf]",
            &fpm as &dyn Fn(&str) -> String,
            "user = www-data\n",
            "user = root\n",
        ),
        (
            "haproxy",
            "[haproxy, -Ws, -f, /srv/conf]",
            &haproxy,
            "user www-data",
            "uid 0",
        ),
        (
            "lighttpd",
            "[lighttpd, -D, -f, /srv/conf]",
            &lighttpd,
            "server.username = \"www-data\"\n",
            "",
        ),
    ] {
        let told = |user: &str, keys: &str| {
            let text = text(user);
            advice_about(preset, command, keys, &at, &[("/srv/conf", &text)])
        };
        let changing = format!("{preset} starts as root and changes to www-data");
        assert_told(&told(changes, sandbox), &[&changing]);
        assert_told(&told(stays, sandbox), &[]);
        assert_told(&told(changes, able), &[]);
        assert_told(&told(changes, ""), &[]);
    }
}

#[test]
fn lighttpd_needs_its_option() {
    let at = ["127.0.0.1:8080"];
    let on = "server.systemd-socket-activation = \"enable\"\n";
    let off = "# server.systemd-socket-activation = \"enable\"\ninclude \"conf/*.conf\"\n";
    let main = "/etc/lighttpd/lighttpd.conf";
    assert_told(
        &advice("lighttpd", "[lighttpd, -D]", &at, &[(main, on)]),
        &[],
    );
    let split = [(main, off), ("/etc/lighttpd/conf/a.conf", on)];
    assert_told(&advice("lighttpd", "[lighttpd, -D]", &at, &split), &[]);
    let none = [(main, off), ("/etc/lighttpd/conf/a.conf", off)];
    assert_told(
        &advice("lighttpd", "[lighttpd, -D]", &at, &none),
        &["does not have `server.systemd-socket-activation`"],
    );
    assert_told(
        &advice("lighttpd", "[lighttpd, -D]", &at, &[(main, off)]),
        &[],
    );
}

#[test]
fn haproxy_needs_a_bind_and_a_master_for_its_reload() {
    let at = ["127.0.0.1:8080"];
    let good = [("/h.cfg", "frontend f\n  bind fd@${FD}\n")];
    assert_told(
        &advice("haproxy", "[haproxy, -Ws, -f, /h.cfg]", &at, &good),
        &[],
    );
    let bad = [("/h.cfg", "frontend f\n  bind :80\n")];
    assert_told(
        &advice("haproxy", "[haproxy, -db, -f, /h.cfg]", &at, &bad),
        &["/h.cfg has no `bind fd@`", "a reload would end haproxy"],
    );
}

#[test]
fn what_is_installed_is_told_without_running_it() {
    let at = ["127.0.0.1:8080"];
    let dpkg = |version: &str| {
        format!(
            "Package: a\nStatus: install ok installed\nVersion: 1.0\n\nPackage: caddy\nStatus: install \
             ok installed\nVersion: {version}\n"
        )
    };
    let (old, new) = (dpkg("2.6.2-5+b1"), dpkg("2:2.10.0"));
    let status = "/var/lib/dpkg/status";
    let run = "[/usr/bin/caddy, run]";
    assert_told(
        &advice("caddy", run, &at, &[(status, &old)]),
        &["it is version 2.6, and `bind fd/3` came with 2.9"],
    );
    assert_told(&advice("caddy", run, &at, &[(status, &new)]), &[]);
    assert_told(
        &advice("caddy", "[/opt/caddy, run]", &at, &[(status, &old)]),
        &[],
    );

    let module = |name: &'static str| [(name, "")];
    let with = module("/usr/lib64/httpd/modules/mod_systemd.so");
    assert_told(&advice("apache", "[httpd, -DFOREGROUND]", &at, &with), &[]);
    let without = module("/usr/lib/apache2/modules/mod_ssl.so");
    assert_told(
        &advice("apache", "[apache2, -DFOREGROUND]", &at, &without),
        &["it has no mod_systemd"],
    );
    assert_told(&advice("apache", "[apache2, -DFOREGROUND]", &at, &[]), &[]);
}
