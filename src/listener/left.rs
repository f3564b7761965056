//! The files of sockets that outlive listend: systemd keeps the sockets while the service is restarted, and
//! clients are to find them meanwhile. Whether it is restarted is known to who comes next, and that removes
//! what nobody is to find.

use super::bound::BoundSocket;
use super::identity::PathIdentity;
use super::record::SocketRecord;
use super::remove::remove_files;
use crate::config::Endpoint;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
struct Left {
    address: Endpoint,
    record: SocketRecord,
}

/// What was made for sockets, a line each.
pub fn list_files<'a>(sockets: impl IntoIterator<Item = &'a BoundSocket>) -> String {
    let with_file = sockets.into_iter().filter(|one| one.identity.is_some());
    let lines = with_file.map(|socket| {
        let left = Left {
            address: socket.address.clone(),
            record: socket.record(),
        };
        // Nothing that JSON has not: paths that are not UTF-8 are refused with the configuration.
        serde_json::to_string(&left).unwrap_or_default() + "\n"
    });
    lines.collect()
}

/// Removes what a list names, but for the files of sockets that are in use, and the list itself. Answers with
/// what is ours and could not be removed.
pub fn remove_left_files(list: &Path, in_use: &HashSet<PathIdentity>) -> Vec<(PathBuf, io::Error)> {
    let text = match fs::read_to_string(list) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![(list.to_owned(), error)],
    };
    let mut problems = remove_listed_files(&text, in_use);
    problems.extend(
        fs::remove_file(list)
            .err()
            .map(|error| (list.to_owned(), error)),
    );
    problems
}

/// The same with the text of a list.
pub fn remove_listed_files(
    text: &str,
    in_use: &HashSet<PathIdentity>,
) -> Vec<(PathBuf, io::Error)> {
    let mut problems = Vec::new();
    for line in text.lines() {
        let Ok(Left { address, record }) = serde_json::from_str(line) else {
            continue;
        };
        let identity = record.identity();
        if identity.is_some_and(|identity| !in_use.contains(&identity)) {
            let stays = record.stays;
            let (created, artifacts) = (record.created, record.into_artifacts());
            let file = identity.filter(|_| created);
            problems.extend(remove_files(
                &address, file, identity, &artifacts, stays, None,
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{UnixKind, UnixName};
    use crate::listener::{Adopted, Purpose, SocketTable, bind_all};
    use crate::plan::{Access, ListenerPlan, Plan, SocketKey, SocketPlan};
    use crate::report::{FileId, Place};

    const KEY: SocketKey = SocketKey(0);

    fn listener(path: &Path, mode: u32) -> ListenerPlan {
        let place = Place {
            file: FileId(0),
            line: 1,
            column: 1,
            length: 1,
        };
        let endpoint = Endpoint::Unix {
            kind: UnixKind::Stream,
            name: UnixName::Path(path.to_owned()),
        };
        let access = Access {
            owner: None,
            group: None,
            mode,
            directory_mode: 0o700,
            directory_owner: None,
            directory_group: None,
        };
        let sockets = vec![SocketPlan {
            key: KEY,
            endpoint,
            shard: 0,
            place,
        }];
        ListenerPlan::new("app".to_owned(), sockets, 16, access)
    }

    fn bound(path: &Path) -> SocketTable {
        let plan = Plan::new([listener(path, 0o600)], []);
        bind_all(&plan, Purpose::Keep, Adopted::default()).bound
    }

    fn folder(test: &str) -> PathBuf {
        let name = format!("listend-left-{}-{test}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("create a folder");
        folder
    }

    #[test]
    fn the_file_of_a_socket_in_use_stays_and_others_go_with_the_list() {
        let folder = folder("list");
        let (path, list) = (folder.join("sock"), folder.join("list"));
        let table = bound(&path);
        let socket = table.get(KEY).expect("bound");
        let in_use = HashSet::from([socket.identity.expect("a file")]);
        for (in_use, stays) in [(in_use, true), (HashSet::new(), false)] {
            fs::write(&list, list_files(table.iter())).expect("write");
            assert!(remove_left_files(&list, &in_use).is_empty());
            assert_eq!(path.exists(), stays);
            assert!(!list.exists());
        }
        // There is none: nothing was left.
        assert!(remove_left_files(&list, &HashSet::new()).is_empty());
        // There is one that cannot be read.
        fs::create_dir(&list).expect("create a folder");
        let problems = remove_left_files(&list, &HashSet::new());
        assert_eq!(problems[0].0, list);
        fs::remove_dir_all(folder).expect("remove the folder");
    }

    #[test]
    fn what_somebody_else_has_put_there_stays() {
        let folder = folder("other");
        let (path, list) = (folder.join("sock"), folder.join("list"));
        let table = bound(&path);
        fs::write(&list, list_files(table.iter())).expect("write");
        fs::remove_file(&path).expect("remove");
        let _other = bound(&path);
        assert!(remove_left_files(&list, &HashSet::new()).is_empty());
        assert!(path.exists());
        fs::remove_dir_all(folder).expect("remove the folder");
    }

    #[test]
    fn a_kept_socket_fits_while_rights_and_links_are_those_of_the_listener() {
        let folder = folder("fits");
        let path = folder.join("sock");
        let table = bound(&path);
        let record = table.get(KEY).expect("bound").record();
        assert!(record.fits(&listener(&path, 0o600), 0));
        assert!(!record.fits(&listener(&path, 0o660), 0));
        let (us, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
        for (owner, of_group, expected) in [
            (us.as_raw(), group.as_raw(), true),
            (us.as_raw() + 1, group.as_raw(), false),
            (us.as_raw(), group.as_raw() + 1, false),
        ] {
            let mut owned = listener(&path, 0o600);
            let access = &mut owned.settings_mut().access;
            (access.owner, access.group) = (Some(owner), Some(of_group));
            assert_eq!(record.fits(&owned, 0), expected);
        }
        let mut linked = listener(&path, 0o600);
        linked.settings_mut().symlinks = vec![folder.join("link")];
        assert!(!record.fits(&linked, 0));
        fs::remove_dir_all(folder).expect("remove the folder");
    }
}
