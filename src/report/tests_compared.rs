//! Tables that hold models against each other: tests against a baseline, means over columns.

use std::path::Path;

use super::tests::{Project, column, measured, published, with_stderr};
use super::*;
use crate::experiment::{Bold, Column, Mean, MeanOf, TableColumn};

fn mean(of: MeanOf, label: &str, columns: &[usize]) -> TableColumn {
    TableColumn::Mean(Mean {
        mean: of,
        of: columns.to_vec(),
        label: label.to_owned(),
        note: None,
        digits: None,
        unit: None,
        at: None,
    })
}

fn specialist(model: &str, column: Column) -> Column {
    Column { specialist: Some(model.to_owned()), ..column }
}

fn finding(difference: f64, p: f64) -> Finding {
    Finding { n: 200, difference, stderr: Some(0.03), test: PairedTest::McNemar, p }
}

/// What came of what the tables ask for, by model and task; of the rest single documents have no score.
fn found(project: &mut Project, results: &[(&str, &str, Result<Finding, Untested>)]) {
    project.paired = comparisons(&project.inputs())
        .iter()
        .map(|wanted| {
            let here = |(model, task, _): &&(&str, &str, _)| (*model, *task) == (&wanted.model.model, &wanted.task);
            wanted.with(results.iter().find(here).map_or(Err(Untested::NoScores), |(_, _, result)| *result))
        })
        .collect();
}

/// Exact match, bits per byte and a rate that two models lack, with a normalized mean.
fn papers() -> Project {
    let columns = vec![
        specialist("math", Column { label: Some("MATH".to_owned()), ..column("math", "exact_match") }),
        specialist("code", Column { digits: Some(3), ..column("text", "bits_per_byte") }),
        column("mbpp", "pass@1"),
    ];
    let mut project = Project::new(&["base", "math", "code", "avg", "ties"], columns);
    let table = &mut project.tables[0];
    table.columns.push(mean(MeanOf::Normalized, "Normalized", &[0, 1]));
    table.baseline = Some("avg".to_owned());
    table.published = None;
    table.rows[1].label = Some("Math".to_owned());
    table.rows[3].label = Some("Average".to_owned());
    let math = [("base", 0.1), ("math", 0.5), ("code", 0.2), ("avg", 0.3), ("ties", 0.4)];
    let text = [("base", 1.25), ("math", 1.0), ("code", 0.8), ("avg", 1.0)];
    let mbpp = [("base", 0.1), ("code", 0.3), ("avg", 0.2)];
    project.measured = Vec::new();
    project
        .measured
        .extend(math.map(|(model, value)| with_stderr(0.03, measured(model, "math", "exact_match", "", value))));
    project
        .measured
        .extend(text.map(|(model, value)| with_stderr(0.02, measured(model, "text", "bits_per_byte", "", value))));
    project.measured.extend(mbpp.map(|(model, value)| measured(model, "mbpp", "pass@1", "", value)));
    let results = [
        ("base", "math", Ok(finding(-0.2, 0.001))),
        ("math", "math", Ok(finding(0.2, 1.2e-9))),
        ("code", "math", Ok(finding(-0.1, 0.05))),
        ("ties", "math", Ok(finding(0.1, 0.049))),
        ("base", "text", Ok(finding(0.25, 0.0002))),
        ("math", "text", Ok(finding(0.0, 1.0))),
        ("code", "text", Ok(finding(-0.2, 0.0002))),
        ("base", "mbpp", Err(Untested::NoAnswers)),
    ];
    found(&mut project, &results);
    project
}

#[test]
fn a_table_with_a_baseline_and_a_mean_in_every_format() {
    let grid = papers().grid();
    insta::assert_snapshot!("papers.md", markdown(&grid));
    insta::assert_snapshot!("papers.tex", latex(&grid));
    insta::assert_snapshot!("papers.html", html(&grid));
    insta::assert_snapshot!("papers.csv", sheet(&grid));
}

