//! The journal of what outlives listend: cut off or changed anywhere, it gives back what was written, or the
//! beginning of it, or a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::store::Journal;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Texts without newlines.
fn lines(text: &str) -> Vec<String> {
    text.split('\n').take(64).map(str::to_owned).collect()
}

fn text(lines: &[String]) -> impl Iterator<Item = &str> {
    lines.iter().map(String::as_str)
}

type Damage = (u16, u8);

fuzz_target!(|input: (&str, Vec<&str>, &str, Vec<Damage>, Option<u16>)| {
    let (base, bases, more, damage, cut) = input;
    let mut journal = Journal::create().expect("a memory file");
    let mut written = lines(base);
    journal.write_base(text(&written)).expect("write");
    // Each generation has a place of its own, before or behind the last.
    for base in bases.into_iter().take(4) {
        written = lines(base);
        journal.write_base(text(&written)).expect("write");
    }
    let more = lines(more);
    journal.append(text(&more)).expect("append");
    let base = written.len();
    written.extend(more);
    let fd = journal.fd().try_clone_to_owned().expect("a duplicate");
    let (mut again, read) = Journal::read(fd).expect("what was written");
    assert_eq!(read, written);
    let file = File::from(journal.fd().try_clone_to_owned().expect("a duplicate"));
    for (at, with) in &damage {
        // Within both headers and what follows them.
        let at = u64::from(*at);
        if at < file.metadata().expect("stat").len() {
            file.write_all_at(&[*with], at).expect("write");
        }
    }
    if let Some(cut) = cut {
        let size = file.metadata().expect("stat").len();
        file.set_len(size.saturating_sub(u64::from(cut)))
            .expect("truncate");
    }
    let fd = file.try_clone().expect("a duplicate").into();
    match Journal::read(fd) {
        // A header that is lost makes an older generation the last, of which whatever was not written over is read.
        Ok((_, read)) if damage.is_empty() => {
            assert!(read.len() >= base && written.starts_with(&read));
        }
        Ok(_) => {}
        Err(damaged) => assert!(!damaged.to_string().is_empty()),
    }
    // Whatever has happened, it can be begun anew.
    again.write_base(text(&written)).expect("write");
    let fd = again.fd().try_clone_to_owned().expect("a duplicate");
    let (_, read) = Journal::read(fd).expect("a new base");
    assert_eq!(read, written);
});
