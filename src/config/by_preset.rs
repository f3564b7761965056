//! Reads `preset:`, and puts its settings where a worker has none of its own.

use super::decode::unknown;
use super::preset::{ALL, MODES, NO_WAY, Preset};
use super::value_error::ValueError;
use super::values::Located;
use super::yaml::{Content, Node, Scalar};
use crate::report::{Kind, Place, Problem, Report, did_you_mean};
use std::collections::HashMap;

/// The preset of this name.
pub(super) fn find(key: &str, text: &str) -> Result<&'static Preset, ValueError> {
    if let Some(preset) = ALL.iter().find(|preset| preset.name == text) {
        return Ok(preset);
    }
    if NO_WAY.contains(&text) {
        return Err(ValueError::new(
            Kind::Unsupported,
            format!("`{key}`: {text} has no way to take a socket that is passed to it"),
        )
        .hint(
            "delete the key, and write `forward: ADDRESS` with an address that it listens on itself: \
             connections are passed on to it",
        ));
    }
    let mut all = ALL.iter();
    let hint = match all.find(|preset| preset.synonyms.contains(&text)) {
        Some(preset) => Some(format!("did you mean `{}`?", preset.name)),
        None => did_you_mean(text, ALL.iter().map(|preset| preset.name)),
    };
    Err(unknown(key, text).maybe_hint(hint))
}

/// The same server as its command has it run.
pub(super) fn in_mode(preset: &'static Preset, command: Option<&Node>) -> &'static Preset {
    let is_there = |word: &str| match command.map(|node| &node.content) {
        Some(Content::List(words)) => words
            .iter()
            .any(|node| matches!(&node.content, Content::Scalar(scalar) if scalar.text == word)),
        Some(Content::Scalar(scalar)) => scalar.text.split_whitespace().any(|one| one == word),
        _ => false,
    };
    let mut modes = MODES.iter().filter(|mode| mode.name == preset.name);
    let found = modes.find(|mode| mode.with_words.iter().any(|word| is_there(word)));
    found.unwrap_or(preset)
}

/// The settings of a preset, as if they were written at its place.
pub(super) fn nodes(preset: Option<&Located<&'static Preset>>) -> Vec<(&'static str, Node)> {
    let node = |text: &str, place: Place| Node {
        place,
        content: Content::Scalar(Scalar {
            text: text.to_owned(),
            plain: true,
        }),
    };
    let settings = preset.into_iter().flat_map(|preset| {
        let settings = preset.value.settings.iter();
        settings.map(|(key, value)| (*key, node(value, preset.place)))
    });
    settings.collect()
}

/// Says of each problem at the place of a preset which setting it is about.
pub(super) fn name_in_problems<'w>(
    presets: impl Iterator<Item = &'w Located<&'static Preset>>,
    report: &mut Report,
) {
    let presets: HashMap<Place, &Preset> = presets.map(|one| (one.place, one.value)).collect();
    if presets.is_empty() {
        return;
    }
    for problem in report.errors.iter_mut().chain(&mut report.advice) {
        let related = problem.related.iter().map(|(place, _)| *place);
        let mut places = problem.place.into_iter().chain(related);
        let Some(preset) = places.find_map(|place| presets.get(&place)) else {
            continue;
        };
        for (key, value) in preset.settings {
            if names(problem, key) {
                problem.causes.push(format!(
                    "`{key}: {value}` comes from `preset: {}`; a key that is written wins over it",
                    preset.name
                ));
            }
        }
    }
}

