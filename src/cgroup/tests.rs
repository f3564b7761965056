use super::enter::{limit, put};
use super::layout::{NoTree, Tree, group, is_of, is_of_worker, name, pid_in, without_own};
use super::look::{is_version1, totals};
use super::words::Obstacle;
use super::{figures, remove_empty};
use crate::sandbox::{Limits, Most, Quota, Totals};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statfs::statfs;
use std::fs;
use std::path::{Path, PathBuf};

const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
    35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

const UNIFIED: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

fn found(mounts: &[u8], groups: &str) -> Result<(PathBuf, PathBuf), NoTree> {
    Tree::find(mounts, groups.as_bytes()).map(|tree| (tree.mount, tree.base))
}

#[test]
fn the_base_is_where_listend_was_started() {
    let at = |mount: &str, base: &str| Ok((mount.into(), base.into()));
    let service = "0::/system.slice/listend.service";
    let base = "/sys/fs/cgroup/system.slice/listend.service";
    assert_eq!(
        found(UNIFIED, &format!("{service}\n")),
        at("/sys/fs/cgroup", base)
    );
    // Once it has a group of its own there, the base is still the same.
    let moved = format!("{service}/listend.daemon\n");
    assert_eq!(found(UNIFIED, &moved), at("/sys/fs/cgroup", base));
    // A listend that is a worker of another divides the group that it has.
    let worker = format!("{service}/listend.app.0.7\n");
    let nested = format!("{base}/listend.app.0.7");
    assert_eq!(found(UNIFIED, &worker), at("/sys/fs/cgroup", &nested));
    // Version 1 has other lines.
    let hybrid = "8:pids:/x\n4:memory:/y\n0::/\n";
    let unified = "/sys/fs/cgroup/unified";
    assert_eq!(found(HYBRID, hybrid), at(unified, unified));
    // As it is told: paths are equal with a slash at the end, too.
    let (_, base) = found(HYBRID, hybrid).expect("a tree");
    assert_eq!(base.as_os_str(), unified);
}

#[test]
fn a_container_shows_a_part_of_the_tree() {
    let bind = b"9 8 0:28 /box /my\\040groups rw - cgroup2 cgroup2 rw\n";
    let expected = Ok(("/my groups".into(), "/my groups/a".into()));
    assert_eq!(found(bind, "0::/box/a\n"), expected);
    assert_eq!(found(bind, "0::/other\n"), Err(NoTree::Hidden));
    // Not a part of the name.
    assert_eq!(found(bind, "0::/boxes\n"), Err(NoTree::Hidden));
    assert_eq!(found(b"", "0::/\n"), Err(NoTree::Unmounted));
    assert_eq!(found(UNIFIED, "4:memory:/\n"), Err(NoTree::NoGroup));
    assert_eq!(group(b"0::/a:b\n"), Some("/a:b".into()));
}

#[test]
fn a_worker_is_where_its_listend_is() {
    let of = |text: &str| String::from_utf8(without_own(text.as_bytes())).expect("UTF-8");
    let own = "5:pids:/listend.daemon\n0::/system.slice/listend.service\n";
    for group in ["listend.daemon", "listend.app.0.7"] {
        let text = format!("5:pids:/listend.daemon\n0::/system.slice/listend.service/{group}\n");
        assert_eq!(of(&text), own);
        assert_eq!(of(&format!("0::/{group}\n")), "0::/\n");
    }
    assert_eq!(of(own), own);
    for group in ["", "init.scope", "listend.daemon/app"] {
        assert_eq!(of(&format!("0::/{group}\n")), format!("0::/{group}\n"));
    }
    assert_eq!(of("0::/x/listend.service.d\n"), "0::/x/listend.service.d\n");
}

