//! Whole pictures, from grids as `report` makes them.

use super::*;
use crate::experiment::Bold;
use crate::report::{Against, Cell, Figure, Heading, Line, Origin, Published, Verdict};

fn figure(value: &str, stderr: &str) -> Figure {
    let spread = Some(stderr.to_owned()).filter(|stderr| !stderr.is_empty());
    Figure { value: value.to_owned(), spread, replicates: None }
}

fn measured(value: &str, stderr: &str) -> Cell {
    shown(figure(value, stderr), false)
}

fn shown(figure: Figure, best: bool) -> Cell {
    Cell::Measured { figure, best, second: false, against: None, beside: None, difference: None }
}

fn published(value: &str) -> Published {
    Published { figure: figure(value, ""), origin: 0 }
}

fn heading(label: &str, note: Option<&str>) -> Heading {
    Heading { label: label.to_owned(), note: note.map(str::to_owned), link: None, compares: false }
}

fn row(label: &str, cells: Vec<Cell>) -> Line {
    Line { label: label.to_owned(), note: None, link: None, compares: false, cells }
}

fn swept(entry: &str, coordinates: &[(&str, &str)]) -> RowOrigin {
    let coordinates = coordinates.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    RowOrigin { merge: true, expansion: Some(Expansion { entry: entry.to_owned(), coordinates }) }
}

fn grid(columns: Vec<Heading>, rows: Vec<Line>) -> Grid {
    let origin = Origin { citation: "Somebody, 2024".to_owned(), note: None, shots: None };
    Grid {
        name: "main".to_owned(),
        columns,
        rows,
        origins: vec![origin],
        reasons: vec!["not measured".to_owned()],
        bold: Bold::default(),
        turned: false,
        remarks: Vec::new(),
    }
}

/// A source with a published figure beside the measured one, an average that was published, three values of α of which
/// one is missing.
fn ordinary() -> (Grid, Vec<RowOrigin>) {
    let both = Cell::Measured {
        figure: figure("68.10", "1.25"),
        best: false,
        second: false,
        against: None,
        beside: Some(published("70.40")),
        difference: Some("-1.8".to_owned()),
    };
    let best = shown(figure("77.25", "2.10"), true);
    let rows = vec![
        row("Math model", vec![both]),
        row("Average", vec![Cell::Published(published("65.27"))]),
        row("RegMean, α = 0.1", vec![measured("76.00", "2.14")]),
        row("RegMean, α = 0.5", vec![Cell::Missing(0)]),
        row("RegMean, α = 1", vec![best]),
    ];
    let merge = RowOrigin { merge: true, expansion: None };
    let alpha = |alpha| swept("regmean", &[("alpha", alpha)]);
    let origins = vec![RowOrigin::default(), merge, alpha("0.1"), alpha("0.5"), alpha("1.0")];
    (grid(vec![heading("GSM8k", Some("5-shot EM"))], rows), origins)
}

fn picture(files: &[(String, String)], name: &str) -> String {
    let found = files.iter().find(|file| file.0 == name);
    found.unwrap_or_else(|| panic!("no {name} among {:?}", names(files))).1.clone()
}

fn names(files: &[(String, String)]) -> Vec<&str> {
    files.iter().map(|file| file.0.as_str()).collect()
}

#[test]
fn a_figure_that_a_test_tells_from_the_baseline_carries_the_tables_arrow() {
    let cell = |verdict| Cell::Measured {
        figure: figure("1.00", "0.10"),
        best: false,
        second: false,
        against: Some(Against { p: "0.01".to_owned(), verdict }),
        beside: None,
        difference: None,
    };
    let rows = [("better", Verdict::Better), ("worse", Verdict::Worse), ("even", Verdict::Even)];
    let rows = rows.map(|(label, verdict)| row(label, vec![cell(verdict)])).to_vec();
    let picture = bars::bars("x", &grid(vec![heading("Task", None)], rows));
    let values: Vec<_> = picture.lines().filter(|line| line.contains("1.00 ± 0.10")).map(str::trim).collect();
    assert_eq!(values.iter().filter(|line| line.contains("1.00 ± 0.10 ↑")).count(), 1, "{values:?}");
    assert_eq!(values.iter().filter(|line| line.contains("1.00 ± 0.10 ↓")).count(), 1, "{values:?}");
    assert!(values.len() >= 3, "{values:?}");
}