/// Whether the message is about a key.
fn names(problem: &Problem, key: &str) -> bool {
    [format!("`{key}`"), format!("`{key}:")]
        .iter()
        .any(|words| problem.message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::super::read::{Loaded, SourceFile, read};
    use super::super::settings::{Source, settings};
    use super::*;

    fn load(worker: &str) -> Loaded {
        let yaml = format!(
            "listeners: {{web: '127.0.0.1:80'}}\nworkers:\n  app:\n    command: [x]\n    listeners: \
             [web]\n{worker}"
        );
        read(vec![SourceFile {
            name: "test.yaml".to_owned(),
            bytes: yaml.into_bytes(),
            folder: "/".into(),
        }])
    }

    #[test]
    fn a_word_of_the_command_makes_it_another() {
        let ready = |command: &str, more: &str| {
            let yaml = format!(
                "listeners: {{web: '127.0.0.1:80'}}\nworkers:\n  app: {{command: {command}, listeners: [web], \
                 preset: haproxy{more}}}"
            );
            let loaded = read(vec![SourceFile {
                name: "test.yaml".to_owned(),
                bytes: yaml.into_bytes(),
                folder: "/".into(),
            }]);
            let settings = settings(&loaded.sources, "app");
            let ready = settings.into_iter().find(|one| one.key == "ready");
            ready.map(|one| one.value)
        };
        let said = |value: &str| Some(value.to_owned());
        assert_eq!(ready("[haproxy, -f, x]", ""), said("accepting"));
        assert_eq!(ready("[haproxy, -W, -f, x]", ""), said("accepting"));
        assert_eq!(ready("[haproxy, -Ws, -f, x]", ""), said("notify"));
        assert_eq!(ready("haproxy -Ws -f x", ""), said("notify"));
        assert_eq!(ready("[haproxy, -Ws]", ", ready: started"), said("started"));
        // Only what differs is written again.
        for mode in MODES {
            let plain = ALL.iter().find(|one| one.name == mode.name);
            let keys = |one: &Preset| one.settings.iter().map(|(key, _)| *key).collect::<Vec<_>>();
            assert_eq!(plain.map(keys), Some(keys(mode)));
        }
    }

    #[test]
    fn every_setting_of_every_preset_is_one_that_could_be_written() {
        for preset in ALL {
            let loaded = load(&format!("    preset: {}\n", preset.name));
            assert_eq!(loaded.report.errors, [], "{preset:?}");
            let settings = settings(&loaded.sources, "app");
            for (key, value) in preset.settings {
                let found = settings.iter().find(|setting| setting.key == *key);
                let found = found.unwrap_or_else(|| panic!("{preset:?} has `{key}`"));
                assert_eq!(found.value, *value);
                assert_eq!(found.source, Source::Preset(preset.name));
            }
            let of_preset = settings
                .iter()
                .filter(|setting| matches!(setting.source, Source::Preset(_)));
            assert_eq!(of_preset.count(), preset.settings.len(), "{preset:?}");
            // The same, written by hand.
            let lines = preset.settings.iter();
            let lines: Vec<String> = lines
                .map(|(key, value)| format!("    {key}: {value}\n"))
                .collect();
            let mut by_hand = load(&lines.concat()).config;
            let mut by_preset = loaded.config;
            for worker in by_hand.workers.iter_mut().chain(&mut by_preset.workers) {
                worker.preset = None;
                worker.name.place = Place::default();
                worker.command.clear();
                worker.listeners.clear();
            }
            let yaml = |config| serde_json::to_value(config).expect("JSON");
            assert_eq!(yaml(by_hand), yaml(by_preset), "{preset:?}");
        }
    }

    #[test]
    fn what_is_written_wins() {
        let loaded =
            load("    stop_signal: SIGTERM\n    preset: unicorn\n    reload_command: [y]\n");
        assert_eq!(loaded.report.errors, []);
        let worker = &loaded.config.workers[0];
        assert_eq!(worker.stop_signal, nix::libc::SIGTERM);
        let settings = settings(&loaded.sources, "app");
        let of = |key: &str| {
            settings
                .iter()
                .find(|setting| setting.key == key)
                .expect("a key")
        };
        assert!(matches!(of("stop_signal").source, Source::Written(place) if place.line == 6));
        assert_eq!(of("ready").source, Source::Preset("unicorn"));
        assert_eq!(of("reload_command").value, "[y]");
        assert_eq!(of("reload_signal").source, Source::Default);
        assert_eq!(of("stop_timeout").value, "30s");
        assert_eq!(of("stop_timeout").source, Source::Default);
    }

    #[test]
    fn an_error_about_a_setting_names_the_preset_that_it_is_from() {
        let loaded = load("    preset: unicorn\n    activation: per-connection\n");
        let ready = loaded.report.errors.iter();
        let mut ready = ready.filter(|problem| problem.message.contains("`ready`"));
        let ready = ready.next().expect("an error about `ready`");
        assert_eq!(ready.place.map(|place| place.line), Some(6));
        let cause =
            "`ready: accepting` comes from `preset: unicorn`; a key that is written wins over it";
        assert_eq!(ready.causes, [cause]);
    }

    #[test]
    fn a_server_that_has_no_preset_is_told_why() {
        for (name, words) in [
            ("ngnix", "did you mean `nginx`?"),
            ("httpd", "did you mean `apache`?"),
            ("granian", "write `forward: ADDRESS`"),
            ("qqqqqqqq", "known here: `angie`"),
        ] {
            let loaded = load(&format!("    preset: {name}\n"));
            let [problem] = loaded.report.errors.as_slice() else {
                panic!("{name}: {:?}", loaded.report.errors);
            };
            let hint = problem.hint.as_deref().unwrap_or_default();
            assert!(hint.contains(words), "{name}: {hint}");
        }
    }

    #[test]
    fn the_values_of_variables_are_not_told() {
        let loaded = load("    environment: {TOKEN: secret}\n");
        let settings = settings(&loaded.sources, "app");
        let found = settings.iter().find(|setting| setting.key == "environment");
        assert_eq!(found.map(|setting| setting.value.as_str()), Some("TOKEN"));
    }
}