#[test]
fn names_are_of_one_instance_and_one_process() {
    let own = name("app", 3, 4711);
    assert_eq!(own, "listend.app.3.4711");
    let is = |group: &str, worker: &str, index: u32| is_of(Path::new(group), worker, index);
    assert!(is("/x/listend.app.3.4711", "app", 3));
    assert!(!is("/x/listend.app.3.4711", "app", 4) && !is("/x/listend.app.3.4711", "ap", 3));
    // Names of workers may have points: `app.3` has the instance `app.3.0`.
    assert!(!is("/x/listend.app.3.0.4711", "app", 3));
    assert!(is("/x/listend.app.3.0.4711", "app.3", 0));
    assert_eq!(pid_in("listend.app.3.0.4711"), Some(4711));
    // The numbers of connections go round.
    let last = name("app", u32::MAX, 4711);
    assert_eq!(pid_in(&last), Some(4711));
    assert!(is_of_worker(&last, "app"));
    for other in [
        "listend.daemon",
        "listend.app.4711",
        "app.0.4711",
        "listend.app.0.-1",
        "listend.a.0.+1",
    ] {
        assert_eq!(pid_in(other), None, "{other}");
    }
    // However the worker is called, the name is one file name, and no other's.
    let longest = "x".repeat(255);
    assert!(name(&longest, 9_999, i32::MAX).len() < 255);
    assert!(is(&name(&longest, 0, 1), &longest, 0));
    for worker in ["..", ".", "cgroup.procs", "daemon", "-"] {
        let name = name(worker, 0, 1);
        assert!(
            name.starts_with("listend.") && name != "listend.daemon",
            "{name}"
        );
        assert_eq!(Path::new(&name).components().count(), 1, "{name}");
    }
}

/// A folder that looks like a group; removed at the end.
struct Fake(PathBuf);

impl Fake {
    fn new(test: &str) -> Fake {
        let path = std::env::temp_dir().join(format!("listend-{test}-{}", std::process::id()));
        fs::create_dir(&path).expect("create a folder");
        Fake(path)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("create a folder");
        fs::write(path, text).expect("write a file");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).expect("read a file")
    }

    /// As if a tree had its base here.
    fn tree(&self, base: &str) -> Tree {
        Tree {
            mount: self.0.clone(),
            base: self.0.join(base),
            kind: statfs(&self.0).expect("a file system").filesystem_type(),
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

fn folder(path: &Path) -> std::os::fd::OwnedFd {
    open(path, OFlag::O_DIRECTORY, Mode::empty()).expect("open a folder")
}

const LIMITS: Limits = Limits {
    memory_max: Some(Most::Part(5_000)),
    tasks_max: Some(Most::Infinity),
    cpu_quota: Some(Quota::Part(5_000)),
    io_weight: Some(50),
};

const TOTALS: Totals = Totals {
    memory: 1 << 20,
    tasks: 100,
};

#[test]
fn limits_are_written_to_the_files_that_there_are() {
    let fake = Fake::new("limits");
    for file in ["memory.max", "cpu.max", "io.bfq.weight"] {
        fake.file(file, "");
    }
    let settings = LIMITS.settings(TOTALS);
    let group = folder(&fake.0);
    // Without the controller there is no limit, as wanted.
    assert_eq!(limit(&group, &settings.iter().collect::<Vec<_>>()), []);
    assert_eq!(fake.read("memory.max"), "524288");
    assert_eq!(fake.read("cpu.max"), "50000 100000");
    assert_eq!(fake.read("io.bfq.weight"), "50");
    fs::remove_file(fake.0.join("io.bfq.weight")).expect("remove a file");
    let missing = limit(&group, &settings.iter().collect::<Vec<_>>());
    let [("io_weight", Obstacle::Failed(what, Errno::ENOENT))] = &missing[..] else {
        panic!("{missing:?}");
    };
    assert_eq!(what, "write io.weight or io.bfq.weight");
}

#[test]
fn a_link_in_a_group_is_not_followed() {
    let fake = Fake::new("link");
    fake.file("elsewhere", "");
    std::os::unix::fs::symlink(fake.0.join("elsewhere"), fake.0.join("memory.max"))
        .expect("a link");
    assert_eq!(put(&folder(&fake.0), "memory.max", "1"), Err(Errno::ELOOP));
    let tree = Tree {
        base: fake.0.join("base"),
        ..fake.tree("")
    };
    std::os::unix::fs::symlink("/", &tree.base).expect("a link");
    assert!(matches!(
        tree.check(),
        Err(Obstacle::Failed(_, Errno::ENOTDIR | Errno::ELOOP))
    ));
}

#[test]
fn what_is_in_the_way_is_told() {
    let fake = Fake::new("base");
    let base = fake.tree("system.slice/listend.service");
    fake.file("system.slice/listend.service/cgroup.type", "domain\n");
    fake.file(
        "system.slice/listend.service/cgroup.controllers",
        "cpu pids\n",
    );
    fake.file("system.slice/listend.service/cgroup.procs", "");
    fake.file("system.slice/listend.service/cgroup.subtree_control", "");
    fake.file("cgroup.controllers", "cpu io memory pids\n");
    if nix::unistd::geteuid().is_root() {
        // Nothing says that systemd has given it away.
        assert_eq!(base.check(), Err(Obstacle::NotDelegated(base.base.clone())));
    }
    let group = fake.tree("group");
    fake.file("group/cgroup.type", "domain\n");
    fake.file("group/cgroup.procs", "");
    fake.file("group/cgroup.subtree_control", "");
    assert_eq!(group.check(), Ok(()));
    // This process is nobody's daemon, but it executes the same program.
    fake.file("group/cgroup.procs", &format!("{}\n", std::process::id()));
    assert_eq!(group.check(), Ok(()));
    fake.file(
        "group/cgroup.procs",
        &format!("{}\n1\n", std::process::id()),
    );
    assert!(matches!(group.check(), Err(Obstacle::Shared(_, 1, _))));
    fs::remove_file(group.base.join("cgroup.procs")).expect("remove a file");
    let gone = group.base.join("cgroup.procs");
    assert_eq!(
        group.check(),
        Err(Obstacle::NotWritable(gone, Errno::ENOENT))
    );
    let rights = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&group.base, rights).expect("chmod");
    assert!(matches!(group.check(), Err(Obstacle::Foreign(..))));
    // A folder that is no group at all.
    let real = Tree {
        kind: nix::sys::statfs::CGROUP2_SUPER_MAGIC,
        ..base.clone()
    };
    assert_eq!(real.check(), Err(Obstacle::NoTree(NoTree::Unmounted)));
    let settings = LIMITS.settings(TOTALS);
    let keys: Vec<_> = base
        .lacking(&settings)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, ["memory_max", "io_weight"]);
}

