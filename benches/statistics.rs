//! Repeated measurements: taken in turn, and summed up by their median.

use crate::machine::Result;
use std::time::Duration;

/// Runs `ours` and `baseline` in turn, `rounds` times each, after one round that is not counted.
///
/// In turn, because the load of a shared machine drifts: what slows one side down slows the other
/// one as well. One round is thrown away because it pays for page cache and the first allocation
/// of the kernel's tables.
pub fn in_turn<T>(
    rounds: usize,
    mut ours: impl FnMut() -> Result<T>,
    mut baseline: impl FnMut() -> Result<T>,
) -> Result<(Vec<T>, Vec<T>)> {
    ours()?;
    baseline()?;
    let mut results = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        results.0.push(ours()?);
        results.1.push(baseline()?);
    }
    Ok(results)
}

/// A sorted, non-empty list of durations.
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Panics on an empty list: no benchmark runs zero rounds.
    pub fn new(samples: impl IntoIterator<Item = Duration>) -> Samples {
        let mut samples: Vec<Duration> = samples.into_iter().collect();
        assert!(!samples.is_empty(), "at least one sample");
        samples.sort_unstable();
        Samples(samples)
    }

    /// The sample below which this share of the others lies: 0.5 is the median.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.0.len() - 1;
        self.0[(last as f64 * share).round() as usize]
    }

    /// The middle one.
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// The median, with the smallest and the largest in brackets.
    pub fn show(&self) -> String {
        format!(
            "{:.1} ms ({:.1}–{:.1})",
            millis(self.median()),
            millis(self.quantile(0.0)),
            millis(self.quantile(1.0))
        )
    }
}

/// Milliseconds with fractions.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
