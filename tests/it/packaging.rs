//! What is installed and packaged: nothing forgotten, nothing left, and every file as whoever reads
//! it wants it. Starting it is in `booted_*.rs`.

mod tarball;

use crate::harness::{TempDir, World, listend_path, package, require_tool};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// What a program says that has to succeed, on both outputs.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = both(&output);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}",
        output.status
    );
    said
}

fn both(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs make with the program under test.
#[track_caller]
fn make(words: &[&str]) {
    let listend = format!("LISTEND={}", listend_path().display());
    run(Command::new("make")
        .arg("--silent")
        .args(words)
        .arg(listend));
}

/// Every file below a folder, by its path from there.
fn files(folder: &Path) -> BTreeSet<String> {
    fn walk(folder: &Path, top: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("list a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, top, found);
            } else {
                let inside = path.strip_prefix(top).expect("it is below");
                found.insert(inside.to_string_lossy().into_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(folder, folder, &mut found);
    found
}

/// What is installed, without documentation, from PREFIX on.
const INSTALLED: &[&str] = &[
    "bin/listend",
    "lib/systemd/system/listend.service",
    "lib/systemd/system/listend@.service",
    "lib/systemd/user/listend.service",
    "lib/sysusers.d/listend.conf",
    "lib/tmpfiles.d/listend.conf",
    "share/bash-completion/completions/listend",
    "share/fish/vendor_completions.d/listend.fish",
    "share/listend/delegate.conf",
    "share/listend/hardened.conf",
    "share/listend/listend-flows.conf",
    "share/listend/listend.schema.json",
    "share/listend/listend.service.conf",
    "share/listend/listend.socket",
    "share/listend/locked.conf",
    "share/listend/sandbox.conf",
    "share/listend/upgrade-running",
    "share/man/man5/listend.yaml.5",
    "share/man/man7/listend-control.7",
    "share/man/man7/listend-diagnostics.7",
    "share/man/man7/listend-handoff.7",
    "share/man/man8/listend.8",
    "share/zsh/site-functions/_listend",
];

#[test]
fn what_make_installs_it_takes_away_again_but_for_the_configuration() {
    if require_tool("make").is_none() {
        return;
    }
    let dir = TempDir::new();
    let to = format!("DESTDIR={}", dir.path().display());
    let places = ["PREFIX=/opt/it", "SYSCONFDIR=/opt/etc"];
    let others = ["install-openrc", "install-runit", "install-s6"];
    make(&[&["install", &to], &others[..], &places].concat());
    let installed = files(dir.path());
    let is_code = |path: &&String| path.starts_with("opt/it") && !path.contains("/share/doc/");
    let code: Vec<&str> = installed
        .iter()
        .filter(is_code)
        .map(|path| &path["opt/it/".len()..])
        .collect();
    assert_eq!(code, INSTALLED);
    let at = |path: &str| dir.path().join(path);
    // Every place that is written down is the one where it is.
    for path in installed
        .iter()
        .filter(|path| !path.ends_with("bin/listend"))
    {
        let text = String::from_utf8_lossy(&fs::read(at(path)).expect("read")).into_owned();
        let is_documentation = path.contains("/share/");
        assert!(!text.contains("/usr/share/listend"), "{path}");
        assert!(
            is_documentation
                || !text.contains("/usr/bin/listend") && !text.contains(" /etc/listend"),
            "{path} has the place of another system"
        );
    }
    let unit = fs::read_to_string(at("opt/it/lib/systemd/system/listend.service")).expect("read");
    assert!(unit.contains("ExecStart=/opt/it/bin/listend run -c /opt/etc/listend/listend.yaml "));

    // What somebody has written stays: when it is installed again, and when it goes.
    let config = at("opt/etc/listend/listend.yaml");
    assert_eq!(
        fs::read_to_string(&config).expect("read"),
        read("packaging/listend.yaml").replace("/usr/share", "/opt/it/share")
    );
    fs::write(&config, "listeners: {}\n").expect("write");
    make(&[&["install", &to], &places[..]].concat());
    make(&[&["uninstall", &to], &places[..]].concat());
    let left: Vec<String> = files(dir.path()).into_iter().collect();
    assert_eq!(
        left,
        [
            "opt/etc/conf.d/listend",
            "opt/etc/listend/conf.d/README",
            "opt/etc/listend/listend.yaml"
        ]
    );
    assert_eq!(
        fs::read_to_string(&config).expect("read"),
        "listeners: {}\n"
    );
}

/// A configuration that is good, as far as can be said without binding.
#[track_caller]
fn is_good(world: &World, yaml: &str) {
    let checked = world.check(yaml, &["--no-bind"]);
    checked.expect_code(0);
}

#[test]
fn the_configuration_of_a_fresh_install_is_good_as_it_is_and_without_its_marks() {
    let world = World::new();
    let text = read("packaging/listend.yaml");
    is_good(&world, &text);
    let mut example = String::new();
    for line in text.lines() {
        // What is to be taken out has no space behind the mark.
        match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') || rest_is_indented(line) => {
                example += &format!("{}\n", &line[1..]);
            }
            _ => {}
        }
    }
    assert!(
        example.contains("workers:") && example.contains("instances: 2"),
        "{example}"
    );
    is_good(&world, &example);
}

/// Whether it is a line of YAML below a key, and not of prose.
fn rest_is_indented(line: &str) -> bool {
    line.starts_with("#  ")
}

/// The lines below one, as far as they are further in, moved to the left.
fn block(text: &str, header: &str) -> String {
    let mut lines = text
        .lines()
        .skip_while(|line| line.trim_start() != header)
        .skip(1)
        .peekable();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = indent(lines.peek().unwrap_or_else(|| panic!("no {header}")));
    lines
        .take_while(|line| line.trim().is_empty() || indent(line) >= own)
        .map(|line| format!("{}\n", line.get(own..).unwrap_or_default()))
        .collect()
}

#[test]
fn the_configurations_in_the_examples_for_orchestrators_are_good() {
    let world = World::new();
    is_good(
        &world,
        &block(
            &read("packaging/kubernetes/listend.yaml"),
            "listend.yaml: |",
        ),
    );
    let nomad = block(
        &read("packaging/nomad/listend.nomad.hcl"),
        "data          = <<-YAML",
    );
    is_good(
        &world,
        &nomad.replace("{{ env \"NOMAD_PORT_web\" }}", "8080"),
    );
    is_good(
        &world,
        &block(&read("packaging/ansible/site.yml"), "listend_config:"),
    );
}

// Nomad itself is not to be had everywhere. Terraform reads the same language.
#[test]
fn the_job_for_nomad_is_written_in_its_language() {
    let Some(terraform) = require_tool("terraform") else {
        return;
    };
    let job = fs::File::open(root().join("packaging/nomad/listend.nomad.hcl")).expect("open");
    let mut format = Command::new(terraform);
    format.env("TF_CLI_CONFIG_FILE", "/dev/null");
    let said = run(format.args(["fmt", "-"]).stdin(job));
    assert_eq!(said, read("packaging/nomad/listend.nomad.hcl"));
}

#[test]
fn the_times_and_signals_of_the_job_for_nomad_agree() {
    let text = read("packaging/nomad/listend.nomad.hcl");
    let code: String = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let seconds = |key: &str, is: &str| -> u32 {
        let line = code.lines().find(|line| line.starts_with(key));
        let line = line.unwrap_or_else(|| panic!("no {key}"));
        let (_, value) = line.split_once(is).expect("a value");
        let value = value.trim().trim_matches('"');
        value
            .strip_suffix('s')
            .and_then(|value| value.parse().ok())
            .expect("seconds")
    };
    let stop = seconds("stop_timeout", ":");
    assert!(
        seconds("kill_timeout", "=") > stop,
        "longer than the worker may take"
    );
    assert!(seconds("timeout ", "=") < seconds("interval ", "="));
    // SIGHUP is a reload; see the section SIGNALS of listend(8).
    for wanted in [
        "change_mode   = \"signal\"",
        "change_signal = \"SIGHUP\"",
        "kill_signal  = \"SIGTERM\"",
        "type     = \"http\"",
    ] {
        assert!(code.contains(wanted), "{wanted}");
    }
    assert!(read("docs/scaling.md").contains("signal; never run"));
}

/// The settings of a section of a unit.
fn settings(unit: &str, section: &str) -> Vec<String> {
    let text = read(unit);
    let lines = text
        .lines()
        .skip_while(|line| *line != format!("[{section}]"))
        .skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_template_is_the_unit_but_for_its_places() {
    let of = |unit: &str| settings(unit, "Service");
    let places = |line: String| {
        let line = line.replace("/etc/listend/listend.yaml", "/etc/listend/%i.yaml");
        let line = line.replace("/run/listend/", "/run/listend@%i/");
        let line = line.replace("%t/listend/", "%t/listend@%i/");
        line.replace("RuntimeDirectory=listend", "RuntimeDirectory=listend@%i")
    };
    let wanted: Vec<String> = of("units/listend.service")
        .into_iter()
        .map(places)
        .collect();
    assert_eq!(of("units/listend@.service"), wanted);
    // The user's has no other values, but fewer of them.
    let user = of("units/user/listend.service");
    let exec = |line: &&String| !line.starts_with("Exec");
    let system = of("units/listend.service");
    let others: Vec<&String> = user
        .iter()
        .filter(exec)
        .filter(|line| !system.contains(line))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

/// A folder with the units as systemd would find them, which start the program under test.
fn unit_folder(drop_ins: &[&str]) -> TempDir {
    let dir = TempDir::new();
    let listend = listend_path().to_str().expect("UTF-8");
    for from in [
        "units/listend.service",
        "units/listend@.service",
        "units/examples/listend.socket",
        "units/user/listend.service",
    ] {
        let name = Path::new(from).file_name().expect("a name");
        let to = if from.contains("user") {
            dir.path().join("user")
        } else {
            dir.path().to_owned()
        };
        fs::create_dir_all(&to).expect("create a folder");
        // The pages need not be installed, and neither needs the program.
        let text: String = read(from)
            .replace("/usr/bin/listend", listend)
            .lines()
            .filter(|line| !line.starts_with("Documentation="))
            .flat_map(|line| [line, "\n"])
            .collect();
        fs::write(to.join(name), text).expect("write");
    }
    let to = dir.path().join("listend.service.d");
    fs::create_dir(&to).expect("create a folder");
    for name in drop_ins {
        fs::write(to.join(name), read(Path::new("units").join(name))).expect("write");
    }
    dir
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(analyze) = require_tool("systemd-analyze") else {
        return;
    };
    let dir = unit_folder(&["hardened.conf", "locked.conf"]);
    let instance = dir.path().join("listend@web.service");
    fs::rename(dir.path().join("listend@.service"), instance).expect("rename");
    for (manager, unit) in [
        ("--system", "listend.service"),
        ("--system", "listend@web.service"),
        ("--system", "listend.socket"),
        ("--user", "user/listend.service"),
    ] {
        let mut verify = Command::new(&analyze);
        verify
            .args(["verify", "--man=no", manager])
            .arg(dir.path().join(unit));
        let said = run(verify.env("XDG_RUNTIME_DIR", dir.path()));
        let about_us: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("listend"))
            .collect();
        assert!(about_us.is_empty(), "{unit}: {about_us:#?}");
    }
}

// systemd-analyze(1): 0 is the least exposure, 10 the most.
#[test]
fn the_units_are_exposed_no_more_than_they_have_to_be() {
    let Some(analyze) = require_tool("systemd-analyze") else {
        return;
    };
    for (drop_ins, most) in [
        (&[][..], "50"),
        (&["hardened.conf"], "17"),
        (&["hardened.conf", "locked.conf"], "11"),
    ] {
        // Offline, systemd before 254 reads no drop-ins.
        let dir = unit_folder(&[]);
        let unit = dir.path().join("listend.service");
        let mut whole = fs::read_to_string(&unit).expect("read");
        for name in drop_ins {
            whole += &read(Path::new("units").join(name));
        }
        fs::write(&unit, whole).expect("write");
        let mut security = Command::new(&analyze);
        security.args(["security", "--no-pager", "--offline=true"]);
        // It fails where the exposure is above.
        run(security.arg(format!("--threshold={most}")).arg(unit));
    }
}

#[test]
fn the_versions_are_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, wanted) in [
        ("packaging/alpine/APKBUILD", format!("pkgver={version}\n")),
        ("packaging/arch/PKGBUILD", format!("pkgver={version}\n")),
        ("packaging/deb/changelog", format!("listend ({version}-1) ")),
        (
            "packaging/kubernetes/listend.yaml",
            format!("image: listend:{version}\n"),
        ),
    ] {
        assert!(
            read(file).contains(&wanted),
            "{file} has another version than {version}"
        );
    }
}

/// Every script that somebody's machine runs.
fn scripts() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["deb", "rpm", "openrc", "runit", "s6"] {
        let folder = root().join("packaging").join(folder);
        let names = files(&folder);
        let data = ["deb/changelog", "s6/listend/timeout-kill"];
        found.extend(
            names
                .into_iter()
                .map(|name| folder.join(name))
                .filter(|path| !data.iter().any(|data| path.ends_with(data))),
        );
    }
    for script in [
        "alpine/listend.pre-install",
        "alpine/listend.post-upgrade",
        "arch/listend.install",
        "tarball/install.sh",
        "upgrade-running",
    ] {
        found.push(root().join("packaging").join(script));
    }
    found.push(root().join("packaging/alpine/APKBUILD"));
    found
}

