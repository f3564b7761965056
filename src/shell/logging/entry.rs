//! One entry of a log that knows more than text: what it says, how bad that is, what it is about.

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};

/// Who writes, as syslog and the journal call it.
pub(super) const IDENTIFIER: &str = "listend";

/// What is to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The syslog priority (sd-daemon(3)).
    pub priority: u8,
    /// May have several lines.
    pub message: String,
    /// What it is about: `worker`, `listener` and so on, and the name.
    pub fields: Vec<(String, String)>,
}

impl Entry {
    /// The entry for a line of the log, with its key-values.
    pub(super) fn of(record: &Record<'_>) -> Entry {
        let mut fields = Fields(Vec::new());
        // `Fields` refuses nothing.
        let _all_taken = record.key_values().visit(&mut fields);
        Entry {
            priority: priority(record.level()),
            message: record.args().to_string(),
            fields: fields.0,
        }
    }

    /// The value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(key, _)| key == name)?;
        Some(value)
    }
}

struct Fields(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let mut told = ValueText(None);
        // The value is absent where there is nothing to tell: an `Option` that is `None`.
        if value.visit(&mut told).is_ok()
            && let Some(text) = told.0
        {
            self.0.push((key.as_str().to_owned(), text));
        }
        Ok(())
    }
}

/// The text of a value, unless it is null.
struct ValueText(Option<String>);

impl<'v> log::kv::VisitValue<'v> for ValueText {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.0 = Some(value.to_string());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The syslog priority of a level (sd-daemon(3)).
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