#[test]
fn a_table_becomes_bars() {
    let (grid, origins) = ordinary();
    insta::assert_snapshot!(picture(&files("x", &grid, &origins), "main-bars.svg"));
}

#[test]
fn a_sweep_becomes_a_line() {
    let (grid, origins) = ordinary();
    insta::assert_snapshot!(picture(&files("x", &grid, &origins), "main-sweep.svg"));
}

#[test]
fn nothing_is_cut_that_room_was_made_for() {
    let (grid, origins) = ordinary();
    assert!(files("x", &grid, &origins).iter().all(|(_, text)| !text.contains('…')));
}

#[test]
fn the_same_grid_gives_the_same_bytes() {
    let (grid, origins) = ordinary();
    assert_eq!(files("x", &grid, &origins), files("x", &grid, &origins));
}

#[test]
fn bars_are_as_long_as_the_numbers_that_the_table_prints() {
    let rows = ["80.00", "40.00", "-20.00"].map(|value| row("r", vec![measured(value, "")]));
    let text = picture(&files("x", &grid(vec![heading("t", None)], rows.into()), &[]), "main-bars.svg");
    let bars = text.lines().filter(|line| line.contains("#0072B2"));
    let lengths: Vec<&str> = bars.filter_map(|line| line.split("width=\"").nth(1)?.split('"').next()).collect();
    // 160 pixels are the 100 from -20 to 80.
    assert_eq!(lengths, ["128", "64", "32"], "{text}");
}

#[test]
fn whatever_names_hold_stays_text() {
    let hostile = "<script>alert(\"1\")</script> & ]]> \u{ffff}";
    let long = "long ".repeat(60);
    let rightward = "\u{2068}שלום עולם\u{2069}";
    let rows = [hostile, long.trim(), rightward].map(|label| row(label, vec![measured("1.00", "0.10")]));
    let mut grid = grid(vec![heading(hostile, Some(hostile))], rows.into());
    grid.origins[0].citation = hostile.to_owned();
    let origins = ["0.1", "0.5"].map(|alpha| swept("a", &[("alpha", alpha)]));
    let origins = [origins.to_vec(), vec![RowOrigin::default()]].concat();
    for (name, text) in files("<b>\"x\"", &grid, &origins) {
        assert!(!text.contains("<script") && !text.contains("<b>") && !text.contains('\u{ffff}'), "{name}: {text}");
        assert!(text.contains("&lt;script&gt;alert"), "{name}");
        assert!(text.contains(rightward), "{name}");
        // Nothing of others stands in a tag, whose quotes it could end.
        let tags: String = text.split('<').map(|part| part.split('>').next().unwrap_or_default()).collect();
        assert!(!tags.contains("alert") && !tags.contains("long"), "{name}: {tags}");
    }
    let bars = picture(&files("x", &grid, &origins), "main-bars.svg");
    assert!(bars.contains(&format!("<title>{}</title>", long.trim())), "the whole name is kept: {bars}");
}

#[test]
fn a_table_without_rows_is_a_picture_that_says_so() {
    for grid in [grid(vec![heading("t", None)], Vec::new()), grid(Vec::new(), Vec::new())] {
        let files = files("x", &grid, &[]);
        assert_eq!(names(&files), ["main-bars.svg"]);
        assert!(files[0].1.contains("the table has nothing to show"), "{}", files[0].1);
    }
}

