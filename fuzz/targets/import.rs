//! Configurations of other supervisors: what is translated, `listend check` accepts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::config::{SourceFile, read};
use listend::import::{FORMATS, Unit, format_of, import};
use std::path::PathBuf;

const NAMES: [&str; 5] = ["x.socket", "x.service", "x@.service", "x", "x.json"];

fuzz_target!(|input: (u8, u8, &str, &str)| {
    let (format, name, text, drop_in) = input;
    let (_, format) = FORMATS[usize::from(format) % FORMATS.len()];
    let name = NAMES[usize::from(name) % NAMES.len()];
    let _ = format_of(name, text);
    let unit = Unit {
        name: name.to_owned(),
        text: text.to_owned(),
        drop_ins: vec![drop_in.to_owned()],
    };
    if let Ok(yaml) = import(format, &[unit]) {
        let file = SourceFile {
            name: "import".to_owned(),
            bytes: yaml.as_bytes().to_vec(),
            folder: PathBuf::from("/"),
        };
        let errors = read(vec![file]).report.errors;
        assert!(errors.is_empty(), "{errors:?}\n{yaml}");
    }
});
