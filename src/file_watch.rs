//! Which files have changed below some paths, for `watch:` of a worker: in a process of its own.
//!
//! inotify(7) only wakes: what has changed is found by walking the paths again and comparing. The walk is that of
//! the crate `ignore`, so that what git ignores is no change, and directories that it ignores are not even
//! watched. Several changes in a row are one.

use ignore::WalkBuilder;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::{BTreeMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long nothing may change before it is looked what has, in milliseconds: an editor writes several files, and
/// a branch is checked out file by file.
const QUIET: u16 = 100;
/// How often that is waited for at most: something may be written all the time.
const MOST_WAITS: u32 = 20;

/// A file when it was seen last.
#[derive(Debug, Clone, Copy)]
struct Seen {
    content: Content,
    /// When anything of it was changed, in time since 1970; nobody can set it back.
    changed: Option<Duration>,
}

/// What makes it another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    inode: u64,
    length: u64,
    /// When it was last written to, in seconds and nanoseconds.
    modified: (i64, i64),
}

/// The files below some paths.
#[derive(Debug)]
pub struct FileWatch {
    inotify: Inotify,
    paths: Vec<PathBuf>,
    /// The directories that are watched.
    folders: HashSet<WatchDescriptor>,
    files: BTreeMap<PathBuf, Seen>,
}

impl FileWatch {
    /// Begins to watch files and directories.
    ///
    /// # Errors
    ///
    /// The first that cannot be watched: it is missing, or there are more directories than
    /// `fs.inotify.max_user_watches`.
    pub fn new(paths: Vec<PathBuf>) -> io::Result<FileWatch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        for path in &paths {
            path.metadata().map_err(|error| of(path, &error))?;
        }
        let mut watch = FileWatch {
            inotify,
            paths,
            folders: HashSet::new(),
            files: BTreeMap::new(),
        };
        watch.look()?;
        Ok(watch)
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// The files that had changed since then, in time since 1970, when they were seen last: whether or not
    /// anybody watched. One that was removed is not among them.
    pub fn changed_since(&self, time: Duration) -> Vec<PathBuf> {
        let changed = self
            .files
            .iter()
            .filter(|(_, seen)| seen.changed > Some(time));
        changed.map(|(path, _)| path.clone()).collect()
    }

