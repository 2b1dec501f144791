//! From figures to files: what the parts do together.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::*;
use crate::experiment::{Bold, Column, Notation, Row, Table, TableColumn};

pub(super) fn measured(model: &str, task: &str, metric: &str, filter: &str, value: f64) -> Measurement {
    Measurement {
        model: model.to_owned(),
        task: task.to_owned(),
        metric: metric.to_owned(),
        filter: Some(filter.to_owned()).filter(|name| !name.is_empty()),
        n_shot: None,
        value,
        stderr: None,
        n_samples: None,
        higher_is_better: None,
        source: Source::Measured,
        key: Some("ab12".to_owned()),
        citation: None,
        note: None,
    }
}

pub(super) fn with_stderr(stderr: f64, figure: Measurement) -> Measurement {
    Measurement { stderr: Some(stderr), ..figure }
}

pub(super) fn published(model: &str, task: &str, metric: &str, value: f64, citation: &str, note: &str) -> Measurement {
    let note = Some(note.to_owned()).filter(|note| !note.is_empty());
    let (source, key, citation) = (Source::Published, None, Some(citation.to_owned()));
    Measurement { source, key, citation, note, ..measured(model, task, metric, "", value) }
}

pub(super) fn column(task: &str, metric: &str) -> Column {
    let (task, metric) = (task.to_owned(), metric.to_owned());
    Column {
        task,
        metric,
        filter: None,
        label: None,
        note: None,
        scale: None,
        digits: None,
        notation: Notation::Fixed,
        specialist: None,
        unit: None,
        link: None,
        at: None,
    }
}

pub(super) fn row(model: &str) -> Row {
    Row { model: model.to_owned(), ..Row::default() }
}

pub(super) fn table() -> Table {
    Table {
        rows: Vec::new(),
        columns: Vec::new(),
        turned: false,
        across: None,
        baseline: None,
        bold: Bold::Best,
        second: false,
        published: None,
        comparison: false,
        into: None,
    }
}

/// A small experiment: one table, more on request.
#[derive(Default)]
pub(super) struct Project {
    pub(super) tables: IndexMap<String, Table>,
    pub(super) measured: Vec<Measurement>,
    pub(super) others: Vec<Measurement>,
    pub(super) published: IndexMap<PathBuf, Vec<Measurement>>,
    pub(super) paired: Vec<Paired>,
    pub(super) absent: Absent,
}

impl Project {
    pub(super) fn new(models: &[&str], columns: Vec<Column>) -> Self {
        let published = Some(PathBuf::from("published.csv"));
        let columns = columns.into_iter().map(TableColumn::Metric).collect();
        let table = Table { rows: models.iter().map(|model| row(model)).collect(), columns, published, ..table() };
        let published = IndexMap::from([(PathBuf::from("published.csv"), Vec::new())]);
        Self { tables: IndexMap::from([("main".to_owned(), table)]), published, ..Self::default() }
    }

    pub(super) fn measured(mut self, figures: impl IntoIterator<Item = Measurement>) -> Self {
        self.measured.extend(figures);
        self
    }

    pub(super) fn published(mut self, figures: impl IntoIterator<Item = Measurement>) -> Self {
        self.published[0].extend(figures);
        self
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        let Self { tables, measured, others, published, paired, absent } = self;
        Inputs { experiment: "x", tables, measured, others, published, paired, absent }
    }

    pub(super) fn grid(&self) -> Grid {
        grids(&self.inputs()).unwrap().remove(0)
    }

    pub(super) fn markdown(&self) -> String {
        markdown(&self.grid())
    }

    pub(super) fn refused(&self) -> String {
        grids(&self.inputs()).unwrap_err().to_string()
    }

    /// The cells of the first column, in Markdown.
    pub(super) fn first_column(&self) -> Vec<String> {
        let text = self.markdown();
        let lines = text.lines().skip(2).take_while(|line| line.starts_with('|'));
        lines.map(|line| line.split('|').nth(2).unwrap().trim().to_owned()).collect()
    }
}

