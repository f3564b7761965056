//! Transitions, as they are drawn at the types that they are of.

/// Something that becomes something else, and only what its picture shows. The tests hold the picture
/// against what happens, in both directions.
pub(super) trait Picture: std::fmt::Debug + Copy + PartialEq + 'static {
    /// The name of the type.
    const NAME: &'static str;

    /// What may follow at once.
    fn next(self) -> &'static [Self];
}

/// What has happened that no picture shows; for tests.
#[derive(Debug, Clone, Default)]
pub(super) struct Drawn {
    pub(super) missing: Option<String>,
    /// Every transition.
    #[cfg(test)]
    pub(super) seen: std::collections::BTreeSet<String>,
}

impl Drawn {
    /// Holds a change against the picture of its type.
    pub(super) fn hold<T: Picture>(&mut self, from: T, to: T) {
        if from == to {
            return;
        }
        if !from.next().contains(&to) {
            let missing = || format!("{} has no {from:?} → {to:?}", T::NAME);
            self.missing.get_or_insert_with(missing);
        }
        #[cfg(test)]
        self.seen.insert(format!("{}: {from:?} → {to:?}", T::NAME));
    }
}
