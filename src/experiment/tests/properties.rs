//! What holds for every input.

use std::collections::HashSet;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::DESIGN;
use crate::experiment::parse;

/// Reads a text; when it is wrong, shows why, which must not panic either.
fn read(text: &str) {
    match parse(Path::new("x.yaml"), text) {
        Ok(loaded) => {
            for name in loaded.experiment.merges.keys() {
                let place = loaded.locate(&["merges", name]).expect("every merge has a place");
                assert!(loaded.source().get(place).is_some());
            }
        }
        Err(errors) => {
            assert!(!errors.list().is_empty());
            assert!(errors.render(false).contains("error"));
        }
    }
}

/// Pieces from which files that are nearly right can be made.
fn piece() -> impl Strategy<Value = String> {
    let words: Vec<&'static str> = vec![
        "name",
        "models",
        "data",
        "grams",
        "merges",
        "evals",
        "tables",
        "settings",
        "commands",
        "sweep",
        "alpha",
        "method",
        "regmean",
        "average",
        "mergekit",
        "path",
        "hub",
        "from",
        "commands.x",
        "rows",
        "text",
        "messages",
        "run",
        "inputs",
        "a",
        "b",
        "x",
        ": ",
        ":\n  ",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "<<: ",
        "\"",
        "'",
        "|\n",
        "# ",
        "0.1",
        "1",
        "-1",
        ".inf",
        "true",
        "~",
        "\t",
        "\r\n",
        "---\n",
        "!!str ",
        "%",
        "{{ x }}",
        "{out}",
        "é",
        "\u{feff}",
        "合",
    ];
    prop::sample::select(words).prop_map(str::to_owned)
}

/// A value that can stand in a name.
fn value() -> impl Strategy<Value = String> {
    "[0-9a-b][0-9a-b.-]{0,2}"
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        read(&text);
    }

    #[test]
    fn no_text_of_yaml_pieces_panics(pieces in vec(piece(), 0..60)) {
        read(&format!("name: x\n{}", pieces.concat()));
    }

    #[test]
    fn no_damaged_experiment_panics(at in 0..DESIGN.len(), len in 0..40_usize, piece in piece()) {
        let cut = |at: usize| (0..=at.min(DESIGN.len())).rev().find(|at| DESIGN.is_char_boundary(*at)).unwrap_or(0);
        read(&format!("{}{piece}{}", &DESIGN[..cut(at)], &DESIGN[cut(at + len)..]));
    }

    #[test]
    fn expansions_never_share_a_name(
        sweeps in vec(("[ab](-[ab]){0,2}", vec(value(), 1..4), vec(value(), 0..3)), 1..5)
    ) {
        let mut text = String::from("name: x\ncommands:\n");
        for (name, p, q) in &sweeps {
            let p = p.join(", ");
            let (argument, q) = match q.join(", ") {
                q if q.is_empty() => ("", String::new()),
                q => (", '{q}'", format!(", q: [{q}]")),
            };
            let entry = format!("  {name}: {{ run: [x, '{{p}}'{argument}], sweep: {{ p: [{p}]{q} }} }}\n");
            text.push_str(&entry);
        }
        if let Ok(loaded) = parse(Path::new("x.yaml"), &text) {
            // Every combination is there; one that took another's name would be missing.
            let expected: usize = sweeps.iter().map(|(_, p, q)| p.len() * q.len().max(1)).sum();
            prop_assert_eq!(loaded.experiment.commands.len(), expected);
            let runs: HashSet<_> = loaded.experiment.commands.iter().map(|(name, command)| (name, &command.run)).collect();
            prop_assert_eq!(runs.len(), expected);
        }
    }
}