/// Measured beside published, missing for two reasons, notes under headings, scales and digits of their own.
fn ordinary() -> Project {
    let gsm8k = Column {
        filter: Some("flexible-extract".to_owned()),
        label: Some("GSM8k (Math)".to_owned()),
        note: Some("5-shot EM".to_owned()),
        ..column("gsm8k", "exact_match")
    };
    let bits = Column { label: Some("Bits per byte".to_owned()), digits: Some(4), ..column("text", "bits_per_byte") };
    let mut project = Project::new(&["math", "code", "avg"], vec![gsm8k, column("mbpp", "pass_at_1"), bits])
        .measured([
            with_stderr(0.0125, measured("math", "gsm8k", "exact_match", "flexible-extract", 0.681)),
            measured("math", "gsm8k", "exact_match", "strict-match", 0.5),
            with_stderr(0.0131, measured("avg", "gsm8k", "exact_match", "flexible-extract", 0.6527)),
            measured("avg", "gsm8k", "exact_match", "strict-match", 0.4),
            measured("math", "mbpp", "pass_at_1", "none", 0.4004),
            measured("math", "text", "bits_per_byte", "", 0.81234),
            measured("avg", "text", "bits_per_byte", "", 0.79),
        ])
        .published([
            published(
                "math",
                "gsm8k",
                "exact_match",
                0.704,
                "Yue et al. 2024, https://example.org/a_b?c=1&d",
                "official",
            ),
            published("code", "gsm8k", "exact_match", 0.5792, "Somebody 2024", ""),
        ]);
    project.tables[0].rows[0].label = Some("Math model".to_owned());
    project.absent.insert(("avg".to_owned(), "mbpp".to_owned()), "no suite evaluates it".to_owned());
    project
}

/// Names and texts that try to break every format.
fn hostile() -> Project {
    let labels = [
        "a|b `c` *d* _e_ ~f~ [g](javascript:alert(1)) <script>alert('1')</script> & \"h\" \\ $x$ #1 {y} ^z 100% — 1--2",
        "line\r\nbreak\u{2028}and\ttab\u{0}",
        "=HYPERLINK(\"http://example.org\")",
        "שלום עולם \u{202e}txet",
        "[*] begins like an argument",
        &"long ".repeat(60),
    ];
    let hostile = Column {
        label: Some("50% of `a|b`_c\n<b>".to_owned()),
        note: Some("| --- |\n<!-- mergelab:end -->".to_owned()),
        digits: Some(0),
        ..column("t", "m")
    };
    let huge = Column { scale: Some(-1.0), digits: Some(1), ..column("u", "n") };
    let models = ["m0", "m1", "m2", "m3", "m4", "m5"];
    let mut project = Project::new(&models, vec![hostile, huge])
        .measured([
            measured("m0", "t", "m", "a|b", 0.2),
            measured("m1", "t", "m", "a|b", -0.2),
            measured("m0", "u", "n", "", 1.5e300),
            with_stderr(0.25, measured("m1", "u", "n", "", 1.5)),
        ])
        .published([published(
            "m2",
            "t",
            "m",
            3.0,
            "<script src=https://example.org/x.js>\n| end | $\\alpha$ 5%",
            "`n`\n\n# h",
        )]);
    for (row, label) in project.tables[0].rows.iter_mut().zip(labels) {
        row.label = Some(label.to_owned());
    }
    project
        .absent
        .insert(("m3".to_owned(), "t".to_owned()), "failed: <img src=x onerror=alert(1)> |\n100% \"sure\"".to_owned());
    project
}

#[test]
fn an_ordinary_table_in_every_format() {
    let grid = ordinary().grid();
    insta::assert_snapshot!("ordinary.md", markdown(&grid));
    insta::assert_snapshot!("ordinary.tex", latex(&grid));
    insta::assert_snapshot!("ordinary.html", html::page("x", std::slice::from_ref(&grid)));
    insta::assert_snapshot!("ordinary.csv", sheet(&grid));
}

#[test]
fn hostile_text_breaks_no_format() {
    let grid = hostile().grid();
    insta::assert_snapshot!("hostile.md", markdown(&grid));
    insta::assert_snapshot!("hostile.tex", latex(&grid));
    insta::assert_snapshot!("hostile.html", html(&grid));
    insta::assert_snapshot!("hostile.csv", sheet(&grid));
    // Whatever the text says, the shape is that of the table.
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    assert!(markdown(&grid).lines().take(8).all(|line| columns(line) == 4));
    assert!(block::markers(&markdown(&grid)).unwrap().is_empty());
    assert!(!html(&grid).contains("<script") && !html(&grid).contains("<img"));
}

