//! `resolve: at-reload`: what symbolic links lead to is part of the definition of a worker, so that going
//! back to a definition goes back to the files that it had.

use super::life::{Hook, Reload, Resolve};
use super::model::Worker;
use super::values::{Piece, Template};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

impl Worker {
    /// The directories in which its files are, as far as they are written without placeholders: the
    /// working directory, and those of its programs.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let own = self.command.first().map(|word| &word.value);
        let programs = self.commands().filter_map(|hook| hook.command.first());
        let programs = own.into_iter().chain(programs).filter_map(directory_of);
        working_directory(self).into_iter().chain(programs)
    }
}

fn working_directory(worker: &Worker) -> Option<PathBuf> {
    let written = worker.launch.working_directory.as_ref()?;
    let path = written.value.as_literal()?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// The directory of a program that is named by an absolute path.
fn directory_of(program: &Template) -> Option<PathBuf> {
    let path = Path::new(program.as_literal()?);
    path.parent()
        .filter(|_| path.is_absolute())
        .map(Path::to_path_buf)
}

/// The worker with real directories in the place of those that are `links`, if it is to have them. Its program
/// keeps its own name, even if that is a link: some (busybox, the interpreter of a Python environment) look at it.
pub fn pinned<'w>(worker: &'w Worker, links: &BTreeMap<PathBuf, PathBuf>) -> Cow<'w, Worker> {
    if worker.resolve == Resolve::AtStart || links.is_empty() {
        return Cow::Borrowed(worker);
    }
    let folder = working_directory(worker);
    let folder = folder.and_then(|path| links.get(&path).map(|real| (path, real)));
    let pin = |command: &mut dyn Iterator<Item = &mut Template>| {
        for (number, word) in command.enumerate() {
            let own = (number == 0).then(|| directory_of(word)).flatten();
            let own = own.and_then(|path| links.get(&path).map(|real| (path, real)));
            if let Some((written, real)) = own.as_ref().or(folder.as_ref()) {
                replace(word, written, real);
            }
        }
    };
    let mut worker = worker.clone();
    pin(&mut worker.command.iter_mut().map(|word| &mut word.value));
    let hooks = &mut worker.hooks;
    let hooks = [
        &mut hooks.before_start,
        &mut hooks.after_ready,
        &mut hooks.after_stop,
    ];
    let reload = match &mut worker.reload {
        Some(Reload::Command(hook)) => Some(hook),
        Some(Reload::Signal(_)) | None => None,
    };
    let hooks = hooks.into_iter().flatten().chain(reload);
    for Hook { command, .. } in hooks {
        pin(&mut command.iter_mut());
    }
    if let (Some(written), Some((_, real))) = (&mut worker.launch.working_directory, folder) {
        written.value = Template::literal(real.to_string_lossy());
    }
    Cow::Owned(worker)
}

/// Has a word begin with another directory, if it begins with this one.
fn replace(word: &mut Template, written: &Path, real: &Path) {
    let Some(Piece::Text(text)) = word.pieces.first_mut() else {
        return;
    };
    let rest = Path::new(text).strip_prefix(written);
    if let Ok(rest) = rest {
        // `join` of nothing would add a slash.
        let path = if rest.as_os_str().is_empty() {
            real.to_owned()
        } else {
            real.join(rest)
        };
        let slash = text.len() > 1 && text.ends_with('/');
        *text = path.to_string_lossy().into_owned() + if slash { "/" } else { "" };
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, SourceFile, read};
    use super::*;

    fn worker(keys: &str) -> Worker {
        let yaml = format!("workers: {{ app: {{ {keys} }} }}");
        let file = SourceFile {
            name: "a.yaml".into(),
            bytes: yaml.into_bytes(),
            folder: "/".into(),
        };
        let loaded = read(vec![file]);
        assert!(loaded.report.errors.is_empty(), "{:?}", loaded.report);
        let Config { mut workers, .. } = loaded.config;
        workers.remove(0)
    }

    fn links() -> BTreeMap<PathBuf, PathBuf> {
        let pairs = [
            ("/srv/current", "/srv/41"),
            ("/srv/current/venv/bin", "/srv/41/venv/bin"),
        ];
        pairs
            .into_iter()
            .map(|(from, to)| (from.into(), to.into()))
            .collect()
    }

    fn words(worker: &Worker) -> Vec<String> {
        let words = worker
            .command
            .iter()
            .map(|word| match word.value.pieces.as_slice() {
                [Piece::Text(text), ..] => text.clone(),
                other => panic!("{other:?}"),
            });
        words.collect()
    }

    #[test]
    fn what_begins_with_a_link_begins_with_where_it_leads() {
        let keys = "resolve: at-reload, working_directory: /srv/current/, \
                    command: [/srv/current/venv/bin/app, --root, /srv/current, /srv/currently, \
                    '/srv/current/{instance}.conf', /srv/current/static/], \
                    before_start: [migrate, /srv/current/db], reload_command: [/srv/current/venv/bin/app, x]";
        let worker = worker(keys);
        let directories: Vec<PathBuf> = worker.directories().collect();
        assert_eq!(directories.len(), 3, "{directories:?}");
        let pinned = pinned(&worker, &links());
        let wanted = [
            "/srv/41/venv/bin/app",
            "--root",
            "/srv/41",
            "/srv/currently",
            "/srv/41/",
            "/srv/41/static/",
        ];
        assert_eq!(words(&pinned), wanted);
        let folder = pinned
            .launch
            .working_directory
            .as_ref()
            .expect("a directory");
        assert_eq!(folder.value.as_literal(), Some("/srv/41"));
        let hook = pinned.hooks.before_start.as_ref().expect("a hook");
        assert_eq!(hook.command[1].as_literal(), Some("/srv/41/db"));
        let Some(Reload::Command(reload)) = &pinned.reload else {
            panic!("no command");
        };
        assert_eq!(reload.command[0].as_literal(), Some("/srv/41/venv/bin/app"));
    }

    #[test]
    fn what_is_resolved_at_each_start_is_as_written() {
        let worker =
            worker("working_directory: /srv/current, command: [/srv/current/venv/bin/app]");
        assert_eq!(*pinned(&worker, &links()), worker);
    }
}