#[test]
fn a_base_that_others_can_change_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let fake = Fake::new("others");
    let group = fake.tree("group");
    for file in ["cgroup.type", "cgroup.procs", "cgroup.subtree_control"] {
        fake.file(&format!("group/{file}"), "");
    }
    let them = 4_711;
    for (uid, gid, mode, is_foreign) in [
        (0, 0, 0o755, false),
        // The group of root may.
        (0, 0, 0o775, false),
        (0, them, 0o755, false),
        (0, them, 0o775, true),
        (0, 0, 0o757, true),
        (them, 0, 0o755, true),
    ] {
        std::os::unix::fs::chown(&group.base, Some(uid), Some(gid)).expect("chown");
        let rights = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&group.base, rights).expect("chmod");
        let foreign = Err(Obstacle::Foreign(group.base.clone(), uid));
        let expected = if is_foreign { foreign } else { Ok(()) };
        assert_eq!(group.check(), expected, "{uid} {gid} {mode:o}");
    }
}

// A container has a tree of its own, in which nobody else has a process: whoever is in the base is moved.
#[test]
fn a_whole_tree_is_given_away_and_has_no_strangers() {
    let fake = Fake::new("whole");
    let base = fake.tree("box.service");
    for file in ["cgroup.type", "cgroup.subtree_control"] {
        fake.file(&format!("box.service/{file}"), "");
    }
    fake.file("box.service/cgroup.procs", "1\n");
    let whole = Tree {
        mount: base.base.clone(),
        ..base.clone()
    };
    assert_eq!(whole.check(), Ok(()));
    assert!(base.check().is_err());
}

#[test]
fn a_controller_of_version_1_has_a_hierarchy() {
    let table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t2\t1\nhugetlb\t0\t3\t1\n";
    assert!(
        is_version1(table, "cpu") && !is_version1(table, "hugetlb") && !is_version1(table, "io")
    );
}

