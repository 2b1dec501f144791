//! Files as they come: encodings, YAML's darker corners, places, and several files at once.

use std::fmt::Write;
use std::path::Path;

use super::{BASE, errors_of, valid};
use crate::experiment::{LoadError, Loaded, check_names, load, parse};

fn read(text: &str) -> Loaded {
    parse(Path::new("x.yaml"), text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("x.yaml");
    std::fs::write(&path, bytes).expect("a file");
    (directory, path)
}

#[test]
fn a_missing_file_is_a_matter_of_usage() {
    let error = load(Path::new("no/such.yaml"), Path::new(".")).expect_err("no file");
    assert!(matches!(error, LoadError::Read { .. }));
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().starts_with("cannot read no/such.yaml: "));
}

#[test]
fn a_wrong_file_has_the_exit_code_of_wrong_experiments() {
    let (_directory, path) = written(b"nam: x");
    assert_eq!(load(&path, Path::new(".")).expect_err("wrong").exit_code(), 3);
}

#[test]
fn bytes_that_are_not_utf_8_are_shown_with_their_line() {
    let (_directory, path) = written(b"name: x\ndescription: caf\xe9\n");
    let LoadError::Invalid(errors) = load(&path, Path::new(".")).expect_err("not UTF-8") else {
        panic!("a wrong file")
    };
    assert_eq!(errors.list()[0].message, "this is not UTF-8 text");
    assert_eq!(errors.line_column(errors.list()[0].span), (2, 17));
    assert!(errors.render(false).contains("description: caf"));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_nothing() {
    let plain = "name: x\nmodels:\n  m: { path: models/m }\n";
    let windows = format!("\u{feff}{}", plain.replace('\n', "\r\n"));
    assert_eq!(read(&windows).experiment, read(plain).experiment);
    let wrong = parse(Path::new("x.yaml"), &windows.replace("path", "pth")).expect_err("wrong");
    assert_eq!(wrong.line_column(wrong.list()[0].span), (3, 8));
}

#[test]
fn an_empty_file_says_what_it_needs() {
    for text in ["", "# only a comment\n", "\u{feff}"] {
        assert_eq!(errors_of(text), ["this experiment is empty"]);
    }
    assert_eq!(errors_of("- name: x"), ["an experiment must be a mapping, not a list"]);
    assert_eq!(errors_of("name: x\0"), ["a NUL byte: this is not a YAML file"]);
}

#[test]
fn tabs_as_indentation_are_refused_with_a_way_out() {
    let errors = parse(Path::new("x.yaml"), "name: x\nmodels:\n\tm: { path: x }\n").expect_err("a tab");
    assert_eq!(errors.line_column(errors.list()[0].span).0, 3);
    assert_eq!(errors.list()[0].hint.as_deref(), Some("YAML does not take tabs as indentation; use spaces"));
}

#[test]
fn a_key_that_stands_twice_is_refused_with_both_places() {
    let errors =
        parse(Path::new("x.yaml"), "name: x\nmodels:\n  m: { path: a }\n  m: { path: b }\n").expect_err("twice");
    insta::assert_snapshot!(errors.render(false));
}

#[test]
fn a_second_document_is_refused() {
    assert_eq!(errors_of("name: x\n---\nname: y\n"), ["a second document starts here"]);
    assert_eq!(read("---\nname: x\n...\n").experiment.name, "x");
}

#[test]
fn tags_are_refused() {
    assert_eq!(errors_of("name: !!str x"), ["YAML tags (`!…`) have no meaning in an experiment"]);
}

#[test]
fn aliases_and_merge_keys_stand_for_what_they_name() {
    let experiment = valid(
        "merges:
  one: &shared { method: regmean, models: &models [a, b], grams: [ga, gb], alpha: 0.1 }
  two: { <<: *shared, alpha: 0.5 }
  three: { method: average, models: *models }",
    );
    assert_eq!(experiment.merges["two"].grams, ["ga", "gb"]);
    assert_eq!(experiment.merges["two"].alpha, Some(mergelab_wire::Alpha::Number(0.5)));
    assert_eq!(experiment.merges["three"].models.len(), 2);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = String::from("name: x\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{aliases}]").expect("a string");
    }
    assert_eq!(errors_of(&bomb), ["aliases blow this file up to more than 100000 values"]);
    assert_eq!(errors_of("name: &n [*n]"), ["this alias stands inside what it names"]);
}

#[test]
fn deep_nesting_is_refused() {
    let deep = format!("name: {}{}", "[".repeat(70), "]".repeat(70));
    assert_eq!(errors_of(&deep), ["nested deeper than 64 levels"]);
    let blocks: Vec<_> = (0..400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(errors_of(&blocks.concat()), ["nested deeper than 64 levels"]);
}

#[test]
fn lists_of_swept_names_are_bounded() {
    let values: Vec<_> = (0..5000).map(|value| value.to_string()).collect();
    let lists = vec!["m"; 300].join(", ");
    let text = format!(
        "{BASE}merges: {{ m: {{ method: task_arithmetic, models: [a], base: base, sweep: {{ lambda: [{}] }} }} }}\nevals: {{ e: {{ models: [{lists}], tasks: [t] }} }}",
        values.join(", ")
    );
    assert_eq!(errors_of(&text), ["the lists of this file expand to more than 1000000 names"]);
}

#[test]
fn places_are_found_later() {
    let text = "name: x
models:
  base: { path: models/base }
  tuned: { path: models/tuned }
merges:
  alphas: { method: task_arithmetic, models: [tuned], base: base, sweep: { lambda: [0.1, 0.5] } }
evals:
  suite:
    models: [base]
    tasks: [t, { task: u }]
";
    let loaded = read(text);
    let at = |path: &[&str]| loaded.locate(path).map(|range| &text[range]);
    assert_eq!(at(&["models", "base", "path"]), Some("models/base"));
    assert_eq!(at(&["models", "base"]), Some("base"));
    assert_eq!(at(&["merges", "alphas-0.5"]), Some("alphas"));
    assert_eq!(at(&["merges", "alphas-0.5", "lambda"]), Some("lambda"));
    assert_eq!(at(&["evals", "suite", "tasks", "1", "task"]), Some("u"));
    assert_eq!(at(&["models", "base", "path", "deeper"]), Some("models/base"));
    assert_eq!(at(&["nothing"]), None);
}

#[test]
fn an_error_that_shows_later_is_shown_at_its_place() {
    let loaded = read("name: x\nmodels:\n  base: { path: models/base }\n");
    let error = loaded.error_at(&["models", "base", "path"], "no such directory", Some("make it".into()));
    insta::assert_snapshot!(error.render(false));
}

#[test]
fn two_files_of_one_name_are_refused() {
    let one = parse(Path::new("one.yaml"), "name: x\n").expect("valid");
    let two = parse(Path::new("two.yaml"), "# later\nname: x\n").expect("valid");
    let other = parse(Path::new("other.yaml"), "name: y\n").expect("valid");
    assert!(check_names(&[one.clone(), other]).is_ok());
    let errors = check_names(&[one, two]).expect_err("one name");
    insta::assert_snapshot!(errors[0].render(false));
}
