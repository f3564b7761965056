//! The verbs and their flags.

mod files;

pub use files::{ConfigPath, Export, ExportFormat, Import, WatchFiles};

use crate::verb::{self, Takes, VERBS};
use clap::builder::styling::{AnsiColor, Styles};
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand, ValueEnum};
use log::LevelFilter;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_CODES: &str = "\
Exit codes:
  0   success
  1   the request was refused or failed, or `status` found a problem
  64  the command line is invalid
  69  a listener could not be bound, or no daemon answers
  70  internal error
  77  the daemon does not permit the request
  78  the configuration is invalid";

fn log_level(text: &str) -> Result<LevelFilter, String> {
    let wrong = |_| "write off, error, warn, info, debug or trace".to_owned();
    text.parse().map_err(wrong)
}

/// Binds and listens first, then launches workers that inherit the sockets.
#[derive(Debug, Parser)]
#[command(name = "listend", version, styles = STYLES, after_help = EXIT_CODES)]
pub struct Arguments {
    /// How much to log: off, error, warn, info, debug or trace [default: $RUST_LOG, or info]
    #[arg(long, value_name = "LEVEL", global = true, value_parser = log_level)]
    pub log_level: Option<LevelFilter>,

    /// Where the log goes: the journal, syslog, standard error, or chosen automatically
    #[arg(long, value_name = "WHERE", global = true, default_value = "auto")]
    pub log_to: LogTo,

    /// For the daemon, whose number this is: end with it
    #[arg(long, hide = true, value_name = "PID")]
    pub depend_on: Option<i32>,

    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The destination of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogTo {
    /// The journal if standard error is connected to it; syslog if standard error is closed or
    /// /dev/null and there is no journal; standard error otherwise.
    Auto,
    /// The journal, as entries with fields.
    Journal,
    /// The syslog daemon, at /dev/log.
    Syslog,
    /// Standard error.
    Stderr,
}

/// The verbs of the command line.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the daemon in the foreground: bind every listener, then start the workers
    #[command(after_help = EXIT_CODES)]
    Run(Run),
    /// Check a configuration on this machine, without changing anything
    ///
    /// Parses and validates the configuration, binds every address for real, then releases it,
    /// and prints every error and every piece of advice.
    #[command(after_help = EXIT_CODES)]
    Check(Check),
    /// Bind listeners, pass them to one command and supervise it, without a configuration
    #[command(after_help = EXIT_CODES)]
    Exec(Exec),
    /// Show everything about an address, listener or worker on this machine
    ///
    /// Changes nothing. Shows who holds it, whether it can be bound and why not, who could reach
    /// it, what is special about its port or path, and how many clients may wait. Exits with 0 if
    /// it can be bound or the listend of this configuration holds it, with 1 if not.
    #[command(after_help = EXIT_CODES)]
    Explain(Explain),
    /// Show listeners, accept queues, workers and failures
    ///
    /// Exits with 0 if everything is in order and with 1 if not.
    #[command(after_help = EXIT_CODES)]
    Status(Status),
    /// Show the status live, and control workers by key
    #[command(after_help = EXIT_CODES)]
    Top(Top),
    /// One of `crate::verb`.
    #[command(flatten)]
    ForWorkers(ForWorkers),
    #[command(about = verb::RELOAD.about, after_help = EXIT_CODES)]
    Reload(Reload),
    /// Have the daemon go on as another binary, without a restart
    ///
    /// The binary that the daemon was started from, as it is on disk now, or BINARY is tried first: it has to
    /// understand the state of the daemon. Then the daemon executes it. Its process id, the workers, the
    /// listeners and their queues stay.
    #[command(after_help = EXIT_CODES)]
    Upgrade(Upgrade),
    /// Take held listeners, and execute a command with them
    ///
    /// The command gets them as a worker would, and shares them with the workers: each client goes to the first that
    /// accepts. The daemon has no part in it from then on. Root and the user of the daemon may take every
    /// listener, others those that `grant:` in the configuration names them for.
    #[command(after_help = EXIT_CODES)]
    Take(Take),
    /// Give the daemon a socket that somebody else has bound
    ///
    /// The socket becomes the listener of that name if that is declared and not bound. Otherwise it is held until a reload
    /// has a listener at its address.
    #[command(after_help = EXIT_CODES)]
    Give(Give),
    /// Take the listeners of a running server, for the daemon or a command
    ///
    /// The server goes on and shares them, until it is stopped: no client is refused meanwhile.
    #[command(after_help = EXIT_CODES)]
    Adopt(Adopt),
    /// Show the last lines of the workers' logs
    #[command(after_help = EXIT_CODES)]
    Logs(Logs),
    /// Print events as they happen
    #[command(after_help = EXIT_CODES)]
    Events(Events),
    /// Print the metrics of the daemon as OpenMetrics text
    #[command(after_help = EXIT_CODES)]
    Metrics(Metrics),
    /// Print the completions of a shell
    #[command(after_help = EXIT_CODES)]
    Completions(Completions),
    /// Translate the configuration of another supervisor into YAML
    #[command(after_help = EXIT_CODES)]
    Import(Import),
    /// Translate a configuration into units of systemd
    #[command(after_help = EXIT_CODES)]
    Export(Export),
    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = EXIT_CODES)]
    Schema,
    /// The candidates to complete a command line with; called by the completions.
    #[command(name = "__names", hide = true)]
    Names(Names),
    /// The process that writes the files of `output: file:`, which the daemon starts itself.
    #[command(name = "__watch", hide = true)]
    WatchFiles(WatchFiles),
    #[command(name = "__write", hide = true)]
    Write,
    /// End what is left of a unit of systemd; for its `ExecStopPost=`
    #[command(hide = true)]
    StopPost(StopPost),
    /// Pass connections on to a server that cannot inherit a socket
    ///
    /// The main process of a worker with `forward`. Takes the listeners of LISTEN_FDS, starts the server,
    /// and tells the service manager when it answers. Ends when the server does.
    #[command(after_help = EXIT_CODES)]
    Forward(Forward),
    /// The worker of `web` and `metrics`, which the daemon starts itself
    Web(Web),
    /// The sample worker: answers HTTP on every stream listener that it inherits
    HelloWorker,
}