    /// What to wait for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// The files that have changed, once nothing changes for a moment; none if what has is not watched.
    ///
    /// # Errors
    ///
    /// A directory that is new cannot be watched.
    pub fn changed(&mut self) -> io::Result<Vec<PathBuf>> {
        for _ in 0..MOST_WAITS {
            self.drain()?;
            let mut polled = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::from(QUIET)) {
                Ok(0) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.look()
    }

    /// Forgets what was told: all is looked at.
    fn drain(&self) -> io::Result<()> {
        loop {
            match self.inotify.read_events() {
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Walks until there is no new directory: what was put into one before it was watched was not told.
    fn look(&mut self) -> io::Result<Vec<PathBuf>> {
        let mut changed = HashSet::new();
        loop {
            let (paths, files) = walk(&self.paths);
            // All of them: one that was removed and made again, or that another was moved over, has the same
            // path, and perhaps the same inode, but no watch.
            let mut folders = HashSet::new();
            for folder in &paths {
                folders.extend(self.watch(folder)?);
            }
            let news = !folders.is_subset(&self.folders);
            for gone in self.folders.difference(&folders) {
                // One that was removed is watched no more.
                let _is_gone = self.inotify.rm_watch(*gone);
            }
            self.folders = folders;
            let both = self.files.keys().chain(files.keys());
            let content = |files: &BTreeMap<PathBuf, Seen>, path: &Path| {
                files.get(path).map(|one| one.content)
            };
            let differs = both.filter(|path| content(&self.files, path) != content(&files, path));
            changed.extend(differs.cloned());
            self.files = files;
            if !news {
                break;
            }
        }
        let mut changed: Vec<PathBuf> = changed.into_iter().collect();
        changed.sort();
        Ok(changed)
    }

    /// Watches a directory, or goes on with that; `None` if it is not there.
    fn watch(&self, folder: &Path) -> io::Result<Option<WatchDescriptor>> {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        match self.inotify.add_watch(folder, flags) {
            Ok(watched) => Ok(Some(watched)),
            // Gone again, or not for us.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => Ok(None),
            Err(Errno::ENOSPC) => Err(io::Error::other(format!(
                "{}: there are too many directories; raise fs.inotify.max_user_watches",
                folder.display()
            ))),
            Err(errno) => Err(of(folder, &errno.into())),
        }
    }
}

fn of(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The directories to watch, and the files that are not ignored.
fn walk(paths: &[PathBuf]) -> (HashSet<PathBuf>, BTreeMap<PathBuf, Seen>) {
    let (mut folders, mut files) = (HashSet::new(), BTreeMap::new());
    for path in paths {
        // Also where there is no repository, as in an unpacked release.
        let mut walk = WalkBuilder::new(path);
        walk.require_git(false);
        // What cannot be read is as if it were not there.
        for entry in walk.build().flatten() {
            // It goes where a path itself leads.
            let metadata = match entry.depth() {
                0 => path.metadata().ok(),
                _ => entry.metadata().ok(),
            };
            let Some(metadata) = metadata else {
                continue;
            };
            if metadata.is_dir() {
                folders.insert(entry.into_path());
                continue;
            }
            let content = Content {
                inode: metadata.ino(),
                length: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            };
            let seen = Seen {
                content,
                changed: changed(&metadata),
            };
            files.insert(entry.into_path(), seen);
        }
        // A file by itself: an editor replaces it.
        if !path.is_dir() {
            folders.insert(folder_of(path).to_owned());
        }
        folders.extend(on_the_way(path));
    }
    (folders, files)
}

/// The folder of what a path names.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        // Of a name alone. No path at all is nowhere (inotify_add_watch(2): ENOENT).
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// The folders in which it is decided where a path leads: those of the links on its way, which who installs another
/// release lets lead elsewhere, and the one in which the next part is missing.
fn on_the_way(path: &Path) -> HashSet<PathBuf> {
    let mut folders = HashSet::new();
    let mut way = path.to_owned();
    // As many links as the kernel follows (path_resolution(7)).
    for _ in 0..=40 {
        // Without a slash at the end, which would be behind the link.
        way = way.components().collect();
        let parts = way.ancestors();
        let parts = parts.filter(|part| !part.as_os_str().is_empty());
        if way.symlink_metadata().is_err() {
            let there = parts.clone().find(|part| part.is_dir());
            folders.insert(there.unwrap_or(Path::new(".")).to_owned());
        }
        // The outermost: behind it, the way goes on from where it leads.
        let links = parts.filter_map(|part| {
            let target = part.read_link().ok()?;
            Some((part, target))
        });
        let Some((link, target)) = links.last() else {
            break;
        };
        let folder = folder_of(link);
        folders.insert(folder.to_owned());
        let rest = way.strip_prefix(link).unwrap_or(Path::new(""));
        way = folder.join(target).join(rest);
    }
    folders
}

/// ctime; `None` before 1970.
fn changed(metadata: &Metadata) -> Option<Duration> {
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    Some(Duration::new(
        seconds,
        u32::try_from(metadata.ctime_nsec()).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = format!("listend-file-watch-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(path);
            fs::create_dir_all(&path).expect("a directory");
            Folder(path)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _removed = fs::remove_dir_all(&self.0);
        }
    }

    fn names(folder: &Folder, changed: &[PathBuf]) -> Vec<String> {
        let names = changed.iter().map(|path| {
            let name = path.strip_prefix(&folder.0).expect("it is below");
            name.to_string_lossy().into_owned()
        });
        names.collect()
    }

    #[test]
    fn what_git_does_not_ignore_is_a_change() {
        let folder = Folder::new("ignore");
        folder.write(".gitignore", "target/\n*.log\n");
        folder.write("src/main.rs", "1");
        folder.write("target/debug/app", "1");
        let mut watch = FileWatch::new(vec![folder.0.clone()]).expect("it can be watched");
        assert_eq!(watch.count(), 1, "{:?}", watch.files);
        let changed =
            |watch: &mut FileWatch| names(&folder, &watch.changed().expect("it is there"));
        folder.write("target/debug/app", "22");
        folder.write("app.log", "x");
        folder.write(".git/index", "x");
        assert_eq!(changed(&mut watch), [""; 0]);
        folder.write("src/main.rs", "22");
        assert_eq!(changed(&mut watch), ["src/main.rs"]);
        // In a directory that is new, and in one below that.
        folder.write("src/a/b/c.rs", "1");
        assert_eq!(changed(&mut watch), ["src/a/b/c.rs"]);
        folder.write("src/a/b/c.rs", "22");
        fs::rename(folder.0.join("src/main.rs"), folder.0.join("src/lib.rs")).expect("it is ours");
        assert_eq!(
            changed(&mut watch),
            ["src/a/b/c.rs", "src/lib.rs", "src/main.rs"]
        );
        fs::remove_dir_all(folder.0.join("src/a")).expect("it is ours");
        assert_eq!(changed(&mut watch), ["src/a/b/c.rs"]);
        // And back: it has to be watched again.
        folder.write("src/a/b/c.rs", "1");
        assert_eq!(changed(&mut watch), ["src/a/b/c.rs"]);
        let mut polled = [PollFd::new(watch.fd(), PollFlags::POLLIN)];
        folder.write("src/a/b/c.rs", "333");
        assert_eq!(poll(&mut polled, PollTimeout::from(10_000_u16)), Ok(1));
        assert_eq!(changed(&mut watch), ["src/a/b/c.rs"]);
    }

    // Between two looks: a build that empties its folder, a branch that is checked out, a release that is moved.
    #[test]
    fn a_directory_in_the_place_of_another_is_watched() {
        let folder = Folder::new("replaced");
        let of = |name: &str| folder.0.join(name);
        folder.write("top/sub/file", "1");
        let mut watch = FileWatch::new(vec![of("top")]).expect("it can be watched");
        let replace: [&dyn Fn(); 3] = [
            &|| fs::remove_dir_all(of("top/sub")).expect("it is ours"),
            &|| fs::rename(of("top/sub"), of("old")).expect("it is ours"),
            &|| fs::rename(of("top"), of("older")).expect("it is ours"),
        ];
        for replace in replace {
            replace();
            folder.write("top/sub/file", "22");
            watch.changed().expect("it is there");
            // What is told of the watch itself.
            watch.changed().expect("it is there");
            folder.write("top/sub/file", "333");
            let mut polled = [PollFd::new(watch.fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut polled, PollTimeout::from(1_000_u16)), Ok(1));
            let changed = watch.changed().expect("it is there");
            assert_eq!(names(&folder, &changed), ["top/sub/file"]);
        }
        // Those that are somewhere else now are not.
        folder.write("old/file", "x");
        folder.write("older/sub/file", "x");
        let mut polled = [PollFd::new(watch.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut polled, PollTimeout::ZERO), Ok(0));
    }

    // `listend exec --watch app.py` never saw a change.
    #[test]
    fn a_name_alone_is_in_the_working_directory() {
        let (folders, files) = walk(&[PathBuf::from("Cargo.toml")]);
        assert_eq!(folders, HashSet::from([PathBuf::from(".")]));
        assert!(files.contains_key(Path::new("Cargo.toml")));
    }

    // The release that runs is often at a link, or at a link to a link; and what is watched may be below that.
    #[test]
    fn a_link_that_leads_elsewhere_is_a_change() {
        for (number, watched) in ["current", "current/", "current/dir", "current/dir/file"]
            .into_iter()
            .enumerate()
        {
            let folder = Folder::new(&format!("link-{number}"));
            folder.write("one/dir/file", "1");
            folder.write("two/dir/file", "22");
            let switch = |name: &str, to: &str| {
                let new = folder.0.join("new");
                std::os::unix::fs::symlink(to, &new).expect("a link");
                fs::rename(&new, folder.0.join(name)).expect("it is ours");
            };
            fs::create_dir(folder.0.join("releases")).expect("a directory");
            switch("releases/current", "../one");
            switch("current", "releases/current");
            let mut watch = FileWatch::new(vec![folder.0.join(watched)]).expect("it is there");
            let told = |watch: &mut FileWatch| {
                let mut polled = [PollFd::new(watch.fd(), PollFlags::POLLIN)];
                let told = poll(&mut polled, PollTimeout::from(1_000_u16));
                assert_eq!(told, Ok(1), "{watched}");
                let changed = names(&folder, &watch.changed().expect("it is there"));
                assert_eq!(changed, ["current/dir/file"], "{watched}");
                // What is told of the watch itself.
                watch.changed().expect("it is there");
            };
            switch("releases/current", "../two");
            told(&mut watch);
            folder.write("two/dir/file", "333");
            told(&mut watch);
            // By who removes it first.
            fs::remove_file(folder.0.join("current")).expect("it is ours");
            told(&mut watch);
            switch("current", "one");
            told(&mut watch);
        }
    }

    #[test]
    fn what_is_newer_than_a_time_has_changed_as_it_was_seen() {
        let folder = Folder::new("newer");
        folder.write("old", "1");
        let watch = || FileWatch::new(vec![folder.0.clone()]).expect("it can be watched");
        let seen = watch();
        let of_old = changed(&folder.0.join("old").metadata().expect("a file")).expect("a time");
        let before = of_old - Duration::from_nanos(1);
        assert_eq!(names(&folder, &seen.changed_since(before)), ["old"]);
        assert_eq!(names(&folder, &seen.changed_since(of_old)), [""; 0]);
        // The clock of files goes by ticks of the kernel.
        while changed(&folder.0.join("old").metadata().expect("a file")) == Some(of_old) {
            folder.write("old", "22");
        }
        assert_eq!(names(&folder, &seen.changed_since(of_old)), [""; 0]);
        assert_eq!(names(&folder, &watch().changed_since(of_old)), ["old"]);
    }

    #[test]
    fn a_file_is_watched_by_itself_also_when_it_is_replaced() {
        let folder = Folder::new("file");
        folder.write("app.conf", "1");
        let mut watch = FileWatch::new(vec![folder.0.join("app.conf")]).expect("it is there");
        folder.write("other", "x");
        assert_eq!(watch.changed().expect("it is there"), Vec::<PathBuf>::new());
        folder.write("app.conf.new", "1");
        fs::rename(folder.0.join("app.conf.new"), folder.0.join("app.conf")).expect("it is ours");
        let changed = watch.changed().expect("it is there");
        assert_eq!(names(&folder, &changed), ["app.conf"]);
        let missing = FileWatch::new(vec![folder.0.join("nothing")]).expect_err("it is missing");
        assert!(missing.to_string().contains("nothing: "), "{missing}");
    }
}
