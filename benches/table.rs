//! The table of results, the same on the terminal and in the Markdown file.

use crate::machine::Memory;
use crate::statistics::Samples;
use std::fmt::Write;

/// One measured value and what is asked of it.
pub struct Row {
    name: String,
    ours: String,
    baseline: String,
    ratio: String,
    target: String,
    verdict: Verdict,
}

/// What a row says about its target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The target is met.
    Met,
    /// The target is missed.
    Missed,
    /// The value has no target.
    Information,
    /// Not measured, because this machine lacks something.
    Skipped,
    /// Not measured, because something went wrong.
    Failed,
}

const NONE: &str = "–";

/// What is asked of a ratio of ours to the baseline.
#[derive(Clone, Copy)]
pub enum Target {
    /// Of times: less is better.
    AtMost(f64),
    /// Of speeds: more is better.
    AtLeast(f64),
}

impl Target {
    fn allows(self, ratio: f64) -> bool {
        match self {
            Target::AtMost(limit) => ratio <= limit,
            Target::AtLeast(limit) => ratio >= limit,
        }
    }

    fn show(self) -> String {
        match self {
            Target::AtMost(limit) => format!("≤ {limit}×"),
            Target::AtLeast(limit) => format!("≥ {limit}×"),
        }
    }
}

impl Row {
    /// A comparison: the ratio of the medians may be at most `target`.
    pub fn ratio(name: &str, ours: &Samples, baseline: &Samples, target: Option<f64>) -> Row {
        let ratio = ours.median().as_secs_f64() / baseline.median().as_secs_f64();
        let target = target.map(Target::AtMost);
        Row::compared(name, ours.show(), baseline.show(), ratio, target)
    }

    /// A comparison whose ratio has been worked out.
    pub fn compared(
        name: &str,
        ours: String,
        baseline: String,
        ratio: f64,
        target: Option<Target>,
    ) -> Row {
        Row {
            name: name.to_owned(),
            ours,
            baseline,
            ratio: format!("{ratio:.2}"),
            target: target.map_or(NONE.to_owned(), Target::show),
            verdict: target.map_or(Verdict::Information, |target| met(target.allows(ratio))),
        }
    }

    /// A value that may be at most `limit`.
    pub fn at_most(name: &str, value: f64, limit: f64, unit: &str) -> Row {
        Row {
            target: if limit == 0.0 {
                "0".to_owned()
            } else {
                format!("≤ {limit} {unit}").trim_end().to_owned()
            },
            verdict: met(value <= limit),
            ..Row::information(name, number(value, unit))
        }
    }

    /// A value without a target.
    pub fn information(name: &str, value: impl Into<String>) -> Row {
        Row {
            name: name.to_owned(),
            ours: value.into(),
            baseline: NONE.to_owned(),
            ratio: NONE.to_owned(),
            target: NONE.to_owned(),
            verdict: Verdict::Information,
        }
    }

    /// The same row with the baseline's value beside ours.
    pub fn beside(self, baseline: impl Into<String>) -> Row {
        Row {
            baseline: baseline.into(),
            ..self
        }
    }

    /// Something that this machine cannot measure.
    pub fn skipped(name: &str, why: &str) -> Row {
        Row {
            verdict: Verdict::Skipped,
            ..Row::information(name, why)
        }
    }

    /// Something that could not be measured although it should have been.
    pub fn failed(name: &str, why: &str) -> Row {
        // The first line: the whole story is on standard error.
        Row {
            verdict: Verdict::Failed,
            ..Row::information(name, why.lines().next().unwrap_or_default())
        }
    }

    /// Whether the run should end with an error.
    pub fn is_bad(&self) -> bool {
        matches!(self.verdict, Verdict::Missed | Verdict::Failed)
    }

    fn cells(&self) -> [&str; 6] {
        let verdict = match self.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Information => NONE,
            Verdict::Skipped => "skipped",
            Verdict::Failed => "FAILED",
        };
        [
            &self.name,
            &self.ours,
            &self.baseline,
            &self.ratio,
            &self.target,
            verdict,
        ]
    }
}

/// The memory of a process: what is resident has a limit, in MiB; the peak and, where /proc tells,
/// the proportional share are for information.
pub fn memory(prefix: &str, memory: &Memory, limit: f64) -> Vec<Row> {
    let others = [
        ("peak", Some(memory.peak)),
        ("proportional", memory.proportional),
    ];
    let resident = as_mebibytes(memory.resident);
    std::iter::once(Row::at_most(
        &format!("{prefix}resident"),
        resident,
        limit,
        "MiB",
    ))
    .chain(others.into_iter().filter_map(|(what, bytes)| {
        Some(Row::information(
            &format!("{prefix}{what}"),
            mebibytes(bytes?),
        ))
    }))
    .collect()
}

/// Bytes in words.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.2} MiB", as_mebibytes(bytes))
}

fn as_mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A number with its unit; whole numbers without a fraction.
fn number(value: f64, unit: &str) -> String {
    let digits = usize::from(value.fract() != 0.0) * 2;
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

fn met(yes: bool) -> Verdict {
    if yes { Verdict::Met } else { Verdict::Missed }
}

/// A Markdown table with aligned columns.
pub fn render(rows: &[Row]) -> String {
    let heading = ["name", "ours", "baseline", "ratio", "target", "verdict"];
    let lines: Vec<[&str; 6]> = std::iter::once(heading)
        .chain(rows.iter().map(Row::cells))
        .collect();
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or_default()
    });

    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for width in widths {
                let _ = write!(text, "|{:-<1$}", "", width + 2);
            }
            text.push_str("|\n");
        }
    }
    text
}