/// The arguments of `listend run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub config: ConfigPath,

    /// The path of the control socket, or `none` [default: /run/listend/control.sock for root,
    /// $XDG_RUNTIME_DIR/listend/control.sock for others, or /tmp/listend-UID/control.sock]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// The group whose members may query the daemon, but not control it
    #[arg(long, value_name = "GROUP")]
    pub control_group: Option<String>,

    /// Run the daemon as a child, keep its sockets when it dies, and start it again
    #[arg(long)]
    pub guard: bool,

    /// When to notify the service manager that listend is ready (sd_notify): when every worker
    /// that is started at once is ready, or as soon as every listener is bound
    #[arg(long, value_name = "WHEN", default_value = "ready")]
    pub ready_when: ReadyWhen,

    /// Take the sockets from the workers that a killed listend has left behind, and supervise them
    /// again
    #[arg(long)]
    pub take_over: bool,
}

/// What must be ready before listend reports readiness to the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadyWhen {
    /// The listeners and the workers.
    Ready,
    /// The listeners.
    Bound,
}

/// The arguments of `listend stop-post`.
#[derive(Debug, Args)]
pub struct StopPost {
    /// The name of the unit
    #[arg(value_name = "UNIT")]
    pub unit: String,

    /// Wait whether systemd starts the unit again
    #[arg(long)]
    pub watch: bool,
}

/// The arguments of `listend check`.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub config: ConfigPath,

    /// Print errors and advice as JSON on standard output
    #[arg(long, conflicts_with = "dump")]
    pub json: bool,

    /// Bind nothing: check only what the files say
    #[arg(long)]
    pub no_bind: bool,

    /// For the daemon, which passes it on to the client: compact, and only what it answers with
    #[arg(long, hide = true, requires = "json")]
    pub for_daemon: bool,

    /// For the daemon, which goes on with it: with the plan, if there are no errors. Standard input tells
    /// which listeners the daemon has
    #[arg(long, hide = true, requires = "for_daemon")]
    pub with_plan: bool,

    /// Print the configuration as read, with every default filled in, as YAML
    #[arg(long, value_name = "STAGE")]
    pub dump: Option<Dump>,
}