#[test]
fn hostile_names_break_no_mark_and_no_remark() {
    let mut project = papers();
    let table = &mut project.tables[0];
    table.rows[3].label = Some("a|b `c` <script> & \\ $x$ 100% _ ↑\n{y}".to_owned());
    table.rows[4].label = Some("=HYPERLINK(1) שלום".to_owned());
    for column in &mut table.columns {
        match column {
            TableColumn::Metric(column) if column.task == "math" => column.label = Some("| <b> ↓ _".to_owned()),
            TableColumn::Metric(_) => {}
            TableColumn::Mean(mean) => mean.label = "-- [m](x) & ↑ |".to_owned(),
        }
    }
    let grid = project.grid();
    insta::assert_snapshot!("hostile_papers.md", markdown(&grid));
    insta::assert_snapshot!("hostile_papers.tex", latex(&grid));
    insta::assert_snapshot!("hostile_papers.html", html(&grid));
    insta::assert_snapshot!("hostile_papers.csv", sheet(&grid));
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    assert!(markdown(&grid).lines().take(7).all(|line| columns(line) == 6));
    assert!(!html(&grid).contains("<script") && !html(&grid).contains("<b>"));
}

#[test]
fn tests_are_written_beside_the_figures_and_read_back_without_a_store() {
    let root = tempfile::tempdir().unwrap();
    let read = |path: &Path| files::read(&root.path().join(path));
    let project = papers();
    let output = render(&project.inputs()).unwrap();
    let names: Vec<_> = output.files.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names[..3], ["results.csv", "metrics.csv", "paired.csv"]);
    files::write(root.path(), &changes(&[output], read).unwrap()).unwrap();
    let measured = files::measured(root.path(), "x").unwrap().unwrap();
    let paired = files::paired(root.path(), "x").unwrap();
    assert_eq!(paired, project.paired);
    let mut again = Project { measured, paired, ..papers() };
    // What no table asks for any more is left out.
    again.paired.push(Paired { task: "gone".to_owned(), ..again.paired[0].clone() });
    assert_eq!(render(&again.inputs()).unwrap(), render(&project.inputs()).unwrap());
}

#[test]
fn tests_that_are_missing_or_of_other_evaluations_are_no_tests() {
    let mut project = papers();
    project.paired.remove(0);
    project.paired[1].model.key = "cd34".to_owned();
    project.paired[2].baseline.key = "ef56".to_owned();
    insta::assert_snapshot!(project.refused());
}

#[test]
fn only_measured_rows_with_a_direction_are_tested_each_once() {
    let mut project = papers();
    let wanted = |project: &Project| {
        let wanted = comparisons(&project.inputs());
        wanted.iter().map(|one| format!("{} {}", one.task, one.model.model)).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        wanted(&project),
        "math base, math math, math code, math ties, text base, text math, text code, mbpp base, mbpp code"
    );
    let rows = &mut project.tables[0].rows;
    rows.push(rows[0].clone());
    project.measured.retain(|figure| figure.task == "math");
    project.tables[0].columns.truncate(1);
    assert_eq!(wanted(&project), "math base, math math, math code, math ties");
    project.measured.retain(|figure| figure.model != "avg");
    assert_eq!(wanted(&project), "");
    assert!(project.markdown().contains("Not tested: MATH (Average was not measured)\n"), "{}", project.markdown());

    let mut latency = Project::new(&["a", "b"], vec![column("t", "latency")])
        .measured([measured("a", "t", "latency", "", 1.0), measured("b", "t", "latency", "", 2.0)]);
    latency.tables[0].baseline = Some("a".to_owned());
    assert_eq!(wanted(&latency), "");
    assert!(latency.markdown().contains("Not tested: t (nobody says which way is better)"), "{}", latency.markdown());
}

#[test]
fn a_published_figure_is_not_tested_and_has_no_part_in_a_mean() {
    let mut project = Project::new(&["a", "b"], vec![column("t", "acc"), column("u", "acc")])
        .measured([measured("a", "t", "acc", "none", 0.5), measured("a", "u", "acc", "none", 0.7)])
        .published([published("b", "t", "acc", 0.9, "A", "")]);
    project.tables[0].columns.push(mean(MeanOf::Scores, "Mean", &[0, 1]));
    project.tables[0].baseline = Some("a".to_owned());
    assert!(comparisons(&project.inputs()).is_empty());
    insta::assert_snapshot!(project.markdown());
}

/// The cells of the last column.
fn last_column(project: &Project) -> Vec<String> {
    let text = project.markdown();
    let lines = text.lines().skip(2).take_while(|line| line.starts_with('|'));
    lines.map(|line| line.trim_end_matches(" |").rsplit("| ").next().unwrap().to_owned()).collect()
}

