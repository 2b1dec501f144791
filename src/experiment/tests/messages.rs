//! How errors look.

use std::path::Path;

use crate::experiment::parse;

/// A file with a mistake in every section.
const MANY: &str = "\
name: many mistakes
modles: {}
models:
  math: { hub: TIGER-Lab/MAmmoTH2-8B }
  code: { hub: org/code, path: models/code }
data:
  math-train:
    hub: TIGER-Lab/WebInstructSub
    rows: ten
    text: \"{{ prompt \"
commands:
  train:
    run: [python, train.py, --out, \"{ouput}\"]
    inputs: { data: { from: command.prep } }
grams:
  math: { model: maths, data: math-train, max_lenght: 256 }
  code: { model: code, data: math-train }
merges:
  avg: { method: avrage, models: [math, code] }
  regmean: { method: regmean, models: [math, code], grams: [code], alpha: 1.1 }
  ties: { method: ties, models: [math, { model: code, wieght: 0.5 }], density: 2 }
  loop: { method: average, models: [avg, loop] }
evals:
  suite:
    models: [math, avg, regmaen]
    backend: vlm
    unsafe_code: yes
settings: { requires: { disk: lots } }
";

#[test]
fn all_errors_of_a_file_are_shown_at_once() {
    let errors = parse(Path::new("experiments/many.yaml"), MANY).expect_err("many mistakes");
    insta::assert_snapshot!(errors.render(false));
}

#[test]
fn colour_is_a_choice() {
    let errors = parse(Path::new("x.yaml"), "name: x\nmodles: {}\n").expect_err("a mistake");
    assert!(errors.render(true).contains("\u{1b}["));
    assert!(!errors.render(false).contains("\u{1b}["));
    assert_eq!(errors.to_string(), errors.render(false));
}

#[test]
fn a_syntax_error_is_shown_with_its_line() {
    let errors = parse(Path::new("x.yaml"), "name: x\nmodels: { m: { path: x }\nmerges: {}\n").expect_err("a mistake");
    insta::assert_snapshot!(errors.render(false));
}

#[test]
fn wide_characters_keep_the_caret_in_place() {
    let errors = parse(Path::new("x.yaml"), "name: x\ndescription: 合併 ünïcode\nmodels: { m: { pfad: 模型 } }\n")
        .expect_err("a mistake");
    insta::assert_snapshot!(errors.render(false));
}
