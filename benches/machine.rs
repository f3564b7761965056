//! What the benchmarks need of the machine: programs, addresses, limits, and what /proc tells.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use procfs::process::Process as Proc;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Errors are words for the person who runs the benchmarks.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Addresses of 127.0.0.0/8 that nobody else is likely to use, and how many of them.
///
/// A hundred sockets on each port is what a large configuration looks like to the kernel's bind
/// table, which is hashed by port: one address with 15,000 ports would not fit beside the
/// ephemeral range, and one port on 15,000 addresses would measure that table instead of listend.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 77, 1);
const ADDRESSES: u32 = 100;

/// Descriptors that a process with many listeners needs for everything else.
const OTHER_DESCRIPTORS: u64 = 100;

/// The listend to measure: the one just built, or the one that the variable `LISTEND` names.
pub fn listend() -> PathBuf {
    std::env::var_os("LISTEND").map_or(env!("CARGO_BIN_EXE_listend").into(), PathBuf::from)
}

/// Cargo's target folder.
pub fn target_dir() -> &'static Path {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    scratch.parent().unwrap_or(scratch)
}

/// Writes a configuration into a folder of its own, so that no drop-in is beside it.
pub fn write_config(name: &str, yaml: &str) -> Result<PathBuf> {
    write_file(name, "listend.yaml", yaml)
}

/// Writes the configuration of another program into a folder of its own.
pub fn write_file(folder: &str, name: &str, text: &str) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("bench")
        .join(folder);
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(name);
    std::fs::write(&file, text)?;
    Ok(file)
}

/// A path as a YAML string; JSON's strings are YAML's double-quoted ones.
pub fn quoted(path: &Path) -> Result<String> {
    Ok(serde_json::to_string(path)?)
}

/// Compiles `benches/c/NAME.c`.
///
/// Statically where that is possible: the dynamic loader would take longer than all the rest of
/// such a small program, and so hide what a supervisor adds.
pub fn compile(name: &str) -> Result<PathBuf> {
    let folder = target_dir().join("bench-c");
    std::fs::create_dir_all(&folder)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/c/{name}.c"));
    let program = folder.join(name);
    let mut last = String::new();
    for linking in [Some("-static"), None] {
        let output = Command::new("cc")
            .args(["-O2", "-Wall", "-Wextra"])
            .args(linking)
            .arg("-o")
            .args([&program, &source])
            .output()
            .map_err(|error| format!("the baselines need a C compiler, cc: {error}"))?;
        if output.status.success() {
            return Ok(program);
        }
        last = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    Err(format!("{} does not compile:\n{last}", source.display()).into())
}

/// Lets this process and those it starts open as many descriptors as the hard limit allows.
pub fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // A failure shows as a rung of the ladder that is skipped.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Whether a process may hold that many sockets.
pub fn allows_sockets(count: u32) -> bool {
    getrlimit(Resource::RLIMIT_NOFILE)
        .is_ok_and(|(soft, _)| soft >= u64::from(count) + OTHER_DESCRIPTORS)
}

/// A sequence of addresses, the same for listend and for the baseline.
#[derive(Clone, Copy)]
pub struct Addresses {
    first_port: u16,
}

impl Addresses {
    /// Room for `count` of them outside the ephemeral range, whose ports an outgoing connection
    /// may hold at any moment.
    pub fn for_sockets(count: u32) -> Result<Addresses> {
        let ports = count.div_ceil(ADDRESSES);
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
        let mut bounds = range.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(low)), Some(Ok(high))) = (bounds.next(), bounds.next()) else {
            return Err(format!("ip_local_port_range is {range:?}").into());
        };
        // Above the range first: nothing is registered there. Below it, near its lower end, where
        // few services are.
        let first = if high + ports <= u32::from(u16::MAX) {
            high + 1
        } else if low > 1024 + ports {
            low - ports
        } else {
            return Err(format!("no {ports} ports are free beside {range:?}").into());
        };
        let first_port = u16::try_from(first)?;
        Ok(Addresses { first_port })
    }

    /// Address `index` of the sequence, counted from 0.
    pub fn get(self, index: u32) -> SocketAddrV4 {
        let address = Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + index % ADDRESSES);
        // `for_sockets` has made sure that the last one is a port.
        SocketAddrV4::new(address, self.first_port + (index / ADDRESSES) as u16)
    }

    /// The same sequence as `bind_loop` takes it: first address, how many, first port.
    pub fn as_arguments(self) -> [String; 3] {
        [
            FIRST_ADDRESS.to_string(),
            ADDRESSES.to_string(),
            self.first_port.to_string(),
        ]
    }

    /// The `listeners:` of a configuration, in the short form, named l0, l1 …
    pub fn yaml(self, count: u32) -> String {
        let entries = (0..count).map(|index| format!("  l{index}: {}\n", self.get(index)));
        std::iter::once("listeners:\n".to_owned())
            .chain(entries)
            .collect()
    }
}