#[test]
fn a_column_of_which_everything_is_missing_is_drawn() {
    let rows = ["0.1", "0.5"].map(|alpha| row(alpha, vec![Cell::Missing(0)]));
    let origins = ["0.1", "0.5"].map(|alpha| swept("a", &[("alpha", alpha)]));
    let files = files("x", &grid(vec![heading("t", None)], rows.into()), &origins);
    assert_eq!(names(&files), ["main-bars.svg", "main-sweep.svg"]);
    assert!(files.iter().all(|(_, text)| text.contains("— ") && text.contains("not measured")));
}

#[test]
fn sweeps_over_one_key_share_a_picture_and_other_keys_have_their_own() {
    let origins = [
        swept("regmean", &[("alpha", "0.1"), ("seed", "1")]),
        swept("regmean", &[("alpha", "0.5"), ("seed", "1")]),
        swept("regmean", &[("alpha", "0.1"), ("seed", "2")]),
        swept("other", &[("alpha", "0.1")]),
        swept("other", &[("alpha", "0.5")]),
        swept("dare", &[("seed", "1"), ("density", "0.1")]),
        swept("dare", &[("seed", "2"), ("density", "0.2")]),
        swept("one", &[("alpha", "0.5")]),
        swept("words", &[("solver", "fast")]),
    ];
    let rows = origins.iter().map(|_| row("r", vec![measured("1.00", "")])).collect();
    let grid = grid(vec![heading("t", None)], rows);
    assert_eq!(
        names(&files("x", &grid, &origins)),
        ["main-bars.svg", "main-sweep-alpha.svg", "main-sweep-density.svg"]
    );
    let charts = series::charts(&grid, &origins);
    let lines: Vec<Vec<usize>> =
        charts[0].series.iter().map(|series| series.points.iter().map(|point| point.row).collect()).collect();
    assert_eq!(lines, [vec![0, 1], vec![2], vec![3, 4]]);
    assert_eq!(charts[0].others, [(7, true), (8, true)]);
    assert_eq!(charts[1].series.len(), 2);
}

/// A number among the attributes of a tag.
fn attribute(tag: &str, name: &str) -> Option<f64> {
    tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?.parse().ok()
}

#[test]
fn twenty_rows_and_ten_columns_overlap_nowhere() {
    let rows = (0..20).map(|i| {
        let cells = (0..10).map(|j| measured(&format!("{}.00", 1 + i * 4 + j), "2.00")).collect();
        row(&format!("a model whose name is rather long, {i}"), cells)
    });
    let columns = (0..10).map(|i| heading(&format!("a task whose name is longer than a panel {i}"), None)).collect();
    let alpha = |i| if i < 6 { swept("a", &[("alpha", &format!("0.{i}"))]) } else { RowOrigin::default() };
    let origins: Vec<_> = (0..20).map(alpha).collect();
    for (name, text) in files("x", &grid(columns, rows.collect()), &origins) {
        let tags: Vec<&str> = text.split('<').collect();
        let page = tags.iter().find_map(|tag| attribute(tag, "width")).unwrap();
        let right = |tag: &&str| Some(attribute(tag, "x")? + attribute(tag, "width").unwrap_or_default());
        assert!(tags.iter().filter_map(right).all(|right| right <= page), "{name}");

        let bar = |tag: &&&str| tag.contains("#0072B2") && tag.contains(" height=");
        let bars: Vec<[f64; 4]> = (tags.iter().filter(bar))
            .map(|tag| ["x", "y", "width", "height"].map(|name| attribute(tag, name).unwrap()))
            .collect();
        assert!(name.contains("sweep") || bars.len() == 200, "{name}: {}", bars.len());
        let apart = |[x, y, w, h]: &[f64; 4], [x2, y2, w2, h2]: &[f64; 4]| {
            x + w < *x2 || x2 + w2 < *x || y + h < *y2 || y2 + h2 < *y
        };
        for (i, bar) in bars.iter().enumerate() {
            assert!(bars[..i].iter().all(|other| apart(bar, other)), "{name}: {bar:?}");
        }
    }
}
