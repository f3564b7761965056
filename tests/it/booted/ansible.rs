//! The role for Ansible, applied to a booted Debian: the second time nothing changes, and what is wrong is told each
//! time.

use crate::harness::container::{self, Container};
use crate::harness::package::{self, property};
use crate::harness::servers::server;
use crate::harness::{TempDir, skip};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What Ansible believes to be ssh: `ssh [OPTION …] HOST COMMAND`.
const SSH: &str = "#!/bin/sh
for word; do :; done
exec nsenter --target \"$LISTEND_TEST_LEADER\" --mount --uts --ipc --net --pid --root --wd -- sh -c \"$word\"
";

/// In the place of Ansible's own module, which needs Debian's package python3-apt on the machine.
const APT: &str = r#"#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule(argument_spec={
    "name": {"type": "path", "required": True},
    "state": {"choices": ["present"], "default": "present"},
})
path = module.params["name"]
field = lambda name: module.run_command(["dpkg-deb", "-f", path, name], check_rc=True)[1].strip()
query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", field("Package")]
changed = module.run_command(query)[1] != "installed " + field("Version")
if changed:
    module.run_command(["dpkg", "--install", path], check_rc=True)
module.exit_json(changed=changed)
"#;

/// The Python of this machine with its library, which the minimal one of the container does not have; where it is
/// there. Skips if this machine's is not made of Debian's packages.
fn bring_python(container: &Container) -> Option<PathBuf> {
    let program = fs::canonicalize("/usr/bin/python3").ok();
    let name = program.as_ref().and_then(|path| path.file_name()?.to_str());
    let library = name.map(|name| Path::new("/usr/lib").join(name));
    let (Some(program), Some(name), Some(library)) = (&program, name, library) else {
        skip("/usr/bin/python3 is not there");
        return None;
    };
    if !library.join("shutil.py").is_file() {
        skip(&format!(
            "{} is not the library of Python",
            library.display()
        ));
        return None;
    }
    container.install(program, &format!("/usr/bin/{name}"));
    let script = "tar -C /usr/lib -c --exclude=__pycache__ --exclude=test --exclude='config-*' \"$0\" | tar -C \"$1\" -x";
    let to = container.path("/usr/lib");
    let copied = Command::new("sh")
        .args(["-c", script, name])
        .arg(to)
        .status();
    assert!(copied.expect("start sh").success());
    Some(Path::new("/usr/bin").join(name))
}

struct Play {
    program: PathBuf,
    dir: TempDir,
    leader: i32,
}

/// What a play said, and the numbers of its recap.
struct Recap {
    succeeded: bool,
    said: String,
}

impl Recap {
    #[track_caller]
    fn count(&self, what: &str) -> u32 {
        let recap = self.said.split("PLAY RECAP").nth(1).unwrap_or_default();
        let words = recap.split_whitespace();
        let mut counts = words.filter_map(|word| word.strip_prefix(what)?.strip_prefix('='));
        let count = counts.next().and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("no {what} in the recap: {}", self.said))
    }
}

impl Play {
    fn new(program: PathBuf, container: &Container, python: &Path) -> Play {
        let dir = TempDir::new();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("create a directory");
            fs::write(&path, text).expect("write");
            path
        };
        let ssh = write("ssh", SSH);
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).expect("chmod");
        write("library/apt.py", APT);
        let inventory = format!(
            "host ansible_ssh_executable={} ansible_ssh_transfer_method=piped ansible_python_interpreter={}\n",
            ssh.display(),
            python.display()
        );
        write("inventory", &inventory);
        let leader = container.leader();
        Play {
            program,
            dir,
            leader,
        }
    }

    /// Plays the example, with these further variables.
    fn run(&self, variables: &str) -> Recap {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut play = Command::new(&self.program);
        play.arg("--inventory")
            .arg(self.dir.path().join("inventory"));
        play.arg(checkout.join("packaging/ansible/site.yml"));
        // Who comes in is root already, and there is no sudo.
        let own = "listend_package=/opt/listend.deb ansible_become=false";
        play.args(["--extra-vars", own]);
        if !variables.is_empty() {
            play.args(["--extra-vars", variables]);
        }
        play.env("HOME", self.dir.path())
            .env("ANSIBLE_NOCOLOR", "1");
        play.env("ANSIBLE_LIBRARY", self.dir.path().join("library"));
        play.env("ANSIBLE_PIPELINING", "1");
        play.env("LISTEND_TEST_LEADER", self.leader.to_string());
        let output = play.output().expect("start ansible-playbook");
        let said = [output.stdout, output.stderr].concat();
        Recap {
            succeeded: output.status.success(),
            said: String::from_utf8_lossy(&said).into_owned(),
        }
    }
}

#[test]
fn the_second_time_nothing_changes_and_an_error_is_told_each_time() {
    let Some(program) = server("ansible-playbook") else {
        return;
    };
    let Some(package) = package::deb() else {
        return;
    };
    let Some(container) = container::boot() else {
        return;
    };
    let Some(python) = bring_python(&container) else {
        return;
    };
    container.install(package.path(), "/opt/listend.deb");
    let play = Play::new(program, &container, &python);
    let first = play.run("");
    assert!(
        first.succeeded && first.count("changed") > 0,
        "{}",
        first.said
    );
    let fetch = ["curl", "-sS", "--fail", "http://127.0.0.1:8080/"];
    container.run(fetch);
    let pid = property(&container, "listend.service", "MainPID");
    let second = play.run("");
    assert!(second.succeeded, "{}", second.said);
    assert_eq!(
        (second.count("changed"), second.count("failed")),
        (0, 0),
        "{}",
        second.said
    );

    // Valid, but not on this machine: the file is written before that is found, and the next play must not take it
    // for applied.
    let config = "{\"listend_config\": {\"listeners\": {\"web\": [\"0.0.0.0:8080\", \"192.0.2.9:81\"]}, \"workers\": \
                  {\"hello\": {\"command\": [\"{listend}\", \"hello-worker\"], \"listeners\": [\"web\"]}}}}";
    for _ in 0..2 {
        let failed = play.run(config);
        assert!(!failed.succeeded, "{}", failed.said);
        assert!(
            failed
                .said
                .contains("cannot bind listener `web` to 192.0.2.9:81"),
            "{}",
            failed.said
        );
        container.run(fetch);
    }
    assert_eq!(property(&container, "listend.service", "MainPID"), pid);
}
