//! Two models, two sets of results and two experiments held against each other. What the tensor program finds is told by a
//! stand-in.

use serde_json::{Value, json};

use crate::project::Project;

/// What the tensor program finds of two models that are not the same.
const FOUND: &str = r#"{"format":1,"tensors":[
{"name":"model.norm.weight","shapes":[[2],[2]],"dtypes":["F32","F32"],"compared":{"numbers":{"squares":[2.0,2.0],"products":2.0,"difference":0.0,"elements":2,"differing":0,"not_finite":[0,0],"largest":null}}},
{"name":"model.layers.0.mlp.up_proj.weight","shapes":[[1,2],[1,2]],"dtypes":["BF16","BF16"],"compared":{"numbers":{"squares":[25.0,16.0],"products":16.0,"difference":9.0,"elements":2,"differing":1,"not_finite":[0,0],"largest":{"index":[0,0],"values":[3.0,0.0]}}}}],
"only":[[{"name":"lm_head.weight","shape":[4,2],"dtype":"BF16"}],[]],"tied":[false,true]}"#;

/// Two merges of the project of [`crate::science`], and what is found of them.
fn project() -> Project {
    let project = crate::science::project();
    project.write("found.json", FOUND);
    let found = project.path("found.json").to_str().unwrap().to_owned();
    let project = project.variable("TENSOR_DIFFERENCE", &found);
    project.run(&["--only", "merges.avg", "--only", "merges.regmean"]);
    project
}

fn diff(project: &Project, words: &[&str]) -> crate::project::Said {
    project.mergelab(&[&["diff"], words].concat())
}

const MERGES: [&str; 3] = ["merges.avg", "merges.regmean", "x.yaml"];

#[test]
fn two_merges_of_a_file_are_told_layer_by_layer() {
    let project = project();
    insta::assert_snapshot!("merges", diff(&project, &MERGES).exits(0).all());
    insta::assert_snapshot!("merges-csv", diff(&project, &[&MERGES[..], &["--csv"]].concat()).exits(0).stdout);
    let all = diff(&project, &[&MERGES[..], &["--all"]].concat()).exits(0).stdout;
    assert!(all.contains("\nmodel.norm.weight ") && !all.contains("differ most"), "{all}");
}

#[test]
fn as_json_two_models_are_one_object_with_all_figures() {
    let project = project();
    let found = diff(&project, &[&MERGES[..], &["--json"]].concat()).exits(0).json();
    assert_eq!((&found["kind"], &found["differ"]), (&json!("models"), &json!(true)));
    assert_eq!((&found["sides"][0]["stage"], &found["sides"][1]["file"]), (&json!("merges.avg"), &json!("x.yaml")));
    assert!(found["sides"][1]["path"].as_str().unwrap().contains("/.mergelab/objects/"));
    let layer = &found["layers"][0];
    assert_eq!(
        (&layer["layer"], &layer["norms"], &layer["relative"]),
        (&json!("model.layers.0"), &json!([5.0, 4.0]), &json!(0.6))
    );
    assert_eq!(layer["cosine"], json!(0.8));
    let largest = json!({ "tensor": "model.layers.0.mlp.up_proj.weight", "index": [0, 0], "values": [3.0, 0.0], "difference": -3.0 });
    assert_eq!((&layer["largest"], &found["total"]["largest"]), (&largest, &largest));
    assert_eq!(found["tensors"][0]["kind"], "mlp.up_proj");
    assert_eq!((&found["only"][0][0]["name"], &found["tied"]), (&json!("lm_head.weight"), &json!([false, true])));
}

#[test]
fn the_exit_code_tells_of_a_difference_where_that_is_asked_for() {
    let project = project();
    diff(&project, &[&MERGES[..], &["--exit-code"]].concat()).exits(4);
    // The two directories are one, and the stand-in finds nothing.
    let same = ["models/a", "models/a", "--exit-code"];
    diff(&project, &same).exits(0).prints("A: models/a\nB: models/a\n\nno difference: 0 tensors are the same\n");
    diff(&project, &["x.yaml", "x.yaml", "--exit-code"]).exits(0);
}

