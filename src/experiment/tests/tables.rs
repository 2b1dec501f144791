//! Rows and columns of tables that sweeps make.

use super::{errors, shown, valid};
use crate::experiment::{Member, Row, Table, TableColumn};

/// `dare` is swept over density and seed, `ties` over density alone, `average` over nothing.
fn table(keys: &str) -> String {
    format!(
        "merges:
  dare: {{ method: dare_linear, models: [a, b], base: base, sweep: {{ density: [0.5, 0.9], seed: [0, 1, 2] }} }}
  ties: {{ method: ties, models: [a, b], base: base, sweep: {{ density: [0.5, 0.8] }} }}
  average: {{ method: average, models: [a, b] }}
evals: {{ e: {{ models: [a, dare, ties, average], tasks: [gsm8k, mbpp] }} }}
tables: {{ t: {{ {keys} }} }}"
    )
}

const TWO: &str = "columns: [{ task: gsm8k, metric: acc }, { task: mbpp, metric: pass, label: Code }]";

fn read(keys: &str) -> Table {
    valid(&table(keys)).tables["t"].clone()
}

fn names(row: &Row) -> Vec<&str> {
    row.members.iter().map(|member| member.model.as_str()).collect()
}

#[test]
fn replicates_share_a_row_and_what_else_is_swept_does_not() {
    let table = read(&format!("rows: [average, {{ model: dare, label: DARE, replicates: seed }}], {TWO}"));
    let labels: Vec<_> = table.rows.iter().map(|row| (row.model.as_str(), row.label.as_deref())).collect();
    assert_eq!(labels, [("average", None), ("dare-0.5", Some("DARE 0.5")), ("dare-0.9", Some("DARE 0.9"))]);
    assert_eq!(names(&table.rows[1]), ["dare-0.5-0", "dare-0.5-1", "dare-0.5-2"]);
    let last = Member { model: "dare-0.9-2".into(), at: None, replicate: Some("2".into()) };
    assert_eq!(table.rows[2].members.last(), Some(&last));
    assert_eq!(table.rows[2].models(None), ["dare-0.9-0", "dare-0.9-1", "dare-0.9-2"]);
}

#[test]
fn a_key_across_gives_each_of_its_values_columns_of_their_own() {
    let mean = ", { mean: scores, label: Mean }]";
    let table = read(&format!(
        "across: {{ key: density, label: 'density =' }}, rows: [average, {{ model: dare, replicates: seed }}, ties], {}",
        TWO.replace(']', mean)
    ));
    let rows: Vec<_> = table.rows.iter().map(|row| row.model.as_str()).collect();
    assert_eq!(rows, ["average", "dare", "ties"]);
    assert_eq!(table.rows[1].models(Some("0.9")), ["dare-0.9-0", "dare-0.9-1", "dare-0.9-2"]);
    assert_eq!(table.rows[2].models(Some("0.9")), [""; 0]);
    assert_eq!((table.rows[0].models(None), table.rows[0].models(Some("0.5"))), (vec!["average"], vec![]));
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|column| match column {
            TableColumn::Metric(column) => (column.task.clone(), column.at.as_deref(), vec![]),
            TableColumn::Mean(mean) => ("mean".to_owned(), mean.at.as_deref(), mean.of.clone()),
        })
        .collect();
    let at = [None, Some("0.5"), Some("0.9"), Some("0.8")];
    let metric = |task: &str| at.map(|at| (task.to_owned(), at, vec![]));
    let mean = [0, 1, 2, 3].map(|place| ("mean".to_owned(), at[place], vec![place, 4 + place]));
    assert_eq!(columns, [metric("gsm8k"), metric("mbpp"), mean].concat());
    assert_eq!(table.across.unwrap().says("0.5"), "density = 0.5");
}

#[test]
fn metrics_may_stand_as_rows_and_models_as_columns() {
    let table = read("rows: [{ task: gsm8k, metric: acc }, { mean: scores, label: M }], columns: [average, ties]");
    assert!(table.turned);
    let models: Vec<_> = table.rows.iter().map(|row| row.model.as_str()).collect();
    assert_eq!(models, ["average", "ties-0.5", "ties-0.8"]);
    assert_eq!(table.columns.len(), 2);
    let said = errors(&self::table("rows: [{ task: gsm8k, metric: acc }], columns: [ties], across: density"));
    assert_eq!(said, ["`across` has no meaning where models stand across already"]);
}

#[test]
fn what_is_not_swept_so_is_refused_with_what_there_is() {
    let said = |keys: &str| errors(&table(&format!("{keys}, {TWO}")));
    let replicates = |model: &str, key: &str| said(&format!("rows: [{{ model: {model}, replicates: {key} }}]"));
    assert_eq!(replicates("average", "seed"), ["`average` is not swept, so it has no replicates"]);
    assert_eq!(replicates("dare-0.5-0", "seed"), ["`dare-0.5-0` is not swept, so it has no replicates"]);
    assert_eq!(replicates("ties", "seed"), ["`ties` is not swept over `seed`"]);
    assert_eq!(said("rows: [average, ties], across: sed"), ["no row is swept over `sed`"]);
    let both = said("rows: [{ model: dare, replicates: density }], across: density");
    assert_eq!(both, ["`density` stands across the table, so its values are no replicates"]);
    let rows = "rows: [{ model: dare, replicates: sed }]";
    insta::assert_snapshot!(
        [rows, "rows: [dare], across: densty"].map(|keys| shown(&table(&format!("{keys}, {TWO}")))).join("\n")
    );
}

#[test]
fn a_link_is_a_whole_web_address_and_a_comparison_needs_published_values() {
    let link = |link: &str| format!("rows: [{{ model: a, link: '{link}' }}], {TWO}");
    let good = "https://huggingface.co/org/a?b=1&c#d";
    assert_eq!(read(&link(good)).rows[0].link.as_deref(), Some(good));
    for wrong in ["javascript:alert(1)", "huggingface.co/a", "https://", "https://a b", "https://a/(b)", "https://a>"] {
        assert_eq!(errors(&table(&link(wrong))), [format!("`{wrong}` is not a web address")]);
    }
    assert_eq!(
        errors(&table(&format!("rows: [a], comparison: true, {TWO}"))),
        ["`comparison` has no meaning without `published`"]
    );
}
