//! Rows that were measured elsewhere, and figures that were not measured alike.

use std::path::PathBuf;

use super::tests::{Project, column, measured};
use super::*;
use crate::experiment::{Elsewhere, Row};

/// A model here and two of another experiment, one of which is the best and was measured on fewer documents.
fn others() -> Project {
    let other = Elsewhere { experiment: "other".to_owned(), file: PathBuf::from("other.yaml") };
    let conditions = |n_shot, n_samples, figure| Measurement { n_shot, n_samples, ..figure };
    let mut project = Project::new(&["mine", "base"], vec![column("t", "acc")]).measured([
        conditions(Some(5), Some(1319), measured("mine", "t", "acc", "", 0.5)),
        conditions(Some(5), Some(1319), measured("base", "t", "acc", "", 0.4)),
    ]);
    project.others = vec![
        conditions(Some(5), Some(200), measured("other/a", "t", "acc", "", 0.7)),
        conditions(Some(1), None, measured("other/b", "t", "acc", "", 0.3)),
    ];
    for model in ["other/a", "other/b", "other/c"] {
        project.tables[0].rows.push(Row { model: model.to_owned(), elsewhere: Some(other.clone()), ..Row::default() });
    }
    project
}

#[test]
fn rows_of_another_experiment_are_neither_tested_nor_kept_here() {
    let mut project = others();
    project.tables[0].baseline = Some("base".to_owned());
    let wanted: Vec<String> = comparisons(&project.inputs()).into_iter().map(|wanted| wanted.model.model).collect();
    assert_eq!(wanted, ["mine"]);
    project.paired =
        comparisons(&project.inputs()).iter().map(|wanted| wanted.with(Err(Untested::NoAnswers))).collect();
    insta::assert_snapshot!(project.markdown());
    let output = render(&project.inputs()).unwrap();
    let results = String::from_utf8(output.files[0].1.clone()).unwrap();
    assert!(!results.contains("other/"), "{results}");
}

#[test]
fn a_figure_in_two_places_of_one_name_is_found_in_neither_by_chance() {
    let mut project = others();
    project.others.push(measured("other/a", "t", "acc", "", 0.8));
    assert_eq!(
        project.refused(),
        "experiment `x`: `acc` (filter ``) of task `t` was measured twice on model `other/a`; give one of the two tasks a \
         `name:` of its own"
    );
}