#[test]
fn directories_and_stages_stand_side_by_side_and_a_chart_is_drawn() {
    let project = project();
    let said = diff(&project, &["models/b", "merges.avg", "x.yaml", "--chart", "out.svg"]).exits(0);
    said.says("written: out.svg\n");
    let picture = project.read("out.svg");
    for text in ["Relative difference by layer of model.layers", "mlp.up_proj, 0: 0.600", "merges.avg of x.yaml"] {
        assert!(picture.contains(text), "{text}: {picture}");
    }
    diff(&project, &["x.yaml", "x.yaml", "--chart", "out.svg"]).exits(2).says("--chart draws two models");
    diff(&project, &["models/b", "models/a", "--chart", "gone/out.svg"]).exits(1).says("cannot write gone/out.svg");
}

#[test]
fn sides_that_are_not_there_are_told_with_the_way_out() {
    let project = project();
    diff(&project, &["merges.avg", "merges.gone", "x.yaml"]).exits(2).says("no stage \"merges.gone\"");
    diff(&project, &["merges.avg", "grams.a", "x.yaml"]).exits(2).says("grams.a is no model or merge");
    let said = diff(&project, &["merges.avg", "evals.suite/a/add", "x.yaml"]).exits(2);
    said.says("evals.suite/a/add is no model or merge\nhint: `mergelab samples");
    diff(&project, &["models/a", "models/gone"]).exits(2).says("there is no file and no directory models/gone");
    diff(&project, &["merges.avg", "x.yaml", "x.yaml"]).exits(2).says("two sides of one kind are compared");
    diff(&project, &["gone.csv", "x.yaml"]).exits(2).says("there is no file and no directory gone.csv");
    project.edit("x.yaml", "alpha: 0.1", "alpha: 0.2");
    let said = diff(&project, &MERGES).exits(1);
    said.says("merges.regmean is not up to date")
        .says("hint: run it first: `mergelab run x.yaml --only merges.regmean`");
}

#[test]
fn what_the_tensor_program_refuses_is_the_users_to_mend() {
    let event = r#"{"event":"error","message":"/m/model.safetensors: it is truncated","hint":"fetch it again","fault":"experiment"}"#;
    let project = crate::science::project().variable("TENSOR_ERROR", event);
    let said = diff(&project, &["models/a", "models/b"]).exits(3);
    said.says("error: /m/model.safetensors: it is truncated\nhint: fetch it again\n");
}

const HEADER: &str = "model,task,metric,filter,n_shot,value,stderr,n_samples,source,key\n";

#[test]
fn two_files_of_results_are_told_figure_by_figure() {
    let project = Project::new();
    let line = "avg,gsm8k,exact_match,strict,5,0.6,0.03,100,measured,ab\n";
    project.write("a/results.csv", format!("{HEADER}{line}b,gsm8k,exact_match,strict,5,0.5,0.03,100,measured,ab\n"));
    project.write(
        "b.csv",
        format!("{HEADER}{}c,t,acc,,,1,,,measured,\n", line.replace("0.6,0.03", "0.73,0.04").replace(",ab", ",cd")),
    );
    insta::assert_snapshot!("results", diff(&project, &["a", "b.csv"]).exits(0).all());
    let found = diff(&project, &["a/results.csv", "b.csv", "--json"]).exits(0).json();
    assert_eq!((&found["kind"], &found["sides"][0]["file"]), (&json!("results"), &json!("a/results.csv")));
    let score = &found["scores"][0];
    assert_eq!(
        (&score["values"], &score["beyond"], &score["paired"]),
        (&json!([0.6, 0.73]), &json!(true), &Value::Null)
    );
    assert_eq!(found["scores"][2]["values"], json!([null, 1.0]));
    diff(&project, &["a", "b.csv", "--exit-code"]).exits(4);
    diff(&project, &["a", "a", "--exit-code"]).exits(0).says_nothing_of("hint");

    project.write("b.csv", format!("{HEADER}{line}{line}"));
    diff(&project, &["a", "b.csv"])
        .exits(3)
        .says("b.csv: `exact_match` (filter `strict`) of task `gsm8k` was measured twice");
    project.write("b.csv", format!("{HEADER}{}", line.replace("0.6", "nan")));
    diff(&project, &["a", "b.csv"]).exits(3).says("b.csv:2: column 6 (`value`): `nan` is not a finite number");
}

