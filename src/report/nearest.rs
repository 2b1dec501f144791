//! Which of the names that exist somebody may have meant.

/// The name of `available` that is nearest to `wanted`: a slip of the pen away, or with the same beginning; `None` if
/// there is none.
pub(crate) fn nearest(wanted: &str, available: &[String]) -> Option<String> {
    let wanted = wanted.to_lowercase();
    available
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&wanted, &name.to_lowercase()), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= 1.max(wanted.chars().count().max(name.chars().count()) / 3))
        .map(|(_, name)| name)
        .or_else(|| available.iter().find(|name| !wanted.is_empty() && name.to_lowercase().starts_with(&wanted)))
        .cloned()
}

/// Names for a sentence: `` `a`, `b` ``, or `nothing`; an empty name as `""`.
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let quoted = |name: &str| if name.is_empty() { "`\"\"`".to_owned() } else { format!("`{name}`") };
    names.iter().map(|name| quoted(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Ends a sentence about an unknown name: `; did you mean …?`, or nothing.
pub(crate) fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::nearest;

    fn names() -> Vec<String> {
        ["exact_match", "acc", "acc_norm"].map(String::from).to_vec()
    }

    #[test]
    fn a_slip_of_the_pen_finds_its_name() {
        assert_eq!(nearest("exactmatch", &names()).as_deref(), Some("exact_match"));
        assert_eq!(nearest("ACC_NORM", &names()).as_deref(), Some("acc_norm"));
        assert_eq!(nearest("exact", &names()).as_deref(), Some("exact_match"));
    }

    #[test]
    fn a_name_that_is_near_nothing_gets_no_suggestion() {
        assert_eq!(nearest("perplexity", &names()), None);
        assert_eq!(nearest("acc", &[]), None);
    }
}