#[test]
fn a_table_without_rows_or_columns_is_still_one() {
    let none = Project::new(&[], vec![column("t", "acc")]).grid();
    let bare = Project::new(&["m"], vec![]).grid();
    insta::assert_snapshot!(
        [markdown(&none), latex(&none), html(&none), sheet(&none), markdown(&bare), latex(&bare)].join("\n")
    );
}

#[test]
fn the_best_measured_values_are_bold_and_published_ones_do_not_compete() {
    let acc = |values: &[f64]| {
        let names = ["a", "b", "c"];
        let figures: Vec<_> =
            names.iter().zip(values).map(|(name, value)| measured(name, "t", "acc", "", *value)).collect();
        Project::new(&names, vec![column("t", "acc")])
            .measured(figures)
            .published([published("c", "t", "acc", 0.99, "A", "")])
            .first_column()
    };
    assert_eq!(acc(&[0.5, 0.7]), ["50.00", "**70.00**", "99.00 †"]);
    assert_eq!(acc(&[0.70001, 0.7]), ["**70.00**", "**70.00**", "99.00 †"]);
    assert_eq!(acc(&[0.5]), ["50.00", "— (a)", "99.00 †"]);
}

#[test]
fn which_way_is_better_is_known_by_name_or_said_by_the_evaluation_or_nobody_is_best() {
    let two = |metric: &str, higher_is_better| {
        let figure = |model, value| Measurement { higher_is_better, ..measured(model, "t", metric, "", value) };
        Project::new(&["a", "b"], vec![column("t", metric)])
            .measured([figure("a", 2.0), figure("b", 3.0)])
            .first_column()
    };
    assert_eq!(two("word_perplexity", None), ["**2.00**", "3.00"]);
    assert_eq!(two("latency", None), ["2.00", "3.00"]);
    assert_eq!(two("latency", Some(false)), ["**2.00**", "3.00"]);
    assert_eq!(two("word_perplexity", Some(true)), ["2.00", "**3.00**"]);
}

#[test]
fn rates_are_shown_in_per_cent_unless_the_column_or_a_value_says_otherwise() {
    let one = |column: Column, value: f64| {
        let figure = measured("a", "t", &column.metric, "", value);
        Project::new(&["a"], vec![column]).measured([figure]).first_column().remove(0)
    };
    assert_eq!(one(column("t", "f1"), 0.5), "50.00");
    assert_eq!(one(column("t", "f1"), 50.0), "50.00");
    assert_eq!(one(column("t", "loss"), 0.5), "0.50");
    assert_eq!(one(Column { filter: Some(String::new()), ..column("t", "acc") }, 0.5), "50.00");
    assert_eq!(one(Column { scale: Some(1.0), digits: Some(3), ..column("t", "acc") }, 0.5), "0.500");
    assert_eq!(one(Column { digits: Some(0), ..column("t", "loss") }, -0.2), "0");
    let scientific = Column { notation: Notation::Scientific, digits: Some(1), ..column("t", "loss") };
    assert_eq!(
        [0.000_057_2, 1352.09, 0.0, -2.0].map(|value| one(scientific.clone(), value)),
        ["5.7e-5", "1.4e3", "0.0e0", "-2.0e0"]
    );
    let given = Column { scale: Some(1.0), ..column("t", "f1") };
    let squad = Project::new(&["a"], vec![given]).published([published("a", "t", "f1", 88.5, "A", "")]);
    assert_eq!(squad.first_column(), ["88.50 †"]);
}