#[test]
fn the_scripts_are_clean() {
    let Some(shellcheck) = require_tool("shellcheck") else {
        return;
    };
    // SC2034, SC2154: OpenRC and abuild read and set variables. SC2039, SC3043: their shells have
    // `local` and the like.
    let mut command = Command::new(shellcheck);
    command.args(["--shell=sh", "--exclude=SC2034,SC2154,SC2039,SC3043"]);
    run(command.args(scripts()));
}

// What is built before this is `cargo build`; what follows is what decides where things go.
#[test]
fn alpine_and_arch_package_what_is_installed() {
    if require_tool("make").is_none() || require_tool("bash").is_none() {
        return;
    }
    for (recipe, gone, has) in [
        (
            "packaging/alpine/APKBUILD",
            "usr/lib/systemd",
            "etc/init.d/listend",
        ),
        (
            "packaging/arch/PKGBUILD",
            "etc/init.d",
            "usr/lib/systemd/system/listend.service",
        ),
    ] {
        let (dir, sources) = (TempDir::new(), TempDir::new());
        let folder = format!("listend-{}", env!("CARGO_PKG_VERSION"));
        std::os::unix::fs::symlink(root(), sources.path().join(folder)).expect("symlink");
        let start = if recipe.contains("arch") {
            sources.path()
        } else {
            root()
        };
        let mut package = Command::new("bash");
        package.args([
            "-euc",
            &format!("source '{}'; package", root().join(recipe).display()),
        ]);
        package
            .env("pkgdir", dir.path())
            .env("LISTEND", listend_path())
            .current_dir(start);
        let made = package.output().expect("start bash");
        assert!(made.status.success(), "{recipe}: {}", both(&made));
        let packaged = files(dir.path());
        assert!(
            packaged.contains(has) && packaged.contains("usr/bin/listend"),
            "{packaged:#?}"
        );
        assert!(
            !packaged.iter().any(|path| path.starts_with(gone)),
            "{packaged:#?}"
        );
    }
}