/// The stages that `check --dump` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dump {
    /// The configuration as the files have it.
    Config,
    /// The plan of listend: users as numbers, files read, defaults of this machine.
    Plan,
}

/// The arguments of `listend exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// An address to listen on, or a port of 127.0.0.1; may be given several times
    #[arg(short, long = "listen", value_name = "[NAME=]ADDRESS", required = true)]
    pub listen: Vec<String>,

    /// How many instances of the command share the listeners
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub instances: u32,

    /// When to restart the command; if it is not restarted, listend exits with its exit status
    #[arg(long, value_name = "POLICY", default_value = "always")]
    pub restart: Policy,

    /// Restart the command when a file below this path changes; may be given several times
    #[arg(long, value_name = "PATH", conflicts_with = "restart")]
    pub watch: Vec<PathBuf>,

    /// Set O_NONBLOCK on the listeners
    #[arg(long)]
    pub nonblocking: bool,

    /// Run the command as this user
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// The command and its arguments; `{fd:NAME}`, `{address:NAME}` and `{port:NAME}` are expanded
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// The arguments of `listend forward`.
#[derive(Debug, Args)]
pub struct Forward {
    /// The address of the server: `HOST:PORT`, `HOST:{port}` for a free port, or `unix:/path`
    #[arg(value_name = "ADDRESS")]
    pub to: String,

    /// How long a client waits for a server that cannot be reached
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = crate::config::duration)]
    pub connect_timeout: Duration,

    /// How long a connection may be silent in both directions [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration)]
    pub idle: Option<Duration>,

    /// After how much silence TCP checks whether the other end still exists [default: never]
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration)]
    pub keep_alive: Option<Duration>,

    /// How the server is told who the client is
    #[arg(long, value_name = "VERSION")]
    pub proxy_protocol: Option<ProxyProtocol>,

    /// How long connections may take to end before the server is told to stop
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = crate::config::duration)]
    pub drain: Duration,

    /// The signal that ends it, beside SIGTERM, and that the server is stopped with
    #[arg(long, value_name = "SIGNAL", default_value = "SIGTERM", value_parser = crate::config::signal_number)]
    pub stop_signal: i32,

    /// The name of the server, as it sees it itself (its `argv[0]`)
    #[arg(long, value_name = "NAME")]
    pub argv0: Option<OsString>,

    /// A variable of the environment in which `{port}` stands for the port; may be given several times
    #[arg(long, value_name = "NAME")]
    pub port_variable: Vec<OsString>,

    /// Start the server with SIGPIPE ignored
    #[arg(long)]
    pub ignore_sigpipe: bool,

    /// The command of the server, in which `{port}` stands for the port; without one it runs elsewhere
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The arguments of `listend explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// An address as in the configuration, such as `127.0.0.1:80`, or the name of a listener or worker
    #[arg(value_name = "ADDRESS|NAME")]
    pub target: String,

    #[command(flatten)]
    pub config: ConfigPath,

    /// Print the same as JSON
    #[arg(long)]
    pub json: bool,
}

/// The restart policies, as the command line has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// After every exit.
    Always,
    /// After a failure.
    OnFailure,
    /// No restart.
    Never,
}

/// The arguments that name a daemon.
#[derive(Debug, Args)]
pub struct Control {
    /// The control socket of the daemon [default: /run/listend/control.sock for root,
    /// $XDG_RUNTIME_DIR/listend/control.sock for others, or /tmp/listend-UID/control.sock]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

/// The arguments of `listend status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Show only the listener or worker with this name, in detail
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Print the same as JSON
    #[arg(long)]
    pub json: bool,

    /// Show it again whenever something changes, until the daemon ends
    #[arg(short, long)]
    pub watch: bool,

    #[command(flatten)]
    pub control: Control,
}

/// The arguments of `listend top`.
#[derive(Debug, Args)]
pub struct Top {
    #[command(flatten)]
    pub control: Control,
}

/// A verb for workers, as the table of verbs has it.
#[derive(Debug)]
pub struct ForWorkers {
    /// The row of the verb.
    pub verb: &'static verb::Verb,
    /// The arguments behind the verb.
    pub arguments: WorkerArguments,
}

