//! The same bytes whatever the number of threads, and on every run.

use mergelab_wire::{GramJob, Job};
use tch::{Device, Kind, Tensor};

use crate::support::{gram_job, references, regmean_job, run, run_within, source, toy_grams, toy_model};

#[test]
fn a_capture_gives_the_same_bytes_with_one_thread_and_with_several() {
    let Some(references) = references() else { return };
    for dtype in [None, Some("bfloat16".to_owned())] {
        let job = GramJob { dtype, ..gram_job(&references.join("qwen2/model"), &references.join("rows.jsonl")) };
        let one = run(Job::Gram(job.clone()), 1).ok().files();
        assert_eq!(one, run(Job::Gram(job.clone()), 2).ok().files());
        assert_eq!(one, run(Job::Gram(job), 5).ok().files());
    }
}

#[test]
fn a_capture_gives_the_same_bytes_when_its_hidden_states_go_to_a_file() {
    let Some(references) = references() else { return };
    let job = gram_job(&references.join("llama/model"), &references.join("rows.jsonl"));
    let held = run(Job::Gram(job.clone()), 2).ok();
    assert_eq!(held.facts()["hidden_states_in_file"], 0);
    let spilled = run_within(Job::Gram(job), 2, Some(0)).ok();
    assert_eq!(spilled.facts()["hidden_states_in_file"], spilled.facts()["hidden_states"]);
    assert!(spilled.notes().join("\n").contains("hidden states go to a file"), "{:?}", spilled.notes());
    assert_eq!(held.files(), spilled.files());
}

#[test]
fn a_merge_gives_the_same_bytes_with_one_thread_and_with_several() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let models: Vec<_> = (0..2)
        .map(|index| {
            // Rows over one block, width over one tile, tokens under the width: every path is in it at α = 1.
            let model = toy_model(&at(&format!("model-{index}")), index, 600, 530, 9);
            let x = Tensor::randn([400, 530], (Kind::Float, Device::Cpu));
            let grams = toy_grams(&at(&format!("grams-{index}")), &x);
            source(&format!("m{index}"), &model, Some(&grams))
        })
        .collect();
    for alpha in [0.1, 1.0] {
        let job = regmean_job(models.clone(), alpha);
        let one = run(Job::Merge(job.clone()), 1).ok().files();
        assert_eq!(one, run(Job::Merge(job.clone()), 2).ok().files());
        assert_eq!(one, run(Job::Merge(job), 3).ok().files());
    }
}
