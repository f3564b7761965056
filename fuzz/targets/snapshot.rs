//! Lines of a snapshot: refused with a reason, or a core that goes on and can be frozen again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::core::{Core, Input, Known, Mono, Snapshot, WhenDone};
use listend::plan::Lifecycle;

fuzz_target!(|text: &str| {
    let Ok(reading) = Snapshot::read(text.lines()) else {
        return;
    };
    let snapshot = reading.snapshot;
    let definitions = snapshot.definitions().into_iter();
    let known = Known {
        definitions: definitions.map(|key| (key, Lifecycle::default().into())).collect(),
        listeners: Default::default(),
        former: Vec::new(),
        when_done: WhenDone::Hold,
    };
    let mut core = match Core::thaw(&snapshot, known) {
        Ok(core) => core,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    core.handle(Mono(1 << 40), Input::Resumed);
    while core.next_effect().is_some() {}
    let frozen = core.freeze();
    let lines: Vec<String> = frozen.changes().map(|change| change.text()).collect();
    let head = r#"{"kind":"snapshot","format":1}"#;
    let lines = [head].into_iter().chain(lines.iter().map(String::as_str));
    let again = Snapshot::read(lines).expect("what was frozen is read");
    assert!(
        frozen == again.snapshot,
        "{frozen:?} is not {:?}",
        again.snapshot
    );
    core.handle(Mono(1 << 41), Input::Stop);
    while core.next_effect().is_some() {}
});