#[test]
fn two_experiments_are_told_entry_by_entry_with_their_scores() {
    let project = crate::science::project();
    project.run(&[]);
    let text = project.read("x.yaml");
    let other = text
        .replace("alpha: 0.1", "alpha: 0.2")
        .replace("num_fewshot: 2", "num_fewshot: 3")
        .replace("  avg: { method: average, models: [a, b] }\n", "  ties: { method: ties, models: [a, b], base: a }\n")
        .replace("models: [a, avg, regmean]", "models: [a, ties, regmean]")
        .replace(", avg, regmean]", ", ties, regmean]")
        .replace("label: The first", "label: Number one");
    project.write("y.yaml", &other);
    insta::assert_snapshot!("experiments", diff(&project, &["x.yaml", "y.yaml"]).exits(0).all());
    let found = diff(&project, &["x.yaml", "y.yaml", "--json", "--exit-code"]).exits(4).json();
    assert_eq!(found["kind"], "experiments");
    let regmean = found["entries"].as_array().unwrap().iter().find(|entry| entry["entry"] == "merges.regmean").unwrap();
    assert_eq!(regmean, &json!({ "entry": "merges.regmean", "change": "changed", "changes": ["alpha: 0.1 -> 0.2"] }));
    assert_eq!(found["scores"].as_array().unwrap().len(), 6);
    diff(&project, &["x.yaml", "y.yaml", "--csv"]).exits(2).says("experiments are compared as text or as JSON");
    // An experiment beside results means its scores alone.
    let said = diff(&project, &["x.yaml", "results/x"]).exits(0);
    assert!(said.stdout.ends_with("\n6 figures are the same\n") && !said.stdout.contains("merges."), "{}", said.stdout);
}

#[cfg(feature = "fetch")]
#[test]
fn scores_of_the_same_documents_are_tested_as_samples_against_does() {
    let project = crate::comparisons::project();
    project.run(&[]);
    // In the other experiment `b` stands where `a` was.
    let other =
        project.read("x.yaml").replace("a: { path: models/a }", "a: { path: models/b }").replace("name: x", "name: y");
    project.write("y.yaml", other.split("tables:").next().unwrap());
    project.run_file("y.yaml", &["--only", "evals.suite/a"]);
    let found = diff(&project, &["x.yaml", "y.yaml", "--json"]).exits(0).json();
    let score = |task: &str| {
        let scores = found["scores"].as_array().unwrap().iter();
        scores.into_iter().find(|score| score["model"] == "a" && score["task"] == task).unwrap().clone()
    };
    for (task, test) in [("add", "mcnemar-exact"), ("text", "paired-bootstrap")] {
        let stage = format!("evals.suite/b/{task}");
        let said = project.mergelab(&["samples", &stage, "x.yaml", "--against", "a", "--json"]).exits(0).json();
        let paired = &score(task)["paired"];
        for name in ["difference", "stderr", "p", "n"] {
            let (found, said) = (paired[name].as_f64().unwrap(), said[name].as_f64().unwrap());
            assert!((found / said - 1.0).abs() < 1e-9, "{task}: {name} is {found} and {said}");
        }
        assert_eq!(paired["test"], test);
        assert_eq!(score(task)["stderr"], paired["stderr"]);
    }
    // What results keep leads to the same answers, by their keys.
    let kept = diff(&project, &["results/x", "y.yaml", "--json"]).exits(0).json();
    assert_eq!(kept["scores"], found["scores"]);
}