#[test]
fn the_deb_has_no_errors_and_holds_what_is_installed() {
    let Some(package) = package::deb() else {
        return;
    };
    let field = |name: &str| {
        run(Command::new("dpkg-deb")
            .arg("-f")
            .arg(package.path())
            .arg(name))
    };
    assert_eq!(
        field("Version").trim(),
        format!("{}-1", env!("CARGO_PKG_VERSION"))
    );
    assert!(field("Depends").contains("libc6"), "{}", field("Depends"));
    let dir = TempDir::new();
    run(Command::new("dpkg-deb")
        .arg("-R")
        .arg(package.path())
        .arg(dir.path()));
    let packaged = files(dir.path());
    for wanted in INSTALLED {
        let compressed = format!("usr/{wanted}.gz");
        let has = packaged.contains(&format!("usr/{wanted}")) || packaged.contains(&compressed);
        assert!(has, "{wanted} is missing: {packaged:#?}");
    }
    let conffiles = fs::read_to_string(dir.path().join("DEBIAN/conffiles")).expect("read");
    let mut conffiles: Vec<&str> = conffiles.lines().collect();
    conffiles.sort_unstable();
    let wanted = ["/etc/listend/conf.d/README", "/etc/listend/listend.yaml"];
    assert_eq!(conffiles, wanted);
    let Some(lintian) = require_tool("lintian") else {
        return;
    };
    let mut lint = Command::new(lintian);
    lint.args(["--fail-on", "error", "--allow-root"]);
    // It leaves an index there.
    let scratch = TempDir::new();
    lint.env("TMPDIR", scratch.path());
    run(lint.arg(package.path()));
}

#[test]
fn the_rpm_holds_what_is_installed() {
    let Some(package) = package::rpm() else {
        return;
    };
    let Some(rpm) = require_tool("rpm") else {
        return;
    };
    let query = |what: &str| run(Command::new(&rpm).args(["-qp", what]).arg(package.path()));
    let packaged = query("--list");
    for wanted in INSTALLED {
        let line = format!("/usr/{wanted}");
        assert!(
            packaged.lines().any(|path| path == line),
            "{wanted} is missing: {packaged}"
        );
    }
    let configured = query("--configfiles");
    let configured: Vec<&str> = configured.lines().collect();
    let wanted = ["/etc/listend/conf.d/README", "/etc/listend/listend.yaml"];
    assert_eq!(configured, wanted);
    let scripts = query("--scripts");
    for wanted in [
        "postinstall",
        "preuninstall",
        "postuninstall",
        "systemctl daemon-reload",
    ] {
        assert!(scripts.contains(wanted), "{scripts}");
    }
    assert!(
        !scripts.contains("systemctl restart") && !scripts.contains("try-restart"),
        "{scripts}"
    );
}
