//! The verbs and their flags.

use crate::host;
use crate::verb::{self, Takes, VERBS};
use clap::builder::styling::{AnsiColor, Styles};
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand, ValueEnum};
use log::LevelFilter;
use std::path::PathBuf;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   the request was refused or failed, or not all is well
  64  the command line cannot be understood
  69  a listener could not be bound, or no daemon answers
  70  something inside listend failed
  77  the daemon does not permit it
  78  the configuration is bad";

/// Binds and listens first, then launches workers that inherit the sockets.
#[derive(Debug, Parser)]
#[command(name = "listend", version, styles = STYLES, after_help = EXIT_CODES)]
pub struct Arguments {
    /// How much to log: off, error, warn, info, debug or trace [default: $RUST_LOG, or info]
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<LevelFilter>,

    /// Who gets the log: the journal, the syslog daemon, standard error, or whoever would see what
    /// is written to standard error
    #[arg(long, value_name = "WHERE", global = true, default_value = "auto")]
    pub log_to: LogTo,

    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Who gets the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogTo {
    /// The journal if standard error is connected to it; syslog if a daemon's leads nowhere and
    /// there is no journal; standard error otherwise.
    Auto,
    /// The journal, as entries with fields.
    Journal,
    /// The syslog daemon, at /dev/log.
    Syslog,
    /// Standard error.
    Stderr,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the daemon in the foreground: bind every listener, then start the workers
    #[command(after_help = EXIT_CODES)]
    Run(Run),
    /// Say what is wrong with a configuration on this machine, and change nothing
    ///
    /// Parses and validates the configuration, tries every bind and listen and releases it at
    /// once, and prints every error and every piece of advice.
    #[command(after_help = EXIT_CODES)]
    Check(Check),
    /// Bind, hand over and supervise one command, without a configuration
    #[command(after_help = EXIT_CODES)]
    Exec(Exec),
    /// Tell everything about one address or listener on this machine
    ///
    /// Changes nothing. Who holds it, whether it could be bound and why not, who could reach it,
    /// what is special about its port or path, and how many clients may wait. Exits with 0 if it
    /// could be bound or the listend of this configuration holds it, with 1 if not.
    #[command(after_help = EXIT_CODES)]
    Explain(Explain),
    /// Show what is bound, what waits, what runs and what has failed
    ///
    /// Exits with 0 if all is well and with 1 if not.
    #[command(after_help = EXIT_CODES)]
    Status(Status),
    /// Show the same live, and act on workers by a key
    #[command(after_help = EXIT_CODES)]
    Top(Top),
    /// One of `crate::verb`.
    #[command(flatten)]
    ForWorkers(ForWorkers),
    #[command(about = verb::RELOAD.about, after_help = EXIT_CODES)]
    Reload(Reload),
    /// Show the last lines of the workers' logs
    #[command(after_help = EXIT_CODES)]
    Logs(Logs),
    /// Show what happens, as it happens
    #[command(after_help = EXIT_CODES)]
    Events(Events),
    /// Print the daemon's numbers as OpenMetrics text
    #[command(after_help = EXIT_CODES)]
    Metrics(Metrics),
    /// Print the completions of a shell
    #[command(after_help = EXIT_CODES)]
    Completions(Completions),
    /// What could stand behind these words; called by the completions.
    #[command(name = "__names", hide = true)]
    Names(Names),
    /// The worker of `metrics`, which the daemon starts itself
    Web,
    /// The sample worker: answers HTTP on every stream listener that it inherits
    HelloWorker,
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigPath {
    /// The configuration; `conf.d/*.yaml` beside it are read too
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,

    /// The same, as an option [default: /etc/listend/listend.yaml; of others than root
    /// ~/.config/listend/listend.yaml, if it exists]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigPath {
    /// The path to read.
    pub fn path(&self) -> PathBuf {
        let given = self.config.as_ref().or(self.file.as_ref());
        given.cloned().unwrap_or_else(host::default_config)
    }
}

/// `listend run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub config: ConfigPath,

    /// Where to make the control socket, or `none` [default: /run/listend/control.sock for root,
    /// $XDG_RUNTIME_DIR/listend/control.sock for others, or /tmp/listend-UID/control.sock]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// The group whose members may look, but not act, over the control socket
    #[arg(long, value_name = "GROUP")]
    pub control_group: Option<String>,

    /// When to tell the service manager that listend is ready (sd_notify): when every worker that
    /// runs from the start on is, or as soon as every listener is bound
    #[arg(long, value_name = "WHEN", default_value = "ready")]
    pub ready_when: ReadyWhen,
}

/// What has to be there before the service manager is told that listend is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadyWhen {
    /// The listeners and the workers.
    Ready,
    /// The listeners.
    Bound,
}

/// `listend check`.
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

    /// For the daemon, which passes it on to whoever asked: compact, and only what it answers with
    #[arg(long, hide = true, requires = "json")]
    pub for_daemon: bool,

    /// For the daemon, which goes on with it: with the plan, if there are no errors
    #[arg(long, hide = true, requires = "for_daemon")]
    pub with_plan: bool,

    /// Print what was understood, with every default filled in, as YAML
    #[arg(long, value_name = "STAGE")]
    pub dump: Option<Dump>,
}

