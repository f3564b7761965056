//! "Did you mean …?"

/// Words of more letters are not compared.
const LONGEST: usize = 64;
/// So many bytes of choices are listed at most.
const LISTED: usize = 2000;

/// The candidate nearest to what was written, if one is near enough to be a typing mistake.
///
/// Distance is Damerau-Levenshtein, so that swapped letters count once; case does not count.
pub fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let length = lower.chars().count();
    // What is that long was not typed, and comparing takes the square of it.
    if length > LONGEST {
        return None;
    }
    // A third of the letters may differ: `lisners` is near `listeners`, `foo` is near nothing.
    let allowed = (length.max(3) / 3).min(4);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 4 * LONGEST)
        .map(|candidate| {
            let other = candidate.to_lowercase();
            (strsim::damerau_levenshtein(&lower, &other), candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, candidate)| (*distance, candidate.len()))
        .map(|(_, candidate)| candidate)
}

/// The hint for an unknown word: the nearest candidate, or all of them where they are few.
pub fn did_you_mean<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(candidate) = nearest(written, candidates.clone()) {
        return Some(format!("did you mean `{candidate}`?"));
    }
    let mut all: Vec<&str> = candidates.into_iter().take(41).collect();
    if all.is_empty() || all.len() > 40 || all.iter().map(|name| name.len()).sum::<usize>() > LISTED
    {
        return None;
    }
    all.sort_unstable();
    let list: Vec<String> = all.iter().map(|name| format!("`{name}`")).collect();
    Some(format!("known here: {}", list.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_mistake_is_recognised() {
        let keys = ["listeners", "workers"];
        assert_eq!(nearest("listners", keys), Some("listeners"));
        assert_eq!(nearest("Listeners", keys), Some("listeners"));
        assert_eq!(nearest("wrokers", keys), Some("workers"));
        assert_eq!(nearest("sockets", keys), None);
    }

    #[test]
    fn where_nothing_is_near_the_few_choices_are_listed() {
        assert_eq!(
            did_you_mean("zebra", ["b", "a"]).as_deref(),
            Some("known here: `a`, `b`")
        );
        assert_eq!(did_you_mean("zebra", []), None);
    }
}
