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

/// A non-empty list of numbers in the order in which they were measured.
pub struct Numbers(Vec<f64>);

impl Numbers {
    /// Panics on an empty list: no benchmark runs zero rounds.
    pub fn new(numbers: impl IntoIterator<Item = f64>) -> Numbers {
        let numbers: Vec<f64> = numbers.into_iter().collect();
        assert!(!numbers.is_empty(), "at least one number");
        Numbers(numbers)
    }

    /// Each of them, in that order.
    pub fn each(&self) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().copied()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted[sorted.len() / 2]
    }

    /// The median, with the smallest and the largest in brackets.
    pub fn show(&self, digits: usize, unit: &str) -> String {
        let sorted = self.sorted();
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        let median = self.median();
        format!("{median:.digits$}{unit} ({least:.digits$}–{most:.digits$})")
    }
}

/// The median of the ratios of the rounds. What disturbed one round disturbed both sides of it, so
/// this moves less than the ratio of the medians.
pub fn median_ratio(ours: &Numbers, baseline: &Numbers) -> f64 {
    let ratios = ours.0.iter().zip(&baseline.0).map(|(our, its)| our / its);
    Numbers::new(ratios).median()
}

/// Milliseconds with fractions.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
