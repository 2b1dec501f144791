//! Models of other experiments in tables.

use std::io;
use std::path::Path;

use super::messages;
use crate::experiment::{Diagnostics, Files, Loaded, parse_with};

/// A project with these files.
struct Disk<'a>(&'a [(&'a str, &'a str)]);

impl Files for Disk<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.0.iter().find(|(name, _)| Path::new(name) == path);
        file.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn is_directory(&self, _: &Path) -> bool {
        false
    }
}

/// Swept over α and a seed, with a model that nobody evaluates, and a table that shows a model of the first.
const OTHER: &str = "name: other
models: { a: { path: a }, b: { path: b }, base: { path: base } }
merges: { dare: { method: dare_linear, models: [a, b], base: base, sweep: { density: [0.5, 0.9], seed: [0, 1] } } }
evals: { e: { models: [a, dare], tasks: [mbpp, { task: gsm8k, name: math }] } }
tables: { t: { rows: [{ from: x.yaml, model: mine }], columns: [{ task: only-here, metric: acc }] } }
";

const FILES: &[(&str, &str)] = &[
    ("other.yaml", OTHER),
    ("same.yaml", "name: x\n"),
    ("twice.yaml", "name: other\nmodels: { a: { path: a } }\nevals: { e: { models: [a], tasks: [mbpp] } }\n"),
    ("wrong.yaml", "name: wrong\nmodels: 5\nevals: [x]\n"),
];

fn read(keys: &str) -> Result<Loaded, Diagnostics> {
    let text = format!(
        "name: x\nmodels: {{ mine: {{ path: m }} }}\nevals: {{ e: {{ models: [mine], tasks: [mbpp] }} }}\ntables: {{ t: {{ {keys} }} }}\n"
    );
    parse_with(Path::new("x.yaml"), &text, &Disk(FILES))
}

const MBPP: &str = "columns: [{ task: mbpp, metric: acc }]";

#[test]
fn a_swept_name_of_another_experiment_means_its_expansions_there() {
    let loaded = read(
        "rows: [mine, { from: other.yaml, model: a }, { from: other.yaml, model: dare, label: D, replicates: seed }], \
         columns: [{ task: mbpp, metric: acc }, { task: math, metric: acc }]",
    )
    .unwrap();
    let table = &loaded.experiment.tables["t"];
    let rows: Vec<_> = table.rows.iter().map(|row| (row.model.as_str(), row.label.as_deref())).collect();
    assert_eq!(
        rows,
        [("mine", None), ("other/a", None), ("other/dare-0.5", Some("D 0.5")), ("other/dare-0.9", Some("D 0.9"))]
    );
    assert_eq!(table.rows[2].models(None), ["other/dare-0.5-0", "other/dare-0.5-1"]);
    let others: Vec<_> = table.others().iter().map(|other| other.kept()[0].display().to_string()).collect();
    assert_eq!(others, ["results/other/results.csv"]);
    let one = read(&format!("rows: [{{ from: other.yaml, model: dare-0.5-1 }}], {MBPP}")).unwrap();
    assert_eq!(one.experiment.tables["t"].rows[0].model, "other/dare-0.5-1");
}

#[test]
fn what_another_experiment_lacks_is_refused() {
    let said = |row: &str| messages(read(&format!("rows: [{{ {row} }}], {MBPP}"))).join("\n");
    let of_other = |model: &str| said(&format!("from: other.yaml, model: {model}"));
    assert_eq!(of_other("dara"), "other.yaml has no model or merge called `dara`");
    assert_eq!(of_other("b"), "no suite of other.yaml evaluates `b`, so this row would be empty");
    assert_eq!(said("from: nowhere.yaml, model: a"), "cannot read nowhere.yaml: entity not found");
    assert_eq!(said("from: same.yaml, model: a"), "same.yaml is called `x` too");
    assert_eq!(
        said("from: wrong.yaml, model: a"),
        "wrong.yaml is wrong: `models` must be a mapping from names to entries, not a number, and 1 more"
    );
    assert_eq!(
        said("from: other.yaml, model: a }, { from: twice.yaml, model: a"),
        "twice.yaml and other.yaml are both called `other`"
    );
    let columns = "columns: [{ task: nowhere, metric: acc }]";
    assert_eq!(
        messages(read(&format!("rows: [{{ from: other.yaml, model: a }}], {columns}"))),
        ["no suite evaluates the task `nowhere`, so this column would be empty"]
    );
    assert_eq!(
        messages(read(&format!("rows: [{{ from: other.yaml, model: a }}], baseline: other/a, {MBPP}"))),
        ["`other/a` is not a name"]
    );
}
