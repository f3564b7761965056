//! `listend import`: what other supervisors have becomes YAML that `listend check` accepts.

mod debian;

use crate::harness::{TempDir, listend_path, skip};
use listend::config::{SourceFile, read};
use listend::import::{FORMATS, Format, Unit, format_of, import};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(words: &[&Path]) -> Output {
    let mut command = Command::new(listend_path());
    command.arg("import").args(words);
    command.output().expect("listend runs")
}

/// The YAML, which has no errors.
fn accepted(yaml: &str) -> String {
    let file = SourceFile {
        name: "import".to_owned(),
        bytes: yaml.as_bytes().to_vec(),
        folder: PathBuf::from("/"),
    };
    let errors = read(vec![file]).report.errors;
    assert!(errors.is_empty(), "{errors:?}\n{yaml}");
    yaml.to_owned()
}

#[test]
fn every_socket_unit_of_this_machine_is_accepted() {
    let folder = Path::new("/usr/lib/systemd/system");
    let units = fs::read_dir(folder).into_iter().flatten().flatten();
    let sockets: Vec<PathBuf> = units
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "socket"))
        .collect();
    if sockets.is_empty() {
        return skip("this machine has no socket units");
    }
    for socket in sockets {
        let output = run(&[&socket]);
        assert!(output.status.success(), "{}: {output:?}", socket.display());
        accepted(&String::from_utf8(output.stdout).expect("UTF-8"));
    }
}

#[test]
fn drop_ins_and_the_other_unit_are_found_beside_a_unit() {
    let dir = TempDir::new();
    let socket = dir.path().join("app.socket");
    fs::write(&socket, "[Socket]\nListenStream=8080\n").expect("it is ours");
    let service = dir.path().join("app.service");
    fs::write(&service, "[Service]\nExecStart=/bin/old\nNice=1\n").expect("it is ours");
    let folder = dir.path().join("app.service.d");
    fs::create_dir(&folder).expect("it is ours");
    fs::write(folder.join("b.conf"), "[Service]\nNice=3\n").expect("it is ours");
    let first = "[Service]\nExecStart=\nExecStart=/bin/new\nNice=2\n";
    fs::write(folder.join("a.conf"), first).expect("it is ours");
    for unit in [&socket, &service] {
        let output = run(&[unit]);
        let yaml = accepted(&String::from_utf8(output.stdout).expect("UTF-8"));
        assert!(yaml.contains("address: [\":8080\"]"), "{yaml}");
        assert!(yaml.contains("command: [/bin/new]"), "{yaml}");
        assert!(yaml.contains("nice: 3"), "{yaml}");
    }
}

