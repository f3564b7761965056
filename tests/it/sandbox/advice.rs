//! What `check` and `explain` say of sandboxes.

use crate::harness::{Start, World, listend_path};
use std::fs;
use std::os::unix::fs::symlink;

fn advice(world: &World, worker: &str) -> Vec<(String, String)> {
    let all = advice_with_hints(world, worker).into_iter();
    all.map(|[kind, message, _]| (kind, message)).collect()
}

fn advice_with_hints(world: &World, worker: &str) -> Vec<[String; 3]> {
    let yaml = format!("workers:\n  app:\n{worker}");
    let json = world.check(&yaml, &["--json"]).json();
    let all = json["advice"].as_array().expect("a list").iter();
    let text =
        |one: &serde_json::Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let all = all.map(|one| ["kind", "message", "hint"].map(|key| text(one, key)));
    all.filter(|[kind, ..]| kind.starts_with("sandbox"))
        .collect()
}

// It named the program alone, and the next start failed for its interpreter, and then for that one's library.
#[test]
fn check_names_what_an_interpreter_behind_links_needs_too() {
    let world = World::new();
    for folder in ["venv/bin", "versions/3/bin", "versions/3/lib", "shims"] {
        fs::create_dir_all(world.path(folder)).expect("create a folder");
    }
    let python = world.path("versions/3/bin/python3.99");
    fs::copy("/bin/sh", &python).expect("copy");
    symlink(&python, world.path("versions/3/bin/python")).expect("link");
    symlink(
        world.path("versions/3/bin/python"),
        world.path("venv/bin/python"),
    )
    .expect("link");
    world.write("venv/pyvenv.cfg", "home = elsewhere\n");
    let script = |interpreter: &str| {
        world.write_script("server", &format!("#!{}\n", world.fill(interpreter)));
    };
    let of = |lines: &str| {
        let found = advice_with_hints(&world, &world.fill(lines));
        let [[kind, message, hint]] = &found[..] else {
            panic!("one piece of advice: {found:?}");
        };
        assert_eq!(kind, "sandbox-hides");
        (message.clone(), hint.clone())
    };
    let shown = "    sandbox: { preset: basic, read_only_paths: [$DIR/server] }\n";
    let wanted = world.fill("`read_only_paths: [$DIR/venv, $DIR/versions/3]`");
    script("$DIR/venv/bin/python");
    let (message, hint) = of(&format!("    command: [$DIR/server]\n{shown}"));
    assert!(
        message.contains("hides its program") && message.contains("/venv/bin/python"),
        "{message}"
    );
    assert!(hint.contains(&wanted), "{hint}");
    script("/usr/bin/env -S A=b python -u");
    let path = "    environment: { PATH: '$DIR/venv/bin:/usr/bin:/bin' }\n";
    let (_, hint) = of(&format!("    command: [$DIR/server]\n{path}{shown}"));
    assert!(hint.contains(&wanted), "{hint}");
    // The shim of a version manager brings all of it.
    fs::rename(world.path("server"), world.path("shims/server")).expect("rename");
    let (_, hint) = of("    command: [$DIR/shims/server]\n    sandbox: basic\n");
    assert!(
        hint.contains(&world.fill("`read_only_paths: [$DIR]`")),
        "{hint}"
    );
    // What it is to run.
    world.write("main.py", "");
    let (message, hint) = of("    command: [/bin/sh, $DIR/main.py]\n    sandbox: basic\n");
    assert!(
        message.contains("hides a file of its `command`"),
        "{message}"
    );
    assert!(hint.contains("could not open it"), "{hint}");
}

// With `forward`, the program that is to start in the sandbox is listend itself, and each start failed.
#[test]
fn check_says_that_a_sandbox_hides_listend_itself() {
    let world = World::new();
    let listend = world.path("listend");
    fs::copy(listend_path(), &listend).expect("copy");
    let found = |sandbox: &str| {
        let yaml = "listeners: { web: '127.0.0.1:0' }\nworkers:\n  app:\n    listeners: [web]\n    \
                    forward: 127.0.0.1:9\n    sandbox: ";
        world.write("listend.yaml", &format!("{yaml}{sandbox}\n"));
        let check = Start::of(&listend, ["check", "--json", "-c", "$DIR/listend.yaml"]);
        let json = world.start(check).finish().expect_code(0).json();
        let advice = json["advice"].as_array().expect("a list").clone();
        let hides = advice
            .into_iter()
            .filter(|one| one["kind"] == "sandbox-hides");
        hides
            .map(|one| one["message"].to_string())
            .collect::<Vec<_>>()
    };
    let [message] = &found("strict")[..] else {
        panic!("one piece of advice");
    };
    let wanted = world.fill("hides its program, $DIR/listend");
    assert!(message.contains(&wanted), "{message}");
    assert!(found("{ preset: strict, read_only_paths: [$DIR] }").is_empty());
}

#[test]
fn check_says_what_a_sandbox_hides_and_which_server_it_cannot_reach() {
    let world = World::new();
    let script = world.write_script("server", "#!/bin/sh\nexec sleep 60\n");
    let of = |sandbox: &str| {
        let command = format!(
            "    command: [{}]\n    sandbox: {sandbox}\n",
            script.display()
        );
        advice(&world, &command)
    };
    let [(kind, message)] = &of("basic")[..] else {
        panic!("one piece of advice");
    };
    assert_eq!(kind, "sandbox-hides");
    assert!(
        message.contains("`private_tmp` of its sandbox hides its program"),
        "{message}"
    );
    assert!(of("{preset: basic, private_tmp: false}").is_empty());
    assert!(of("{preset: strict, read_only_paths: [$DIR]}").is_empty());
    let database = |sandbox: &str| {
        let lines =
            "    command: [sleep, '60']\n    environment: {DB: 'postgres://u:secret@db/app'}\n";
        advice(&world, &format!("{lines}    sandbox: {sandbox}\n"))
    };
    let [(kind, message)] = &database("sealed")[..] else {
        panic!("one piece of advice");
    };
    assert_eq!(kind, "sandbox-network");
    assert!(
        message.contains("variable `DB` names postgres://db"),
        "{message}"
    );
    assert!(!message.contains("secret"));
    assert!(database("strict").is_empty());
}

#[test]
fn explain_shows_the_sandbox_with_a_score_and_the_next_step() {
    let world = World::new();
    let explain = |sandbox: &str, options: &[&str]| {
        let yaml =
            format!("workers:\n  app:\n    command: [sleep, '60']\n    sandbox: {sandbox}\n");
        let file = world.write("listend.yaml", &yaml);
        let words = ["explain", "-c", file.to_str().expect("UTF-8"), "app"];
        world.finish(words.into_iter().chain(options.iter().copied()))
    };
    let score = |sandbox: &str| {
        let json = explain(sandbox, &["--json"]).json();
        json["worker"]["sandbox"]["score"]
            .as_f64()
            .expect("a score")
    };
    assert!((score("none") - 10.0).abs() < 0.01);
    let scores = ["none", "basic", "strict", "sealed"].map(score);
    assert!(scores.is_sorted_by(|one, other| one > other), "{scores:?}");
    let text = explain("{preset: strict, private_devices: false}", &[]).stdout;
    for words in [
        "strict, private_devices: false",
        "private_tmp",
        "mount namespace",
        "open: it can use the devices that its user may",
        "`preset: sealed`",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}