#[test]
fn means_and_their_errors_are_those_computed_by_hand() {
    // Base: 100 · 0.1 / 0.5 = 20 and 100 · 0.8 / 1.25 = 64, with 100 · 0.03 / 0.5 = 6 and
    // 100 · 0.8 · 0.02 / 1.25² = 1.024: √(6² + 1.024²) / 2 = 3.0434. Math: 100, without an error, and 80 with
    // 100 · 0.8 · 0.02 / 1² = 1.6. Code: 40 with 6, and 100 without. Average: 60 with 6 and 80 with 1.6.
    let expected = ["42.00 ± 3.04", "**90.00** ± 0.80", "70.00 ± 3.00", "70.00 ± 3.10", "— (b)"];
    assert_eq!(last_column(&papers()), expected);
}

#[test]
fn a_mean_of_scores_is_that_of_the_values_shown() {
    let mut project = Project::new(&["a", "b"], vec![column("t", "acc"), column("u", "f1")]).measured([
        with_stderr(0.03, measured("a", "t", "acc", "", 0.5)),
        with_stderr(0.04, measured("a", "u", "f1", "", 0.6)),
        with_stderr(0.03, measured("b", "t", "acc", "", 0.75)),
        measured("b", "u", "f1", "", 0.5),
    ]);
    project.tables[0].columns.push(mean(MeanOf::Scores, "Mean", &[0, 1]));
    assert_eq!(last_column(&project), ["55.00 ± 2.50", "**62.50**"]);
    assert!(project.markdown().ends_with("<br>\nMean: mean over t, u\n"), "{}", project.markdown());
}

#[test]
fn a_mean_over_what_does_not_go_together_is_refused() {
    let mut project = papers();
    project.tables[0].columns.push(mean(MeanOf::Scores, "All", &[0, 1]));
    let two = vec![column("t", "acc"), Column { scale: Some(1.0), ..column("u", "acc") }, column("v", "latency")];
    let mut scales = Project::new(&["a"], two).measured([measured("a", "v", "latency", "", 1.0)]);
    let columns = &mut scales.tables[0].columns;
    columns.push(mean(MeanOf::Scores, "Mean", &[0, 1]));
    let TableColumn::Metric(latency) = &mut columns[2] else { panic!("a metric") };
    latency.specialist = Some("a".to_owned());
    columns.push(mean(MeanOf::Normalized, "Share", &[2]));
    insta::assert_snapshot!([project.refused(), scales.refused()].join("\n"));
}

#[test]
fn a_share_of_nothing_is_no_share() {
    let columns = vec![specialist("b", column("t", "acc"))];
    let mut project = Project::new(&["a", "b"], columns)
        .measured([measured("a", "t", "acc", "", 0.5), measured("b", "t", "acc", "", 0.0)]);
    project.tables[0].columns.push(mean(MeanOf::Normalized, "Share", &[0]));
    assert!(project.markdown().contains("(a) no mean: a share of what is not above 0 on t"), "{}", project.markdown());
    project.measured.pop();
    assert!(project.markdown().contains("no mean without b on t"), "{}", project.markdown());
}

#[test]
fn what_a_test_does_not_tell_from_the_best_is_bold_where_asked_for() {
    let mut project = papers();
    let table = &mut project.tables[0];
    (table.baseline, table.bold) = (None, Bold::NotWorse);
    table.columns.truncate(1);
    let wanted = comparisons(&project.inputs());
    assert!(wanted.iter().all(|one| one.baseline.model == "math") && wanted.len() == 4);
    let results = [
        ("base", "math", Ok(finding(-0.4, 1e-9))),
        ("code", "math", Ok(finding(-0.3, 0.049))),
        ("avg", "math", Ok(finding(-0.2, 0.05))),
    ];
    found(&mut project, &results);
    insta::assert_snapshot!(project.markdown());
}

#[test]
fn the_second_best_is_underlined_where_asked_for() {
    let mut project = papers();
    let table = &mut project.tables[0];
    (table.baseline, table.second) = (None, true);
    let grid = project.grid();
    insta::assert_snapshot!("second.md", markdown(&grid));
    assert!(latex(&grid).contains(r"& \underline{40.00} $\pm$ 3.00"), "{}", latex(&grid));
    assert!(html(&grid).contains("<td><u>40.00</u> ± 3.00</td>"), "{}", html(&grid));
}