#[test]
fn a_published_figure_is_compared_where_that_means_something() {
    let one = |measured: Measurement, theirs: Measurement| {
        Project::new(&["a"], vec![column("t", "acc")]).measured([measured]).published([theirs]).first_column().remove(0)
    };
    let ours = || with_stderr(0.03, measured("a", "t", "acc", "none", 0.6));
    let theirs = || published("a", "t", "acc", 0.7, "A", "");
    assert_eq!(one(ours(), theirs()), "60.00 ± 3.00 (70.00 †; -3.3 SE)");
    assert_eq!(one(ours(), with_stderr(0.04, theirs())), "60.00 ± 3.00 (70.00 ± 4.00 †; -2.0 SE)");
    assert_eq!(one(with_stderr(0.0, ours()), theirs()), "60.00 ± 0.00 (70.00 †)");
    assert_eq!(one(measured("a", "t", "acc", "none", 0.6), theirs()), "60.00 (70.00 †)");
    let shots = |n_shot, figure: Measurement| Measurement { n_shot: Some(n_shot), ..figure };
    assert_eq!(one(shots(5, ours()), shots(5, theirs())), "60.00 ± 3.00 (70.00 †; -3.3 SE)");
    assert_eq!(one(shots(5, ours()), shots(8, theirs())), "60.00 ± 3.00 (70.00 †)");
}

#[test]
fn a_published_figure_with_the_filter_is_preferred_to_one_without() {
    let stated = Measurement { filter: Some("strict".to_owned()), ..published("a", "t", "acc", 0.8, "A", "") };
    let other = Measurement { filter: Some("loose".to_owned()), ..published("a", "t", "acc", 0.9, "A", "") };
    let open = published("a", "t", "acc", 0.7, "A", "");
    let strict = || Column { filter: Some("strict".to_owned()), ..column("t", "acc") };
    let shown = |figures: &[&Measurement]| {
        Project::new(&["a"], vec![strict()]).published(figures.iter().map(|f| (*f).clone())).first_column().remove(0)
    };
    assert_eq!(shown(&[&other, &open, &stated]), "80.00 †");
    assert_eq!(shown(&[&other, &open]), "70.00 †");
    assert_eq!(shown(&[&other]), "— (a)");
}

#[test]
fn a_column_that_the_figures_cannot_fill_names_what_there_is() {
    let filtered = |filter: &str, column: Column| Column { filter: Some(filter.to_owned()), ..column };
    let columns = vec![
        column("gsm8k", "exactmatch"),
        column("gsm8k", "exact_match"),
        filtered("strict", column("gsm8k", "exact_match")),
        filtered("none", column("raw", "acc")),
        column("mbpp", "pass_at_1"),
        Column { scale: Some(1e300), ..column("raw", "loss") },
    ];
    let project = Project::new(&["a"], columns)
        .measured([
            measured("a", "gsm8k", "exact_match", "strict-match", 0.5),
            measured("a", "gsm8k", "exact_match", "flexible-extract", 0.5),
            measured("b", "gsm8k", "acc", "none", 0.5),
            measured("a", "raw", "acc", "", 0.5),
            measured("a", "raw", "loss", "", 1e30),
        ])
        .published([published("a", "mbpp", "pass_at_1", 40.04, "A", "")]);
    insta::assert_snapshot!(project.refused());
}

#[test]
fn figures_that_contradict_each_other_or_are_not_finite_are_refused() {
    let says = |higher, figure| Measurement { higher_is_better: Some(higher), ..figure };
    let project = Project::new(&[], vec![]).measured([
        measured("a", "t", "acc", "none", 0.5),
        measured("a", "t", "acc", "none", 0.6),
        measured("b", "t", "acc", "none", f64::NAN),
        says(true, measured("a", "u", "latency", "", 1.0)),
        says(false, measured("b", "u", "latency", "", 1.0)),
    ]);
    insta::assert_snapshot!(project.refused());
}

#[test]
fn published_figures_that_were_not_read_are_no_empty_table() {
    let mut project = ordinary();
    project.published.clear();
    assert_eq!(project.refused(), "experiment `x`: table `main`: published.csv was not read");
}

/// An experiment with two tables, one of them in the README, in a folder of its own.
fn two_tables() -> Project {
    let mut project = ordinary();
    let latency = Measurement { higher_is_better: Some(false), ..measured("math", "speed", "latency", "", 3.0) };
    let other = Measurement { model: "code".to_owned(), value: 4.0, ..latency.clone() };
    project.measured.extend([latency, other]);
    let second = Table {
        rows: vec![row("math"), row("code")],
        columns: vec![TableColumn::Metric(column("speed", "latency"))],
        into: Some(PathBuf::from("README.md")),
        ..table()
    };
    project.tables.insert("speed".to_owned(), second);
    project
}