#[test]
fn a_byte_order_mark_hides_no_line() {
    let dir = TempDir::new();
    let files = [
        ("a.service", "[Service]\nExecStart=/bin/cat\n"),
        ("supervisord.conf", "[program:a]\ncommand=/bin/cat\n"),
        ("inetd.conf", "7 stream tcp nowait root /bin/cat cat\n"),
        (
            "ecosystem.config.json",
            r#"{ "apps": [{ "name": "a", "script": "/bin/cat" }] }"#,
        ),
    ];
    for (name, text) in files {
        let path = dir.path().join(name);
        let yaml = |text: String| {
            fs::write(&path, text).expect("it is ours");
            let output = run(&[&path]);
            assert!(output.status.success(), "{name}: {output:?}");
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        let plain = yaml(text.to_owned());
        assert_eq!(yaml(format!("\u{feff}{text}")), plain, "{name}");
    }
}

#[test]
fn an_instance_is_read_from_its_template() {
    let dir = TempDir::new();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it is ours");
        fs::write(path, text).expect("it is ours");
    };
    write("app@.socket", "[Socket]\nListenStream=127.0.0.1:%i\n");
    write("app@.service", "[Service]\nExecStart=/bin/app %i\n");
    write(
        "app@.service.d/a.conf",
        "[Service]\nEnvironment=A=template\nNice=1\n",
    );
    write("app@.service.d/b.conf", "[Service]\nEnvironment=B=1\n");
    write("app@8080.service.d/a.conf", "[Service]\nEnvironment=A=%i\n");
    let output = run(&[&dir.path().join("app@8080.socket")]);
    let yaml = accepted(&String::from_utf8(output.stdout).expect("UTF-8"));
    for line in [
        "address: [127.0.0.1:8080]",
        "command: [/bin/app, 8080]",
        "listeners: [app@8080]",
        "environment: { A: 8080, B: 1 }",
    ] {
        assert!(yaml.contains(line), "{line}: {yaml}");
    }
    assert!(!yaml.contains("nice"), "{yaml}");
    assert_eq!(yaml.matches("command:").count(), 1, "{yaml}");
    write(
        "c@.socket",
        "[Socket]\nListenStream=/run/c\nService=c@%i.service\n",
    );
    write(
        "c@.service",
        "[Service]\nExecStart=/bin/c\nSockets=c@%i.socket\n",
    );
    let output = run(&[&dir.path().join("c@.socket")]);
    let yaml = accepted(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!(yaml.matches("command: [/bin/c]").count(), 1, "{yaml}");
    let output = run(&[&dir.path().join("b@8080.socket")]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let output = run(&[dir.path()]);
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        told.contains("is a directory: name the files in it"),
        "{told}"
    );
}

#[test]
fn a_unit_brings_those_that_belong_to_it_and_no_other() {
    let dir = TempDir::new();
    let files = [
        ("ftp.socket", "[Socket]\nListenStream=21\nAccept=true\n"),
        ("ftp.service", "[Service]\nExecStart=/bin/alone\n"),
        ("ftp@.service", "[Service]\nExecStart=-/bin/each\n"),
        ("log.socket", "[Socket]\nListenStream=22\n"),
        (
            "log-2.socket",
            "[Socket]\nListenStream=23\nService=log.service\n",
        ),
        (
            "log.service",
            "[Service]\nExecStart=/bin/log\nSockets=log.socket log-2.socket\n",
        ),
        ("log@.service", "[Service]\nExecStart=/bin/other\n"),
        ("log@.socket", "[Socket]\nListenStream=24\n"),
    ];
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("it is ours");
    }
    let yaml = |name: &str| {
        let output = run(&[&dir.path().join(name)]);
        assert!(output.status.success(), "{output:?}");
        accepted(&String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let ftp = yaml("ftp.socket");
    assert!(
        ftp.contains("/bin/each") && !ftp.contains("/bin/alone"),
        "{ftp}"
    );
    let other = yaml("log@.service");
    assert!(other.contains(":24") && !other.contains(":22"), "{other}");
    for name in ["log-2.socket", "log.socket", "log.service"] {
        let log = yaml(name);
        assert!(
            log.contains("/bin/log") && !log.contains("/bin/other"),
            "{log}"
        );
        assert!(log.contains(":22") && log.contains(":23"), "{log}");
    }
}

#[test]
fn a_program_is_not_executed_and_what_is_unknown_is_said() {
    let dir = TempDir::new();
    let program = dir.path().join("ecosystem.config.js");
    let proof = dir.path().join("proof");
    let code = format!("require('fs').writeFileSync('{}', '')", proof.display());
    fs::write(&program, code).expect("it is ours");
    let output = run(&[&program]);
    assert_eq!(output.status.code(), Some(64));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("it is a program"), "{words}");
    assert!(!proof.exists());
    let unknown = dir.path().join("unknown");
    fs::write(&unknown, "?").expect("it is ours");
    let words = String::from_utf8_lossy(&run(&[&unknown]).stderr).into_owned();
    assert!(words.contains("--from"), "{words}");
    let missing = run(&[Path::new("/nowhere/app.socket")]);
    assert_eq!(missing.status.code(), Some(64));
}

/// What files of these formats are made of.
const PIECES: &[&str] = &[
    "[Socket]\n",
    "[Service]\n",
    "[Unit]\n",
    "[circus]\n",
    "[socket:web]\n",
    "[watcher:web]\n",
    "[program:x]\n",
    "[fcgi-program:x]\n",
    "service x\n{\n",
    "}\n",
    "defaults\n{\n",
    "services:\n",
    "  web:\n",
    "    ports: ['1:2']\n",
    "ListenStream=",
    "ListenNetlink=",
    "ExecStart=",
    "ExecReload=",
    "Environment=",
    "Accept=yes\n",
    "SocketMode=",
    "Restart=",
    "cmd = ",
    "command=",
    "port = ",
    "server = ",
    "socket=unix:///",
    "environment=",
    "cps = ",
    "web: ",
    "x stream tcp nowait root /bin/x x\n",
    "{\"apps\": [",
    "]}",
    "{\"name\": \"x\", \"script\": \"x.js\"}",
    "$(circus.sockets.web)",
    "%(program_name)s",
    "%(",
    "%i",
    "%",
    "\"",
    "'",
    "\\",
    "\n",
    "\\\n",
    "=",
    ":",
    ";",
    "#",
    "[",
    "]",
    "{",
    "}",
    "{{",
    "$",
    "${",
    "@",
    "-",
    "/run/x",
    "127.0.0.1:80",
    "[::]:80",
    "0",
    "99999999999999999999",
    "\u{0}",
    "\u{1b}",
    "\u{e9}",
    "\u{2028}",
    "\u{feff}",
    "\u{fffe}",
    "\u{7f}",
    "yes",
    "null",
    "~",
    "<<: *a",
    "&a ",
    "  ",
    "\t",
];

#[test]
fn characters_that_yaml_has_not_are_escaped_or_left_out() {
    let odd = "\u{feff}\u{7f}\u{85}\u{fffe}";
    let text = format!("[Service]\nExecStart=/bin/a{odd}\nEnvironment=A={odd}b\n{odd}C={odd}\n");
    let unit = Unit {
        name: "x.service".to_owned(),
        text,
        drop_ins: Vec::new(),
    };
    let yaml = accepted(&import(Format::Systemd, &[unit]).expect("a unit"));
    assert!(yaml.contains("\\ufeff"), "{yaml}");
}

// Its name is refused, and is in the message.
#[test]
fn what_a_refused_variable_is_called_does_not_break_the_comment() {
    let unit = Unit {
        name: "x.service".to_owned(),
        text: "[Service]\nExecStart=/bin/true\nEnvironment=\"A\u{fffe}B=1\"\n".to_owned(),
        drop_ins: Vec::new(),
    };
    let yaml = accepted(&import(Format::Systemd, &[unit]).expect("a unit"));
    assert!(yaml.contains("# not translated: "), "{yaml}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_file_says_the_result_is_accepted(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40),
        which in 0..FORMATS.len(),
        name in prop::sample::select(&["x.socket", "x.service", "x@.service", "x"][..]),
    ) {
        let text: String = pieces.concat();
        let _format = format_of(name, &text);
        let unit = Unit { name: name.to_owned(), text: text.clone(), drop_ins: vec![text] };
        if let Ok(yaml) = import(FORMATS[which].1, &[unit]) {
            accepted(&yaml);
        }
    }
}
