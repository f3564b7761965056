//! Containers by podman, without an engine that runs: with storage and namespaces of their own, of which nothing is
//! left.

use super::{TempDir, children, is_root, kill, listend_path, require_tool, skip};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What the base images of packaging/container/Containerfile are called.
const BASES: [&str; 2] = [
    "docker.io/library/rust:1-slim-trixie",
    "docker.io/library/debian:trixie-slim",
];

/// Makes a directory in which podman can work: the unified hierarchy beside that of version 1 is what crun refuses, and
/// it gives the /dev/null that is a container's standard input to the user of the container.
/// Prints which driver of podman's storage works here.
const BEGIN: &str = "
mount -t tmpfs tmpfs /run && ip link set lo up || exit
mknod -m 666 /run/null c 1 3 && mount --bind /run/null /dev/null || exit
umount /sys/fs/cgroup/unified 2>/dev/null
cd \"$1\" && mkdir lower upper work merged || exit
if mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged 2>/dev/null; then
    umount merged; echo overlay >driver.new
else
    echo vfs >driver.new
fi
mv driver.new driver
exec sleep infinity
";

/// The runtime: one that may not raise limits does not try (CAP_SYS_RESOURCE).
const RUNTIME: &str = "#!/bin/sh
last=
for word; do
    case $last in
    --bundle | -b) file=$word/config.json ;;
    --process | -p) file=$word ;;
    esac
    last=$word
