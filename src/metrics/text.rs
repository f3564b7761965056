//! A page as OpenMetrics text, piece by piece.

use super::family::{FAMILIES, Family};
use super::page::Page;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::Arc;

/// The largest number of rows in one piece: well under a millisecond.
const ROWS: usize = 256;

/// A page on its way to text.
#[derive(Debug)]
pub struct Rendering {
    page: Arc<Page>,
    /// Index into the families, and the next row of that.
    family: usize,
    row: usize,
    text: String,
}

impl Rendering {
    /// A rendering of which nothing is written yet.
    pub fn new(page: Page) -> Rendering {
        Rendering {
            page: Arc::new(page),
            family: 0,
            row: 0,
            text: String::new(),
        }
    }

    /// Writes the next piece; the whole text after the last one.
    pub fn step(&mut self) -> Option<String> {
        let mut left = ROWS;
        while left > 0 {
            let Some(family) = FAMILIES.get(self.family) else {
                // Writing to a string does not fail.
                let _never = encode_eof(&mut self.text);
                return Some(std::mem::take(&mut self.text));
            };
            let rows = family.rows(&self.page);
            let end = rows.min(self.row + left);
            self.piece(family, self.row..end);
            // A family without rows costs its heading.
            left -= (end - self.row).max(1);
            self.row = end;
            if end == rows {
                self.family += 1;
                self.row = 0;
            }
        }
        None
    }

    /// Appends some rows of a family. The encoder writes a heading above whatever it is given, but
    /// a family may have only one.
    fn piece(&mut self, family: &'static Family, rows: Range<usize>) {
        let is_first = rows.start == 0;
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Piece {
            page: Arc::clone(&self.page),
            family,
            rows,
        }));
        let mut piece = String::new();
        // Writing to a string does not fail.
        let _never = encode_registry(&mut piece, &registry);
        let mut series = piece.as_str();
        while series.starts_with('#') {
            let (line, rest) = series.split_once('\n').unwrap_or((series, ""));
            if is_first {
                self.text.push_str(line);
                self.text.push('\n');
            }
            series = rest;
        }
        self.text.push_str(series);
    }
}

/// OpenMetrics text in the text format 0.0.4 of Prometheus, which has no units, no infos and no end,
/// and names the series in its headings.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    // The help of a family stands before its type, which decides its name.
    let mut help = "";
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let heading = [words.next(), words.next(), words.next(), words.next()];
        let added = match heading.map(Option::unwrap_or_default) {
            ["#", "HELP", _, text] => {
                help = text;
                continue;
            }
            ["#", "TYPE", name, kind] => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    _ => ("", kind),
                };
                writeln!(
                    plain,
                    "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}"
                )
            }
            ["#", ..] => continue,
            _ => writeln!(plain, "{line}"),
        };
        // Writing to a string does not fail.
        let _never = added;
    }
    plain
}

/// Some rows of a family, as the encoder wants them.
struct Piece {
    page: Arc<Page>,
    family: &'static Family,
    rows: Range<usize>,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.family.name, self.rows)
    }
}

impl Collector for Piece {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let unit = self.family.unit();
        let mut metric = encoder.encode_descriptor(
            self.family.name,
            self.family.help(),
            unit.as_ref(),
            self.family.metric_type(),
        )?;
        self.family
            .encode(&self.page, self.rows.clone(), &mut metric)
    }
}
