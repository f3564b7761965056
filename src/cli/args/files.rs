//! The arguments of verbs that read and write files, and need no daemon.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// The arguments of `listend import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The files: .socket and .service, inetd.conf, xinetd, circus.ini, supervisord.conf, Procfile,
    /// compose.yaml, ecosystem.config.json
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The format, if the name of the file does not tell it
    #[arg(long, value_name = "FORMAT", value_parser = crate::import::FORMATS.iter().map(|(word, _)| *word).collect::<Vec<_>>())]
    pub from: Option<String>,
}

/// The arguments of `listend export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Whose files
    #[arg(value_name = "FORMAT")]
    pub format: ExportFormat,

    /// The configuration [default: as of `listend check`]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Write each unit into a file of this directory, and none over another
    #[arg(short, long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

/// What a configuration can be translated into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// .socket and .service units.
    Systemd,
}

/// The arguments of `listend __watch`.
#[derive(Debug, Args)]
pub struct WatchFiles {
    /// The worker that is restarted
    pub worker: String,

    /// Files and directories
    #[arg(last = true, required = true)]
    pub paths: Vec<PathBuf>,
}
