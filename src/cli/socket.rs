//! The path of the control socket.

use nix::unistd::Uid;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The control socket of the system's daemon.
const OF_ROOT: &str = "/run/listend/control.sock";

/// The path that daemon and clients of a user agree on without being told: of root, or below
/// `$XDG_RUNTIME_DIR` (XDG Base Directory Specification). Where that is not set, as after su(1) or in
/// a container, below the folder that it usually names, or in a private one below `/tmp`.
///
/// # Errors
///
/// Another user has the folder below `/tmp`, in words.
pub fn default_path() -> Result<PathBuf, String> {
    let uid = Uid::effective();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR");
    if let Some(path) = path_for(uid.is_root(), runtime.as_deref()) {
        return Ok(path);
    }
    // systemd-logind(8) makes it for a user who is logged in or lingers.
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    if usual
        .metadata()
        .is_ok_and(|folder| folder.uid() == uid.as_raw())
    {
        return Ok(usual.join("listend/control.sock"));
    }
    let folder = PathBuf::from(format!("/tmp/listend-{uid}"));
    match is_private(&folder, uid) {
        Ok(()) => Ok(folder.join("control.sock")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(folder.join("control.sock")),
        Err(error) => Err(format!(
            "XDG_RUNTIME_DIR is not set, and {}: {error}",
            folder.display()
        )),
    }
}

/// Makes the folder of a default path, if it is the private one below `/tmp`.
///
/// # Errors
///
/// The folder cannot be made, or belongs to another user.
pub fn make_folder(path: &Path) -> io::Result<()> {
    let uid = Uid::effective();
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    if folder != Path::new(&format!("/tmp/listend-{uid}")) {
        return Ok(());
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => is_private(folder, uid),
        other => other,
    }
}

/// Anybody can make a folder in `/tmp`: it counts only if it is no link and nobody else can write it.
fn is_private(folder: &Path, uid: Uid) -> io::Result<()> {
    let found = folder.symlink_metadata()?;
    if found.is_dir() && found.uid() == uid.as_raw() && found.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(io::Error::other(
            "it is not a private directory of this user (mode 0700)",
        ))
    }
}

fn path_for(is_root: bool, runtime: Option<&OsStr>) -> Option<PathBuf> {
    if is_root {
        return Some(PathBuf::from(OF_ROOT));
    }
    // Relative paths in it are invalid and to be ignored, says the specification.
    let runtime = runtime.map(Path::new).filter(|path| path.is_absolute());
    runtime.map(|path| path.join("listend/control.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn each_user_has_a_path_of_their_own() {
        let some = |path: &str| Some(PathBuf::from(path));
        let of = |is_root, runtime: &str| path_for(is_root, Some(OsStr::new(runtime)));
        assert_eq!(path_for(true, None), some("/run/listend/control.sock"));
        assert_eq!(
            of(true, "/run/user/0"),
            some("/run/listend/control.sock"),
            "root's shell may have one, the service has none"
        );
        assert_eq!(
            of(false, "/run/user/7"),
            some("/run/user/7/listend/control.sock")
        );
        assert_eq!(of(false, "relative"), None);
        assert_eq!(of(false, ""), None);
        assert_eq!(path_for(false, None), None);
    }

    #[test]
    fn a_folder_that_others_can_write_or_have_made_is_not_private() {
        let uid = Uid::effective();
        let top = std::env::temp_dir().join(format!("listend-socket-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&top).unwrap();
        let link = top.join("link");
        symlink(&top, &link).unwrap();
        assert!(is_private(&top, uid).is_ok());
        assert!(is_private(&link, uid).is_err());
        assert!(is_private(&top, Uid::from_raw(uid.as_raw() + 1)).is_err());
        std::fs::set_permissions(&top, PermissionsExt::from_mode(0o770)).unwrap();
        assert!(is_private(&top, uid).is_err());
        std::fs::remove_dir_all(&top).unwrap();
    }
}
