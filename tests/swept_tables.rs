//! Tables of sweeps: replicates in one row, the values of a key side by side, models as columns.

use crate::project::Project;

const EXPERIMENT: &str = r#"name: x
models: { base: { hub: org/base }, math: { hub: org/math }, code: { hub: org/code } }
merges:
  average: { method: average, models: [math, code] }
  dare:
    method: dare_linear
    models: [math, code]
    base: base
    sweep: { density: [0.5, 0.9], seed: [0, 1, 2] }
evals:
  suite: { models: [math, average, dare], backend: vllm, tasks: [gsm8k, mbpp] }
tables:
  seeds:
    rows: [math, average, { model: dare, label: "DARE, density", replicates: seed }]
    columns: [{ task: gsm8k, metric: exact_match }, { task: mbpp, metric: pass@1, label: MBPP }]
    into: README.md
  densities:
    rows: [average, { model: dare, label: DARE, replicates: seed }]
    columns: [{ task: gsm8k, metric: exact_match }]
    across: density
  turned:
    rows: [{ task: gsm8k, metric: exact_match, label: GSM8k }, { task: mbpp, metric: pass@1 }]
    columns: [math, average, { model: dare, replicates: seed }]
"#;

fn project() -> Project {
    let mut results = "model,task,metric,filter,n_shot,value,stderr,n_samples,source,key\n".to_owned();
    let mut line = |model: &str, task: &str, metric: &str, value: f64| {
        results += &format!("{model},{task},{metric},none,5,{value},0.0125,1319,measured,ab\n");
    };
    line("math", "gsm8k", "exact_match", 0.7);
    line("average", "gsm8k", "exact_match", 0.61);
    for (density, first) in [("0.5", 0.6), ("0.9", 0.64)] {
        for (seed, more) in [(0, 0.0), (1, 0.02), (2, 0.04)] {
            // One replicate is missing.
            if (density, seed) != ("0.9", 1) {
                line(&format!("dare-{density}-{seed}"), "gsm8k", "exact_match", first + more);
            }
        }
    }
    line("math", "mbpp", "pass@1", 0.4);
    line("dare-0.5-0", "mbpp", "pass@1", 0.44);
    Project::with(EXPERIMENT)
        .file("results/x/results.csv", results)
        .file("README.md", "<!-- mergelab:table seeds -->\n<!-- mergelab:end -->\n")
}

#[test]
fn a_sweep_over_a_seed_is_one_row_and_a_sweep_may_stand_across() {
    let project = project();
    project.mergelab(&["render", "x.yaml"]).exits(0);
    insta::assert_snapshot!("replicates", project.read("README.md"));
    insta::assert_snapshot!("all_tables", project.read("results/x/table.md"));
    project.mergelab(&["render", "x.yaml", "--check"]).exits(0);
}

#[test]
fn a_cell_of_replicates_leads_to_each_of_them() {
    let project = project();
    let cell = |table: &str, row: &str, column: &str| {
        project.mergelab(&["explain", "x.yaml", "--cell", table, row, column]).exits(0).stdout
    };
    let text = cell("seeds", "dare-0.5", "gsm8k");
    assert!(text.starts_with("dare-0.5: the mean over 3 replicates, by seed\n"), "{text}");
    for seed in 0..3 {
        assert!(text.contains(&format!("exact_match of dare-0.5-{seed} on gsm8k\n  measured 0.6")), "{text}");
    }
    assert_eq!(cell("densities", "DARE", "2"), text.replace("dare-0.5: ", "dare: "));
    assert_eq!(cell("densities", "average", "2"), "average has no model in this column\n");
    assert_eq!(cell("turned", "GSM8k", "dare-0.5"), text);
    let said = project.mergelab(&["explain", "x.yaml", "--cell", "densities", "dare", "gsm8k"]).exits(2);
    said.says("1 gsm8k, 2 gsm8k (density = 0.5), 3 gsm8k (density = 0.9)");
}

#[test]
fn in_a_page_a_cell_of_any_shape_leads_to_its_replicates() {
    let project = project();
    project.mergelab(&["report", "x.yaml"]).exits(0);
    let page = project.read("results/x/report.html");
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    let data: serde_json::Value = serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap();
    let models = |table: usize, row: usize, column: usize| -> Vec<&str> {
        let places = data["tables"][table]["cells"][row][column]["from"].as_array().unwrap();
        let figures = places.iter().map(|place| &data["figures"][place.as_u64().unwrap() as usize]);
        figures.map(|figure| figure["model"].as_str().unwrap()).collect()
    };
    let replicates = ["dare-0.5-0", "dare-0.5-1", "dare-0.5-2"];
    assert_eq!(
        (models(0, 2, 0), models(1, 1, 1), models(2, 2, 0)),
        (replicates.into(), replicates.into(), replicates.into())
    );
    // Average has no model at a density, and the table that is turned says so.
    assert_eq!((models(1, 0, 0), models(1, 0, 1)), (vec!["average"], vec![]));
    assert_eq!(
        (&data["tables"][2]["turned"], &data["tables"][2]["rows"][2]["model"]),
        (&true.into(), &"dare-0.5".into())
    );
    let turned = page.split("<article class=\"table\"").nth(3).unwrap();
    let row = turned.split("<tr>").nth(2).unwrap();
    assert!(row.contains("GSM8k") && row.contains("data-cell=\"2-2-0\""), "{row}");
    assert_eq!(data["tables"][0]["sweeps"][0]["key"], "density");
}

#[test]
fn replicates_are_one_point_of_what_else_is_swept_in_a_picture() {
    let project = project();
    project.mergelab(&["plot", "x.yaml"]).exits(0).says("new: results/x/plots/seeds-sweep.svg\n");
    let sweep = project.read("results/x/plots/seeds-sweep.svg");
    for text in [">0.5<", ">0.9<", ">DARE<", "of replicates one standard deviation"] {
        assert!(sweep.contains(text), "{text}: {sweep}");
    }
    let bars = |table: &str| project.read(&format!("results/x/plots/{table}-bars.svg"));
    assert!(bars("turned").contains(">GSM8k<") && bars("densities").contains("density = 0.9"));
    assert!(!project.has("results/x/plots/densities-sweep.svg"), "its values stand across");
}

#[test]
fn a_table_needs_every_replicate() {
    let project = project();
    let graph = project.mergelab(&["graph", "x.yaml"]).exits(0).stdout;
    for table in ["seeds", "densities", "turned"] {
        let edge =
            |stage: &str| graph.lines().any(|line| line.contains(stage) && line.contains(&format!("tables.{table}")));
        assert!(edge("dare-0.9-2/gsm8k"), "{table}: {graph}");
    }
}