/// The arguments of a verb for workers.
#[derive(Debug)]
pub enum WorkerArguments {
    /// The arguments of a verb that takes time.
    Act(Act),
    /// The arguments of a verb that is done at once.
    Reset(Reset),
    /// The arguments of `scale`.
    Scale(Scale),
    /// The arguments of `signal`.
    Signal(Signal),
}

impl ForWorkers {
    fn command(verb: &verb::Verb) -> Command {
        let command = Command::new(verb.name);
        let command = match (verb.takes, verb.waits) {
            (Takes::Nothing(_), true) => Act::augment_args(command),
            (Takes::Nothing(_), false) => Reset::augment_args(command),
            (Takes::Instances, _) => Scale::augment_args(command),
            (Takes::Signal, _) => Signal::augment_args(command),
        };
        let command = command.about(verb.about).long_about(None);
        command.after_help(EXIT_CODES)
    }
}

impl Subcommand for ForWorkers {
    fn augment_subcommands(command: Command) -> Command {
        command.subcommands(VERBS.iter().map(ForWorkers::command))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        ForWorkers::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        verb::named(name).is_some()
    }
}

impl FromArgMatches for ForWorkers {
    fn from_arg_matches(matches: &ArgMatches) -> Result<ForWorkers, clap::Error> {
        let given = matches.subcommand();
        let given = given.and_then(|(name, behind)| Some((verb::named(name)?, behind)));
        let (verb, behind) = given.ok_or_else(|| clap::Error::new(ErrorKind::MissingSubcommand))?;
        let arguments = match (verb.takes, verb.waits) {
            (Takes::Nothing(_), true) => WorkerArguments::Act(Act::from_arg_matches(behind)?),
            (Takes::Nothing(_), false) => WorkerArguments::Reset(Reset::from_arg_matches(behind)?),
            (Takes::Instances, _) => WorkerArguments::Scale(Scale::from_arg_matches(behind)?),
            (Takes::Signal, _) => WorkerArguments::Signal(Signal::from_arg_matches(behind)?),
        };
        Ok(ForWorkers { verb, arguments })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = ForWorkers::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The arguments of `listend start`, `stop` and `restart`.
#[derive(Debug, Args)]
pub struct Act {
    /// The workers, or instances of them, such as `app.0`
    #[arg(value_name = "WORKER", required_unless_present = "all")]
    pub workers: Vec<String>,

    /// All workers; `restart` leaves out those that are stopped
    #[arg(long, conflicts_with = "workers")]
    pub all: bool,

    /// Do not wait for completion
    #[arg(long)]
    pub no_wait: bool,

    #[command(flatten)]
    pub control: Control,
}

/// How many instances there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instances {
    /// As many as the queues need.
    Auto,
    /// So many.
    Number(u32),
}

fn instances(text: &str) -> Result<Instances, String> {
    if text == "auto" {
        return Ok(Instances::Auto);
    }
    let number: Option<u32> = text.parse().ok();
    let number = number.filter(|number| (1..=10_000).contains(number));
    let number = number.ok_or("not a number from 1 to 10000, nor `auto`")?;
    Ok(Instances::Number(number))
}

/// The arguments of `listend scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// The worker
    #[arg(value_name = "WORKER")]
    pub worker: String,

    /// The number of instances, or `auto` to have it follow the queues
    #[arg(value_name = "N", value_parser = instances)]
    pub instances: Instances,

    /// Do not wait for completion
    #[arg(long)]
    pub no_wait: bool,

    #[command(flatten)]
    pub control: Control,
}

/// The arguments of `listend signal`.
#[derive(Debug, Args)]
pub struct Signal {
    /// The worker, or one of its instances
    #[arg(value_name = "WORKER", required_unless_present = "reopen")]
    pub worker: Option<String>,

    /// The signal by its name, such as HUP
    #[arg(value_name = "SIGNAL", required_unless_present = "reopen")]
    pub signal: Option<String>,

    /// Make the daemon reopen its log files, after they were renamed
    #[arg(long, conflicts_with_all = ["worker", "signal"])]
    pub reopen: bool,