/// The memory of a process, in bytes.
pub struct Memory {
    /// Resident: VmRSS.
    pub resident: u64,
    /// The most that was ever resident: VmHWM.
    pub peak: u64,
    /// Its share of what it shares with others; unknown where /proc does not say.
    pub proportional: Option<u64>,
}

/// Reads the memory of a process.
pub fn memory(pid: i32) -> Result<Memory> {
    let process = Proc::new(pid)?;
    let status = process.status()?;
    let bytes = |kibibytes: Option<u64>| kibibytes.map(|k| k * 1024).ok_or("no VmRSS in status");
    let proportional = process.smaps_rollup().ok().and_then(|rollup| {
        let map = rollup.memory_map_rollup.into_iter().next()?;
        map.extension.map.get("Pss").copied()
    });
    Ok(Memory {
        resident: bytes(status.vmrss)?,
        peak: bytes(status.vmhwm)?,
        proportional,
    })
}

/// How often the threads of a process have been switched away from, of their own will or not.
pub fn context_switches(pid: i32) -> Result<u64> {
    let mut sum = 0;
    for task in Proc::new(pid)?.tasks()? {
        let status = task?.status()?;
        sum += status.voluntary_ctxt_switches.unwrap_or_default();
        sum += status.nonvoluntary_ctxt_switches.unwrap_or_default();
    }
    Ok(sum)
}

/// The processor time that the threads of a process have had, without that of its children.
///
/// From schedstat, which counts nanoseconds; the ticks of stat are as long as many connections.
pub fn processor_time(pid: i32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in Proc::new(pid)?.tasks()? {
        sum += Duration::from_nanos(task?.schedstat()?.sum_exec_runtime);
    }
    Ok(sum)
}

/// The memory of a process that no other has, in KiB.
pub fn private_memory(pid: i32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    let sizes = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(sizes.sum())
}

/// The children of a process, as far as the kernel tells.
pub fn children(pid: i32) -> Vec<i32> {
    let Some(tasks) = Proc::new(pid).and_then(|process| process.tasks()).ok() else {
        return Vec::new();
    };
    tasks
        .filter_map(|task| task.and_then(|task| task.children()).ok())
        .flatten()
        .filter_map(|child| i32::try_from(child).ok())
        .collect()
}

/// Whether `pid` is a running child of `parent`, so that a number from a log line is never
/// signalled after it went to somebody else.
pub fn is_running_child(pid: i32, parent: i32) -> bool {
    Proc::new(pid)
        .and_then(|process| process.stat())
        .is_ok_and(|stat| stat.ppid == parent && stat.state != 'Z')
}

/// Kernel, processors and load: what a reader needs to judge the absolute numbers.
pub fn describe() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    format!(
        "Linux {}, {processors} processors, load {} before the run; {}",
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or_default(),
        listend().display()
    )
}