const README: &str = "# A\n\n<!-- mergelab:table x/speed -->\n<!-- mergelab:end -->\n";

#[test]
fn an_experiment_becomes_files_and_a_block() {
    let output = render(&two_tables().inputs()).unwrap();
    let names: Vec<_> = output.files.iter().map(|(path, _)| path.to_str().unwrap()).collect();
    insta::assert_snapshot!(names.join("\n"), @r"
    results/x/results.csv
    results/x/metrics.csv
    results/x/table.md
    results/x/table.tex
    results/x/table.html
    results/x/table-main.csv
    results/x/table-speed.csv
    ");
    let file = |i: usize| String::from_utf8(output.files[i].1.clone()).unwrap();
    insta::assert_snapshot!("results.csv", file(0));
    insta::assert_snapshot!("two_tables.md", file(2));
    assert_eq!(file(1), "task,metric,higher_is_better\nspeed,latency,false\n");
    assert_eq!(output.blocks[0].0, Path::new("README.md"));
    assert!(file(2).ends_with(&output.blocks[0].1.body));
}

#[test]
fn rendering_again_changes_nothing_with_or_without_the_store() {
    let root = tempfile::tempdir().unwrap();
    let read = |path: &Path| files::read(&root.path().join(path));
    std::fs::write(root.path().join("README.md"), README).unwrap();
    let project = two_tables();
    let first = changes(&[render(&project.inputs()).unwrap()], read).unwrap();
    assert!(first.iter().all(|change| change.state != State::Same));
    files::write(root.path(), &first).unwrap();

    let again = changes(&[render(&project.inputs()).unwrap()], read).unwrap();
    assert!(again.iter().all(|change| change.state == State::Same));

    let measured = files::measured(root.path(), "x").unwrap().unwrap();
    let without_store = Project { measured, ..two_tables() };
    assert_eq!(render(&without_store.inputs()).unwrap(), render(&project.inputs()).unwrap());
}

#[test]
fn a_label_changes_the_tables_and_not_the_results() {
    let root = tempfile::tempdir().unwrap();
    let read = |path: &Path| files::read(&root.path().join(path));
    let mut project = ordinary();
    files::write(root.path(), &changes(&[render(&project.inputs()).unwrap()], read).unwrap()).unwrap();
    project.tables[0].rows[1].label = Some("Code model".to_owned());
    let changed = changes(&[render(&project.inputs()).unwrap()], read).unwrap();
    let changed = changed.iter().filter(|change| change.state == State::Changed);
    let names: Vec<_> = changed.map(|change| change.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["table.md", "table.tex", "table.html", "table-main.csv"]);
}

#[test]
fn blocks_of_several_experiments_share_a_file() {
    let project = two_tables();
    let other = Inputs { experiment: "y", ..project.inputs() };
    let mut outputs = [render(&project.inputs()).unwrap(), render(&other).unwrap()];
    outputs[1].blocks[0].0 = PathBuf::from("./README.md");
    let readme = format!("{README}{}", README.replace("x/", "y/"));
    let found =
        changes(&outputs, |path| Ok((path == Path::new("README.md")).then(|| readme.clone().into_bytes()))).unwrap();
    let last = String::from_utf8(found.last().unwrap().bytes.clone()).unwrap();
    assert_eq!(last.matches("| math | **3.00** |").count(), 2);
}

#[test]
fn a_place_that_is_missing_is_known_before_the_run() {
    let project = two_tables();
    let said = |readme: Option<&'static str>| {
        let error =
            check_places([("x", &project.tables)], |_| Ok(readme.map(|text| text.as_bytes().to_vec()))).unwrap_err();
        let error = &error.as_slice()[0];
        format!("{error}\nhint: {}", error.hint().unwrap())
    };
    assert!(check_places([("x", &project.tables)], |_| Ok(Some(README.as_bytes().to_vec()))).is_ok());
    insta::assert_snapshot!([said(None), said(Some("# A\n")), said(Some("<!-- mergelab:end -->"))].join("\n\n"));
}