    #[command(flatten)]
    pub control: Control,
}

/// The arguments of `listend reset`.
#[derive(Debug, Args)]
pub struct Reset {
    /// The workers, or instances of them
    #[arg(value_name = "WORKER", required = true)]
    pub workers: Vec<String>,

    #[command(flatten)]
    pub control: Control,
}

/// The arguments of `listend reload`.
#[derive(Debug, Args)]
pub struct Reload {
    /// Make these workers or instances reload their own configuration instead
    #[arg(value_name = "WORKER", conflicts_with = "dry_run")]
    pub workers: Vec<String>,

    /// Only print what would change
    #[arg(long)]
    pub dry_run: bool,

    /// Do not wait for completion
    #[arg(long, conflicts_with = "dry_run")]
    pub no_wait: bool,

    #[command(flatten)]
    pub control: Control,
}

/// The arguments of `listend upgrade`.
#[derive(Debug, Args)]
pub struct Upgrade {
    /// Execute this binary
    #[arg(value_name = "BINARY")]
    pub binary: Option<PathBuf>,

    /// Do not refuse while a rollout is under way; it goes on afterwards
    #[arg(long)]
    pub now: bool,

    /// Read a snapshot from standard input, and say whether this version could go on from there.
    #[arg(long, hide = true)]
    pub preflight: bool,

    #[command(flatten)]
    pub control: Control,
}

/// The arguments of `listend take`.
#[derive(Debug, Args)]
pub struct Take {
    /// The listeners, in the order of their descriptors
    #[arg(value_name = "LISTENER", required = true)]
    pub listeners: Vec<String>,

    /// How the command gets them, as `handoff` in the configuration
    #[arg(long, value_name = "DIALECT", default_value = "systemd")]
    pub handoff: String,

    #[command(flatten)]
    pub control: Control,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// The arguments of `listend give`.
#[derive(Debug, Args)]
pub struct Give {
    /// The listener
    #[arg(value_name = "LISTENER")]
    pub listener: String,

    /// The number of a socket; may be given several times [default: those of LISTEN_FDS]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub fd: Vec<i32>,

    #[command(flatten)]
    pub control: Control,
}

/// The arguments of `listend adopt`.
#[derive(Debug, Args)]
pub struct Adopt {
    /// The process that listens
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: i32,

    /// An address that it listens on; may be given several times [default: the only one, or with a
    /// command all]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Vec<String>,

    /// The listener that the sockets are for
    #[arg(long = "as", value_name = "LISTENER")]
    pub name: Option<String>,

    /// How the command gets them, as `handoff` in the configuration
    #[arg(long, value_name = "DIALECT", default_value = "systemd")]
    pub handoff: String,

    #[command(flatten)]
    pub control: Control,

    /// Execute this command with them, such as `listend run`, instead of giving them to the daemon
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// The arguments of `listend logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Only the output of this worker
    #[arg(value_name = "WORKER")]
    pub worker: Option<String>,

    /// The number of past lines to print
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u32>,

    /// Keep printing new lines
    #[arg(short, long)]
    pub follow: bool,

    /// Print each line as a JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub control: Control,
}

/// The arguments of `listend events`.
#[derive(Debug, Args)]
pub struct Events {
    /// The number of past events to print first, at most 100
    #[arg(short = 'n', long, value_name = "N")]
    pub last: Option<u32>,

    /// Print only past events: all that are kept, or N
    #[arg(long)]
    pub no_follow: bool,

    /// Print each event as a JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub control: Control,
}

/// The arguments of `listend web`.
#[derive(Debug, Args)]
pub struct Web {
    /// Serve the page and what it shows as well as the metrics
    #[arg(long)]
    pub page: bool,
}

/// The arguments of `listend metrics`.
#[derive(Debug, Args)]
pub struct Metrics {
    #[command(flatten)]
    pub control: Control,
}

/// The arguments of `listend completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// The shells that there are completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// Fish.
    Fish,
}

/// The arguments of `listend __names`.
#[derive(Debug, Args)]
pub struct Names {
    /// The words of the command line up to the one to complete, without `listend`
    #[arg(last = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}
