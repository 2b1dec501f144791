//! The result of a merge is a model: `transformers` loads it as it is, and it computes what a state dict merged directly does.

use std::fs;
use std::path::Path;

use mergelab_tensor::checkpoint::Checkpoint;
use mergelab_wire::{Alpha, GramJob, Job, MergeJob, MergeSource, Rows};
use serde_json::{Value, json};

use crate::support::{gram_job, merge_job, python, reference_program, regmean_job, run, source};

/// What to run a model on.
fn capture(home: &Path, name: &str) -> GramJob {
    let rows = Rows::Text("{{ text }}".to_owned());
    GramJob { rows, ..gram_job(&home.join(name), &home.join(format!("rows-{name}.jsonl"))) }
}

#[test]
fn merges_in_shards_and_sixteen_bits_load_in_transformers_and_compute_what_a_state_dict_merged_directly_does() {
    let Some(python) = python() else {
        println!("skipped: no Python with transformers (MERGELAB_PYTHON, VIRTUAL_ENV, .venv)");
        return;
    };
    for family in ["llama", "llama32-tied"] {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        reference_program(&python, "regmean_plus_plus.py", &["models", home.path().to_str().unwrap(), family]);
        reference_program(&python, "regmean_plus_plus.py", &["merge", home.path().to_str().unwrap(), "0.5"]);
        let flowing = at("merged.safetensors");

        let grams = ["a", "b"].map(|name| run(Job::Gram(capture(home.path(), name)), 2).ok());
        let plain = ["a", "b"].map(|name| source(name, &at(name), None)).to_vec();
        let with_grams: Vec<MergeSource> =
            ["a", "b"].iter().zip(&grams).map(|(name, grams)| source(name, &at(name), Some(&grams.out))).collect();
        let solved = at("solved.safetensors");
        let part =
            |model: &MergeSource| format!("{}:{}:1", model.path.display(), model.grams.as_ref().unwrap().display());
        let arguments = ["0.5", solved.to_str().unwrap(), &part(&with_grams[0]), &part(&with_grams[1])];
        reference_program(&python, "regmean.py", &arguments);

        let captured = ["a", "b"]
            .map(|name| MergeSource { capture: Some(capture(home.path(), name)), ..source(name, &at(name), None) });
        let density = [("density".to_owned(), json!(0.5))].into_iter().collect();
        let jobs = [
            (merge_job("average", plain.clone()), Value::Null),
            (MergeJob { base: Some(plain[0].clone()), params: density, ..merge_job("ties", plain) }, Value::Null),
            (regmean_job(with_grams, 0.5), json!(solved)),
            (MergeJob { alpha: Some(Alpha::Number(0.5)), ..merge_job("regmean++", captured.to_vec()) }, json!(flowing)),
        ];
        let mut asked = Vec::new();
        for (job, solved) in jobs {
            let path = at(&format!("merged-{}", job.method));
            let job = MergeJob { dtype: Some("bfloat16".to_owned()), shard_size: Some(30_000), ..job };
            let outcome = run(Job::Merge(job.clone()), 2).ok();
            fs::create_dir(&path).unwrap();
            for (name, bytes) in outcome.files() {
                fs::write(path.join(name), bytes).unwrap();
            }
            let shards = fs::read_dir(&path).unwrap().filter(|entry| {
                entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "safetensors"))
            });
            assert!(shards.count() > 2, "{family}, {}", job.method);
            let has_head = Checkpoint::open(&path).unwrap().contains("lm_head.weight");
            assert_eq!(has_head, family == "llama");
            asked.push(json!({ "path": path, "method": job.method, "models": [at("a"), at("b")], "solved": solved }));
        }
        reference_program(&python, "outputs.py", &[&Value::from(asked).to_string()]);
    }
}
