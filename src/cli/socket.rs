//! Where the control socket is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The control socket of the system's daemon.
const OF_ROOT: &str = "/run/listend/control.sock";

/// The path that daemon and clients of a user agree on without being told: of root, or of anybody
/// with a folder of their own for such things (XDG Base Directory Specification).
pub fn default_path() -> Option<PathBuf> {
    let is_root = nix::unistd::geteuid().is_root();
    path_for(is_root, std::env::var_os("XDG_RUNTIME_DIR").as_deref())
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
}
