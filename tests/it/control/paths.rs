//! Where the control socket is.

use super::socket::names;
use crate::harness::varlink::Varlink;
use crate::harness::{Start, World, listend_path, public_probe, require_root, require_tool};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

// The daemon served there, and every verb said that no daemon answers.
#[test]
fn a_path_too_long_for_a_socket_address_serves_as_well() {
    let world = World::new();
    let folder = world.path(&"f".repeat(120));
    fs::create_dir(&folder).expect("make it");
    let path = folder.join("control.sock");
    let path = path.to_str().expect("UTF-8");
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [web] } }
";
    let daemon = world.run_with(yaml, |start| {
        start.words_behind(["--control", path]);
    });
    let _app = world.puppet();
    let finished = world.finish(["status", "--control", path]).expect_code(0);
    assert!(finished.stdout.contains("web"), "{finished:?}");
    let finished = world.finish(["stop", "app", "--control", path]);
    assert_eq!(finished.expect_code(0).stderr, "");
    daemon.stop();
}

#[test]
fn a_user_has_a_control_socket_wherever_there_is_a_place_for_one() {
    if !require_root() || require_tool("setpriv").is_none() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let program = world.path("listend");
    let copied = Command::new("cp")
        .arg(listend_path())
        .arg(&program)
        .status();
    assert!(copied.expect("start cp").success());
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers: {{ app: {{ command: [{}, puppet, $EVENTS], listeners: [web] }} }}
",
        probe.display()
    );
    let file = world.write("listend.yaml", &yaml);
    // Of a user that nobody has. It has no folder in /run/user.
    let uid = (2_000_000 + std::process::id()).to_string();
    let own = std::path::PathBuf::from(format!("/tmp/listend-{uid}"));
    let start = |runtime: Option<&str>, words: &[&str]| {
        let words = words.iter().copied();
        let mut start = Start::of(&program, words);
        start.through([
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
        ]);
        if let Some(runtime) = runtime {
            start.env("XDG_RUNTIME_DIR", runtime);
        }
        world.start(start)
    };
    // The name of this folder is what every user has such a folder for.
    let runtime = world.path("runtime");
    fs::create_dir(&runtime).expect("a folder");
    std::os::unix::fs::chown(&runtime, uid.parse().ok(), uid.parse().ok()).expect("chown");
    let runtime = runtime.to_str().expect("UTF-8");
    let run = ["run", "-c", file.to_str().expect("UTF-8")];
    let first = start(Some(runtime), &run);
    let _puppet = world.puppet();
    let path = world.path("runtime/listend/control.sock");
    let mut client = Varlink::to(&path);
    assert_eq!(names(&client.ask("Status", json!({}))["workers"]), ["app"]);
    let folder = fs::metadata(path.parent().expect("a folder")).expect("it is there");
    assert_eq!(folder.mode() & 0o7777, 0o700);

    let second = start(Some(runtime), &run);
    let _puppet = world.puppet();
    second.line(&[
        "WARN",
        "without a control socket",
        "another listend is running",
    ]);
    second.stop();
    client.ask("Status", json!({}));
    first.stop();

    // Without XDG_RUNTIME_DIR, as after su(1): the same for the daemon and whoever asks it.
    let third = start(None, &run);
    let _puppet = world.puppet();
    third.line(&["app.0", "started"]);
    let asked = start(None, &["status"]).finish().expect_code(0);
    assert!(asked.stdout.contains("app       1  running"), "{asked:?}");
    let folder = fs::symlink_metadata(&own).expect("a folder");
    assert_eq!(folder.mode() & 0o7777, 0o700);
    third.stop();

    // It is another user's: nothing is made in it, and nobody there is believed.
    std::os::unix::fs::chown(&own, Some(1), Some(1)).expect("chown");
    let fourth = start(None, &run);
    let _puppet = world.puppet();
    fourth.line(&["WARN", "no control socket", "use --control PATH"]);
    let asked = start(None, &["status"]).finish().expect_code(69);
    assert!(
        asked.stderr.contains("not a private directory"),
        "{asked:?}"
    );
    fourth.stop();
    assert_eq!(fs::read_dir(&own).expect("list the folder").count(), 0);
    fs::remove_dir(&own).expect("remove the folder");
}
