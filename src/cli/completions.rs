//! `listend completions`: what clap_complete makes of the verbs and flags, and the names of workers
//! and listeners, which only `listend __names` knows.
//!
//! The scripts are those of clap_complete's stable part. Its own way to ask the program is not
//! stable, and would have every start of the daemon look at an environment variable first.

use super::args::{Arguments, Completions, Shell};
use super::check::finish;
use super::exit::Exit;
use super::output::print;
use clap::CommandFactory;
use clap_complete::generate;
use clap_complete::shells::{Bash, Fish, Zsh};

/// Puts the names in front of what clap_complete finds.
const BASH: &str = include_str!("shells/names.bash");
/// Finds the names.
const ZSH: &str = include_str!("shells/names.zsh");
/// Keeps the words for it.
const ZSH_WORDS: &str = "    local -a listend_words=(\"${(@Q)words[1,CURRENT-1]}\")\n";
/// Adds the names to what clap_complete finds.
const FISH: &str = include_str!("shells/names.fish");

/// Prints the script.
pub fn completions(arguments: &Completions) -> Exit {
    let text = match arguments.shell {
        Shell::Bash => made_by(|command, out| generate(Bash, command, "listend", out)) + BASH,
        Shell::Zsh => zsh(&made_by(|command, out| {
            generate(Zsh, command, "listend", out)
        })),
        Shell::Fish => made_by(|command, out| generate(Fish, command, "listend", out)) + FISH,
    };
    finish(print(&text), Exit::Done)
}

fn made_by(generate: impl FnOnce(&mut clap::Command, &mut Vec<u8>)) -> String {
    let mut command = Arguments::command();
    let mut out = Vec::new();
    generate(&mut command, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// A positional of the script has its completer behind its description: `::worker -- …:_default`.
/// The words as they were typed are kept before `_arguments` takes them apart.
fn zsh(script: &str) -> String {
    let mut out = String::new();
    let names = ["worker", "workers", "name", "signal", "target"];
    for line in script.lines() {
        let named = names.iter().any(|name| {
            let start = line.trim_start_matches(['\'', '*', ':']);
            start
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(" -- "))
        });
        match line.strip_suffix(":_default' \\") {
            Some(line) if named => out.push_str(&format!("{line}:_listend_names' \\")),
            Some(_) | None => out.push_str(line),
        }
        out.push('\n');
        match line {
            "autoload -U is-at-least" => out.push_str(ZSH),
            "_listend() {" => out.push_str(ZSH_WORDS),
            _ => {}
        }
    }
    out
}
