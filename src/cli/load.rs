//! Loads a configuration: from its path to the plan.

use crate::config::{self, Config, Loaded, Silence, SourceFile};
use crate::host::Facts;
use crate::plan::{self, Origin, Plan};
use crate::report::{Kind, Problem, Report, Sources, describe};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No file of a configuration is longer, in bytes: what is not one, such as /dev/zero, has no end.
const LONGEST: u64 = 32 << 20;

/// How long a FIFO may have no writer, in milliseconds: whoever is to write may be about to start.
const WRITER: u16 = 5000;

/// A configuration, resolved on this machine.
pub struct Planned {
    /// The plan; to be used only if the report has no errors.
    pub plan: Plan,
    /// All that was found so far.
    pub report: Report,
    /// The texts that the report points into.
    pub sources: Sources,
    /// The advice that is not wanted.
    pub silence: Silence,
}

/// Reads the file and the drop-ins beside it.
pub fn read_files(path: &Path) -> Loaded {
    let mut files = Vec::new();
    let mut unreadable = Report::default();
    let mut paths = vec![path.to_owned()];
    let mut ignored = Vec::new();
    match drop_ins(path) {
        Ok(found) => {
            let (read, left): (Vec<_>, Vec<_>) = found
                .into_iter()
                .partition(|path| has_extension(path, "yaml"));
            paths.extend(read);
            ignored = left;
        }
        Err((folder, error)) => unreadable.add(cannot_read(&folder, &error)),
    }
    for (index, path) in paths.iter().enumerate() {
        match read(path) {
            Ok(file) => files.push(file),
            Err(error) => {
                let mut problem = cannot_read(path, &error);
                if index > 0 {
                    // A drop-in was not given on the command line but found, such as a link to
                    // nowhere.
                    problem.hint = Some("fix it, or remove it from the directory".to_owned());
                }
                unreadable.add(problem);
            }
        }
    }
    let mut loaded = config::read(files);
    if !unreadable.is_ok() {
        // What seems to be missing may well be in there.
        let certain = |problem: &Problem| {
            !matches!(
                problem.kind,
                Kind::UnknownListener | Kind::UnusedListener | Kind::NothingConfigured
            )
        };
        loaded.report.errors.retain(certain);
        loaded.report.advice.retain(certain);
    }
    unreadable.extend(std::mem::take(&mut loaded.report));
    loaded.report = unreadable;
    for path in ignored {
        let message = format!("{} is not read: it does not end in .yaml", path.display());
        let hint = "rename it to end in .yaml, or remove it from the directory";
        let problem = Problem::new(Kind::IgnoredFile, message).with_hint(hint);
        loaded.report.add(problem);
    }
    Silence::of(&loaded.config).apply(&mut loaded.report);
    loaded
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension()
        .is_some_and(|extension| extension == wanted)
}

/// Resolves what was read, if it can be understood at all.
pub fn resolve(loaded: Loaded) -> Planned {
    resolve_with(loaded, Facts::gather)
}

/// Resolves what another listend has resolved before, from the texts that it had.
pub fn resolve_again(origin: &Origin) -> Planned {
    let files = origin.files.iter().map(|file| SourceFile {
        name: file.name.clone(),
        bytes: file.text.clone().into_bytes(),
        folder: file.folder.clone(),
    });
    resolve_with(config::read(files.collect()), |config| {
        let mut facts = Facts::gather(config);
        for (path, text) in &origin.environment_files {
            facts
                .environment_files
                .insert(path.clone(), Ok(text.clone()));
        }
        facts.links.clone_from(&origin.links);
        facts
    })
}

fn resolve_with(loaded: Loaded, look_up: impl FnOnce(&Config) -> Facts) -> Planned {
    let Loaded {
        config,
        mut report,
        mut sources,
        folders,
    } = loaded;
    let facts = look_up(&config);
    let origin = Origin::new(&sources, folders, &facts);
    let silence = Silence::of(&config);
    let (mut plan, mut findings) = plan::resolve(config, &facts, &mut sources);
    plan.origin = Arc::new(origin);
    silence.apply(&mut findings);
    report.extend(findings);
    Planned {
        plan,
        report,
        sources,
        silence,
    }
}

fn read(path: &Path) -> io::Result<SourceFile> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    Ok(SourceFile {
        name: path.display().to_string(),
        bytes: read_all(path)?,
        folder: folder.canonicalize()?,
    })
}

fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut options = fs::File::options();
    // open(2) would wait for a writer of a FIFO.
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        bytes.extend(wait_for_writer(&file)?);
    }
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(bytes)
}

/// Waits for whoever writes to a FIFO: opened without a writer, it would be at its end (fifo(7)). Answers with what had to
/// be read for that.
///
/// # Errors
///
/// Nobody does, which would be waited for without an end.
fn wait_for_writer(mut fifo: &fs::File) -> io::Result<Option<u8>> {
    // One that has written, or has come and gone, ends it at once.
    let mut asked = [PollFd::new(fifo.as_fd(), PollFlags::POLLIN)];
    if poll(&mut asked, PollTimeout::from(WRITER))? > 0 {
        return Ok(None);
    }
    let mut first = [0];
    match fifo.read(&mut first) {
        Ok(0) => Err(io::Error::other(
            "it is a FIFO, and no process writes to it",
        )),
        Ok(_) => Ok(Some(first[0])),
        // There is one, which takes its time.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// `conf.d/*.yaml` beside the file, in the order of their names, and `*.yml` among them, which was
/// probably meant to be one.
fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let folder = path.with_file_name("conf.d");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err((folder, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => found.push(entry.path()),
            Err(error) => return Err((folder, error)),
        }
    }
    // An editor's backup (`.web.yaml.swp`, `.#web.yaml`) is no drop-in.
    found.retain(|path| {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && (has_extension(path, "yaml") || has_extension(path, "yml"))
    });
    found.sort();
    Ok(found)
}

fn cannot_read(path: &Path, error: &io::Error) -> Problem {
    let why = match error.raw_os_error() {
        Some(errno) => describe(errno),
        None => error.to_string(),
    };
    let problem = Problem::new(
        Kind::Unreadable,
        format!("cannot read {}: {why}", path.display()),
    );
    if error.kind() == io::ErrorKind::NotFound {
        // A daemon has perhaps been started elsewhere than who asks it to reload.
        let place = std::env::current_dir().ok();
        let place = place.filter(|_| path.is_relative());
        let place = place.map_or_else(String::new, |folder| format!(" in {}", folder.display()));
        return problem.with_hint(format!(
            "create it{place}, or give another path: `listend run FILE` or `-c FILE`"
        ));
    }
    problem
}