done
[ -z \"${file:-}\" ] || python3 - \"$file\" <<'END'
import json, sys
with open(sys.argv[1]) as file:
    config = json.load(file)
config.get('process', config).pop('rlimits', None)
with open(sys.argv[1], 'w') as file:
    json.dump(config, file)
END
exec crun \"$@\"
";

/// Namespaces in which podman is called. They end with everything in them when it is dropped.
pub struct Podman {
    outer: Child,
    /// The first process of the namespaces.
    holder: i32,
    driver: String,
    dir: TempDir,
}

impl Podman {
    /// With the base images of the Containerfile, made of the Debian that tests boot; if this machine cannot run
    /// containers, the test is skipped. In the place of Rust there is a cargo that copies the program under test.
    pub fn with_base_images() -> Option<Podman> {
        if !is_root() {
            skip("needs root, for containers");
            return None;
        }
        for program in [
            "podman",
            "crun",
            "catatonit",
            "python3",
            "unshare",
            "nsenter",
            "ip",
            "tar",
        ] {
            require_tool(program)?;
        }
        let root = super::container::debian()?;
        let podman = Podman::start();
        let info = podman.output(&["info"]);
        if !info.status.success() {
            let why = String::from_utf8_lossy(&info.stderr).into_owned();
            skip(&format!("podman does not work here: {why}"));
            return None;
        }
        let [rust, debian] = BASES;
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(root).args([
            "-c",
            "--exclude=./usr/share/locale",
            "--exclude=./usr/share/doc",
            ".",
        ]);
        let mut tar = tar.stdout(Stdio::piped()).spawn().expect("start tar");
        let mut import = podman.command(&["import", "-", debian]);
        import.stdin(tar.stdout.take().expect("a pipe"));
        let imported = import.output().expect("start nsenter");
        let _status = tar.wait();
        assert!(imported.status.success(), "podman import: {imported:?}");
        let folder = podman.dir.path().join("rust");
        fs::create_dir(&folder).expect("create a directory");
        let cargo = "#!/bin/sh\n[ \"$*\" = 'build --release --locked' ] && install -D prebuilt target/release/listend\n";
        write_script(&folder.join("cargo"), cargo);
        let text = format!("FROM {debian}\nCOPY cargo /usr/local/bin/cargo\n");
        fs::write(folder.join("Containerfile"), text).expect("write");
        podman.run(&[
            "build",
            "--quiet",
            "--network=none",
            "--tag",
            rust,
            path(&folder),
        ]);
        Some(podman)
    }

    fn start() -> Podman {
        let dir = TempDir::new();
        let runtime = dir.path().join("runtime");
        write_script(&runtime, RUNTIME);
        let conf = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"without-limits\"\n\
             [engine.runtimes]\nwithout-limits = [\"{}\"]\n",
            runtime.display()
        );
        fs::write(dir.path().join("containers.conf"), conf).expect("write");
        let mut outer = Command::new("setpriv");
        // A test that is killed takes its containers with it.
        outer.args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--fork",
        ]);
        outer.args(["--kill-child=KILL", "--mount-proc", "sh", "-c", BEGIN, "sh"]);
        let outer = outer.arg(dir.path()).stdin(Stdio::null()).spawn();
        let outer = outer.expect("start setpriv");
        let deadline = Instant::now() + Duration::from_secs(60);
        let driver = loop {
            if let Ok(driver) = fs::read_to_string(dir.path().join("driver")) {
                break driver.trim().to_owned();
            }
            assert!(Instant::now() < deadline, "no namespaces for containers");
            // Nothing tells when the file is there.
            std::thread::sleep(Duration::from_millis(10));
        };
        let holder = children(outer.id() as i32).first().copied();
        Podman {
            holder: holder.expect("the first process of the namespaces"),
            outer,
            driver,
            dir,
        }
    }

    /// A directory for files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A process in the network of what is started with `--network host`.
    pub fn network(&self) -> i32 {
        self.holder
    }

    /// A command in the namespaces.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.holder.to_string(),
            "--mount",
            "--net",
            "--pid",
        ]);
        command
            .arg(program)
            .env("CONTAINERS_CONF", self.dir.path().join("containers.conf"));
        command.stdin(Stdio::null());
        command
    }

    /// The words with which podman is called in the namespaces.
    pub fn words(&self) -> Vec<String> {
        let place = |name: &str| path(&self.dir.path().join(name)).to_owned();
        let driver = self.driver.clone();
        let words = ["podman".to_owned(), "--storage-driver".to_owned(), driver];
        let places = [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ];
        let places = places
            .into_iter()
            .flat_map(|(option, name)| [option.to_owned(), place(name)]);
        words.into_iter().chain(places).collect()
    }

    /// `podman WORD …`.
    pub fn command(&self, words: &[&str]) -> Command {
        let own = self.words();
        let mut command = self.inside(&own[0]);
        command.args(&own[1..]).args(words);
        command
    }

    /// The same, until it has ended.
    pub fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("start nsenter")
    }

    /// The same of one that has to succeed; what it said on standard output.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "podman {words:?}: {}\n{said}{complained}",
            output.status
        );
        said
    }

    /// Builds packaging/container/Containerfile with the program under test.
    #[track_caller]
    pub fn build_listend(&self, tag: &str) {
        let context = self.dir.path().join("context");
        fs::create_dir_all(context.join("packaging")).expect("create a directory");
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        let config = "packaging/listend.yaml";
        fs::copy(checkout.join(config), context.join(config)).expect("copy");
        let mut strip = Command::new("strip");
        strip
            .arg("--strip-debug")
            .arg("-o")
            .arg(context.join("prebuilt"));
        assert!(
            strip
                .arg(listend_path())
                .status()
                .expect("start strip")
                .success()
        );
        let file = checkout.join("packaging/container/Containerfile");
        let file = ["--file", path(&file), path(&context)];
        let words = [
            "build",
            "--quiet",
            "--format=docker",
            "--layers=false",
            "--network=none",
            "--tag",
            tag,
        ];
        self.run(&[&words[..], &file].concat());
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Their cgroups are outside of the namespaces.
        let _pods = self.output(&["pod", "rm", "--all", "--force", "--time=0"]);
        let _containers = self.output(&["rm", "--all", "--force", "--time=0"]);
        // The directory of all of podman's; there is more in it while another test has containers.
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let _left = fs::remove_dir(hierarchy.path().join("libpod_parent"));
        }
        // The end of the first process ends all others.
        kill(self.holder, Signal::SIGKILL);
        let _status = self.outer.wait();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// By another process, see `World::write`.
fn write_script(path: &Path, text: &str) {
    let source = path.with_extension("text");
    fs::write(&source, text).expect("write");
    let mut install = Command::new("install");
    install.args(["-m", "755"]).arg(&source).arg(path);
    assert!(install.status().expect("start install").success());
}
