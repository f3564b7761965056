//! What `check` and `explain` say of sandboxes.

use crate::harness::World;

fn advice(world: &World, worker: &str) -> Vec<(String, String)> {
    let yaml = format!("workers:\n  app:\n{worker}");
    let json = world.check(&yaml, &["--json"]).json();
    let all = json["advice"].as_array().expect("a list").iter();
    let all = all.map(|one| {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        (text("kind"), text("message"))
    });
    all.filter(|(kind, _)| kind.starts_with("sandbox"))
        .collect()
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
