//! The arguments of verbs that read and write files, and need no daemon.

use crate::host;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// The arguments that name a configuration.
#[derive(Debug, Args)]
pub struct ConfigPath {
    /// The configuration; `conf.d/*.yaml` beside it is read as well
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,

    /// The same, as an option [default: /etc/listend/listend.yaml; for users other than
    /// root ~/.config/listend/listend.yaml, if it exists]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigPath {
    /// Whether it is not the usual one.
    pub fn is_given(&self) -> bool {
        self.config.is_some() || self.file.is_some()
    }

    /// The path to read.
    pub fn path(&self) -> PathBuf {
        let given = self.config.as_ref().or(self.file.as_ref());
        given.cloned().unwrap_or_else(host::default_config)
    }
}

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

    #[command(flatten)]
    pub config: ConfigPath,

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