#[test]
fn each_obstacle_says_what_to_do() {
    let all = [
        Obstacle::NoTree(NoTree::Unmounted),
        Obstacle::NoTree(NoTree::Hidden),
        Obstacle::IsVersion1("memory"),
        Obstacle::NoController("io"),
        Obstacle::NotPassedOn("io", "/x".into()),
        Obstacle::Foreign("/x".into(), 7),
        Obstacle::NotDelegated("/x".into()),
        Obstacle::NotWritable("/x".into(), Errno::EROFS),
        Obstacle::Shared("/x".into(), 7, "sh".into()),
        Obstacle::Failed("mkdir a".into(), Errno::EAGAIN),
    ];
    for obstacle in all {
        assert!(!obstacle.to_string().is_empty() && !obstacle.remedy().is_empty());
    }
    assert!(Obstacle::IsVersion1("pids").is_of_the_machine());
    assert!(!Obstacle::NotDelegated("/x".into()).is_of_the_machine());
}

#[test]
fn the_smallest_number_is_what_the_machine_has() {
    let fake = Fake::new("totals");
    assert_eq!(
        totals(&fake.0),
        Totals {
            memory: u64::MAX,
            tasks: u64::MAX
        }
    );
    fake.file("proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n");
    fake.file("proc/sys/kernel/pid_max", "4194304\n");
    fake.file("proc/sys/kernel/threads-max", "1000\n");
    fake.file("sys/fs/cgroup/memory.max", "max\n");
    assert_eq!(
        totals(&fake.0),
        Totals {
            memory: 2 << 20,
            tasks: 1000
        }
    );
    fake.file("sys/fs/cgroup/memory.max", "1048576\n");
    fake.file("sys/fs/cgroup/pids.max", "50\n");
    assert_eq!(
        totals(&fake.0),
        Totals {
            memory: 1 << 20,
            tasks: 50
        }
    );
}

#[test]
fn figures_are_those_that_the_kernel_counts() {
    let fake = Fake::new("figures");
    assert_eq!(figures::read(&fake.0), super::Figures::default());
    fake.file("memory.current", "4096\n");
    fake.file("memory.peak", "8192\n");
    fake.file(
        "memory.events",
        "low 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n",
    );
    fake.file("cpu.stat", "usage_usec 1234567\nuser_usec 1\n");
    let read = figures::read(&fake.0);
    assert_eq!(read.cpu_milliseconds, Some(1234));
    assert_eq!(
        (read.memory_bytes, read.memory_peak_bytes),
        (Some(4096), Some(8192))
    );
    assert_eq!(read.oom_kills, Some(1));
    assert_eq!(super::oom_kills(&fake.tree(""), "."), 1);
}

#[test]
fn only_groups_whose_process_is_gone_are_removed() {
    let fake = Fake::new("sweep");
    // No process has this number: it is more than the kernel gives.
    let gone = i32::MAX;
    let own = std::process::id();
    let groups = [
        format!("listend.app.0.{gone}"),
        format!("listend.busy.0.{gone}"),
        format!("listend.app.0.{own}"),
        "listend.daemon".to_owned(),
        format!("other.0.{gone}"),
    ];
    for group in &groups {
        fs::create_dir(fake.0.join(group)).expect("create a folder");
    }
    fake.file(&format!("{}/inside", groups[1]), "");
    remove_empty(&fake.0);
    let left = groups.each_ref().map(|group| fake.0.join(group).exists());
    assert_eq!(left, [false, true, true, true, true]);
}

#[test]
fn a_group_that_was_made_again_is_another() {
    let fake = Fake::new("known");
    let tree = fake.tree("");
    assert_eq!(tree.known("group"), None);
    fake.file("group/cgroup.kill", "");
    let known = tree.known("group").expect("a group");
    assert_eq!(known.kill(), Ok(()));
    assert_eq!(fake.read("group/cgroup.kill"), "1");
    fs::rename(fake.0.join("group"), fake.0.join("former")).expect("rename");
    fake.file("group/cgroup.kill", "");
    assert_eq!(known.kill(), Err(Errno::ENOENT));
    assert_eq!(fake.read("group/cgroup.kill"), "");
}
