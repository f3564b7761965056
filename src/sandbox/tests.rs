use super::paths::{Implied, View, around, rule_for, rules};
use super::*;
use std::path::{Path, PathBuf};

#[test]
fn every_set_has_only_sets_and_names_that_exist() {
    for (_, preset) in Preset::ALL {
        for term in preset.sandbox().system_calls {
            assert_eq!(Term::read(&term.to_string()), Ok(term));
        }
    }
    assert!(Term::read("@system-service").is_ok());
    assert!(Term::read("~@mount").is_ok_and(|term| term.is_denied));
    assert!(Term::read("opn").is_err() && Term::read("@nothing").is_err());
}

#[test]
fn the_first_word_says_what_kind_of_list_it_is() {
    let of = |words: &[&str]| {
        let terms: Vec<Term> = words.iter().map(|word| Term::read(word).unwrap()).collect();
        resolve_calls(&terms)
    };
    let has = |calls: Option<Calls>, call: i64| match calls {
        None => true,
        Some(Calls::Only(named)) => named.contains(&call),
        Some(Calls::AllBut(named)) => !named.contains(&call),
    };
    use nix::libc::{SYS_exit_group, SYS_io_uring_setup, SYS_mount, SYS_openat, SYS_swapon};
    assert!(has(of(&[]), SYS_mount));
    assert!(has(of(&["@system-service"]), SYS_openat));
    assert!(!has(of(&["@system-service"]), SYS_mount));
    assert!(has(of(&["@system-service", "mount"]), SYS_mount));
    assert!(!has(of(&["@system-service", "~@aio"]), SYS_io_uring_setup));
    assert!(!has(of(&["~@mount"]), SYS_mount) && has(of(&["~@mount"]), SYS_swapon));
    assert!(has(of(&["~@mount", "mount"]), SYS_mount));
    // Without these no program runs.
    assert!(has(of(&["openat"]), SYS_exit_group) && has(of(&["openat"]), nix::libc::SYS_execve));
}

#[test]
fn each_preset_leaves_less_open() {
    let open = |sandbox: Option<&Sandbox>| score(&lines(sandbox));
    let mut before = open(None);
    assert_eq!(before, Score(100));
    for (word, preset) in Preset::ALL {
        let sandbox = preset.sandbox();
        let after = open(Some(&sandbox));
        assert!(after < before, "{word}");
        assert_eq!(sandbox.to_string(), *word);
        before = after;
    }
}

#[test]
fn the_nearest_rule_counts_and_names_win_over_presets() {
    let mut sandbox = Preset::Strict.sandbox();
    let named = |path: &str| Named {
        path: path.into(),
        optional: false,
    };
    sandbox.read_write_paths = vec![named("/srv/app/data"), named("/home/app")];
    sandbox.inaccessible_paths = vec![named("/srv/app/data/secret")];
    let implied = Implied {
        own: vec!["/run/app".into()],
        hidden: vec!["/run/listend/control.sock".into()],
    };
    let rules = rules(&sandbox, &implied);
    let view = |path: &str| rule_for(&rules, Path::new(path)).map(|rule| rule.view);
    assert_eq!(view("/srv/app"), Some(View::ReadOnly));
    assert_eq!(view("/srv/app/data/x"), Some(View::Writable));
    assert_eq!(view("/srv/app/data/secret/x"), Some(View::Hidden));
    assert_eq!(view("/home/other"), Some(View::Hidden));
    assert_eq!(view("/home/app/x"), Some(View::Writable));
    assert_eq!(view("/dev/sda"), Some(View::Devices));
    assert_eq!(view("/tmp/x"), Some(View::Own));
    assert_eq!(view("/proc/1"), Some(View::Processes(2)));
    assert_eq!(view("/run/app/x"), Some(View::Writable));
    assert_eq!(view("/run/listend/control.sock"), Some(View::Hidden));
    for (index, rule) in rules.iter().enumerate() {
        let nearest = around(&rules, rule).map(|one| &one.path);
        let is_before = |path: &PathBuf| rules[..index].iter().any(|one| one.path == *path);
        assert!(
            nearest.is_none_or(is_before),
            "{rule:?} comes behind {nearest:?}"
        );
    }
}

#[test]
fn a_line_has_what_differs_from_the_preset() {
    let mut sandbox = Preset::Basic.sandbox();
    sandbox.flags.remove(&Flag::PrivateTmp);
    sandbox.flags.insert(Flag::PrivateNetwork);
    sandbox.protect_home = ProtectHome::ReadOnly;
    let text = "basic, private_network, private_tmp: false, protect_home: read-only";
    assert_eq!(sandbox.to_string(), text);
}

#[test]
fn what_is_inherited_becomes_numbers() {
    let mut families = Preset::Strict.sandbox().families.unwrap();
    families.settle(&[nix::libc::AF_INET].into());
    assert_eq!(families.to_string(), "AF_UNIX AF_INET");
    assert!(families.permits(nix::libc::AF_INET) && !families.permits(nix::libc::AF_PACKET));
}
