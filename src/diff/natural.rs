//! The order of names in which 2 comes before 10.

use std::cmp::Ordering;

/// Compares names by their runs of digits and what stands between them.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let ordering = match (next(&mut a), next(&mut b)) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(one), Some(other)) => match (is_number(one), is_number(other)) {
                (true, true) => {
                    let [plain, also] = [one, other].map(|digits| digits.trim_start_matches('0'));
                    plain.len().cmp(&also.len()).then(plain.cmp(also)).then(one.len().cmp(&other.len()))
                }
                _ => one.cmp(other),
            },
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

fn is_number(run: &str) -> bool {
    run.starts_with(|c: char| c.is_ascii_digit())
}

/// Takes the next run of digits, or of anything else.
fn next<'a>(text: &mut &'a str) -> Option<&'a str> {
    let first = text.chars().next()?.is_ascii_digit();
    let end = text.find(|c: char| c.is_ascii_digit() != first).unwrap_or(text.len());
    let (run, rest) = text.split_at(end);
    *text = rest;
    Some(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_in_order_of_their_size() {
        let mut names = ["l.10.a", "l.9.b", "l.9.a", "l", "l.010.a", "norm", "l.2", "x18446744073709551616", "x2", ""];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(
            names,
            ["", "l", "l.2", "l.9.a", "l.9.b", "l.10.a", "l.010.a", "norm", "x2", "x18446744073709551616"]
        );
    }
}
