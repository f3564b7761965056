//! What a plan was resolved from.

use crate::host::Facts;
use crate::report::{FileId, Sources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The texts behind a plan, from which a later listend resolves it again, whatever is in the files by
/// then. Nothing for a plan that is made of the command line (`listend exec`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The configuration file, then its drop-ins.
    pub files: Vec<OriginFile>,
    /// The environment files of workers.
    #[serde(default)]
    pub environment_files: BTreeMap<PathBuf, String>,
    /// Where the directories were that symbolic links led to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<PathBuf, PathBuf>,
}

/// One file of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginFile {
    /// As messages show it.
    pub name: String,
    /// The absolute folder that relative paths in it start from.
    pub folder: PathBuf,
    /// What is in it.
    pub text: String,
}

impl Origin {
    /// The origin of a configuration that was just read, with the facts that were looked up for it.
    pub fn new(sources: &Sources, folders: Vec<PathBuf>, facts: &Facts) -> Origin {
        let files = (0..).zip(folders).map(|(number, folder)| OriginFile {
            name: sources.name(FileId(number)).to_owned(),
            folder,
            text: sources.text(FileId(number)).to_owned(),
        });
        let read = facts.environment_files.iter();
        let read =
            read.filter_map(|(path, text)| Some((path.clone(), text.as_ref().ok()?.clone())));
        Origin {
            files: files.collect(),
            environment_files: read.collect(),
            links: facts.links.clone(),
        }
    }
}