/// What `check --dump` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dump {
    /// What the files say.
    Config,
    /// What listend would do: users as numbers, files read, defaults of this machine.
    Plan,
}

/// `listend exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// An address to listen on; may be given several times
    #[arg(short, long = "listen", value_name = "[NAME=]ADDRESS", required = true)]
    pub listen: Vec<String>,

    /// How many instances of the command share the listeners
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub instances: u32,

    /// When to start the command again; where it is not, listend ends with its exit status
    #[arg(long, value_name = "POLICY", default_value = "always")]
    pub restart: Policy,

    /// Set O_NONBLOCK on the listeners
    #[arg(long)]
    pub nonblocking: bool,

    /// Run the command as this user
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// The command and its arguments; `{fd:NAME}`, `{address:NAME}` and `{port:NAME}` are filled in
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `listend explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// An address as in the configuration, such as `127.0.0.1:80`, or the name of a listener
    #[arg(value_name = "ADDRESS|LISTENER")]
    pub target: String,

    /// The configuration [default: as of `listend check`]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

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
    /// Never.
    Never,
}

/// Which daemon.
#[derive(Debug, Args)]
pub struct Control {
    /// The control socket of the daemon [default: /run/listend/control.sock for root,
    /// $XDG_RUNTIME_DIR/listend/control.sock for others, or /tmp/listend-UID/control.sock]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

/// `listend status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Only the listener or worker with this name, and all about it
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Print the same as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub control: Control,
}

/// `listend top`.
#[derive(Debug, Args)]
pub struct Top {
    #[command(flatten)]
    pub control: Control,
}

/// A verb for workers, as the table of verbs has it.
#[derive(Debug)]
pub struct ForWorkers {
    /// Which.
    pub verb: &'static verb::Verb,
    /// What is behind it.
    pub arguments: WorkerArguments,
}

/// What can be behind a verb for workers.
#[derive(Debug)]
pub enum WorkerArguments {
    /// Of a verb that takes time.
    Act(Act),
    /// Of one that does not.
    Reset(Reset),
    /// Of `scale`.
    Scale(Scale),
    /// Of `signal`.
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
    /// The workers
    #[arg(value_name = "WORKER", required = true)]
    pub workers: Vec<String>,

    /// Do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,

    #[command(flatten)]
    pub control: Control,
}

/// `listend scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// The worker
    #[arg(value_name = "WORKER")]
    pub worker: String,

    /// How many instances it is to have
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub instances: u32,

    /// Do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,

    #[command(flatten)]
    pub control: Control,
}

/// `listend signal`.
#[derive(Debug, Args)]
pub struct Signal {
    /// The worker
    #[arg(value_name = "WORKER", required_unless_present = "reopen")]
    pub worker: Option<String>,

    /// The signal by its name, such as HUP
    #[arg(value_name = "SIGNAL", required_unless_present = "reopen")]
    pub signal: Option<String>,

    /// Have the daemon open its log files again, after somebody renamed them
    #[arg(long, conflicts_with_all = ["worker", "signal"])]
    pub reopen: bool,

    #[command(flatten)]
    pub control: Control,
}

/// `listend reset`.
#[derive(Debug, Args)]
pub struct Reset {
    /// The workers
    #[arg(value_name = "WORKER", required = true)]
    pub workers: Vec<String>,

    #[command(flatten)]
    pub control: Control,
}

/// `listend reload`.
#[derive(Debug, Args)]
pub struct Reload {
    /// Have these workers read their own configuration again, instead
    #[arg(value_name = "WORKER", conflicts_with = "dry_run")]
    pub workers: Vec<String>,

    /// Only say what would change
    #[arg(long)]
    pub dry_run: bool,

    /// Do not wait until it is done
    #[arg(long, conflicts_with = "dry_run")]
    pub no_wait: bool,

    #[command(flatten)]
    pub control: Control,
}

/// `listend logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Only what this worker wrote
    #[arg(value_name = "WORKER")]
    pub worker: Option<String>,

    /// So many of the lines that are kept
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u32>,

    /// Go on with the lines to come
    #[arg(short, long)]
    pub follow: bool,

    /// Print each line as a JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub control: Control,
}

/// `listend events`.
#[derive(Debug, Args)]
pub struct Events {
    /// So many of the last hundred first
    #[arg(short = 'n', long, value_name = "N")]
    pub last: Option<u32>,

    /// Only events of the past: all that are kept, or N
    #[arg(long)]
    pub no_follow: bool,

    /// Print each event as a JSON object
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub control: Control,
}

/// `listend metrics`.
#[derive(Debug, Args)]
pub struct Metrics {
    #[command(flatten)]
    pub control: Control,
}

/// `listend completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// For which shell
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

/// `listend __names`.
#[derive(Debug, Args)]
pub struct Names {
    /// The words of the command line up to the one to complete, without `listend`
    #[arg(last = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}
