//! Grams of ranges of rows, and their sum: the same as of all rows at once.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use mergelab_tensor::gram::GramSet;
use mergelab_tensor::gram::index::{GramEntry, GramIndex};
use mergelab_wire::{AddGramsJob, GramJob, GramPart, Job, RowRange, Rows};
use tch::{Device, Kind, Tensor};

use crate::support::{TOY_LAYER, gram_job, references, regmean_job, run, source, toy_grams, toy_model};

fn part(name: &str, path: &Path) -> GramPart {
    GramPart { name: name.to_owned(), path: path.to_path_buf() }
}

fn add(parts: &[(&str, &Path)]) -> Job {
    Job::AddGrams(AddGramsJob { parts: parts.iter().map(|(name, path)| part(name, path)).collect() })
}

/// The greatest difference of two artifacts' elements, over `√(gii gjj)`; their modules and tokens must be the same.
fn farthest(found: &Path, expected: &Path) -> f64 {
    let (found, expected) = (GramSet::open(found).unwrap(), GramSet::open(expected).unwrap());
    assert_eq!(found.modules().collect::<Vec<_>>(), expected.modules().collect::<Vec<_>>());
    let gap = |module: &str| {
        let (one, other) = (found.entry(module).unwrap(), expected.entry(module).unwrap());
        assert_eq!(one, other, "{module}");
        let matrix = |set: &GramSet, entry| set.matrix(entry).unwrap().to_kind(Kind::Double);
        let (one, other) = (matrix(&found, one), matrix(&expected, other));
        let scale = other.diag(0).sqrt();
        ((one - &other) / scale.outer(&scale)).abs().max().double_value(&[])
    };
    expected.modules().map(gap).fold(0.0, f64::max)
}

fn captured(job: &GramJob, range: RowRange) -> crate::support::Outcome {
    run(Job::Gram(GramJob { range: Some(range), ..job.clone() }), 2).ok()
}

#[test]
fn the_sum_of_shards_is_the_capture_of_all_rows_and_a_merge_takes_it() {
    let Some(references) = references() else { return };
    let model = references.join("llama/model");
    let job = gram_job(&model, &references.join("rows.jsonl"));
    let rows = fs::read_to_string(&job.data).unwrap().lines().count() as u64;
    let whole = run(Job::Gram(job.clone()), 2).ok();
    for shards in 1..=3 {
        let size = rows.div_ceil(shards);
        let ranges = (0..shards).map(|index| RowRange { first: index * size, count: size });
        let outcomes: Vec<_> = ranges.map(|range| captured(&job, range)).collect();
        let tokens = |outcome: &crate::support::Outcome| outcome.facts()["tokens_counted"].as_u64().unwrap();
        assert_eq!(outcomes.iter().map(tokens).sum::<u64>(), tokens(&whole), "{shards} shards");
        let parts: Vec<(&str, &Path)> = outcomes.iter().map(|outcome| ("part", &*outcome.out)).collect();
        let sum = run(add(&parts), 2).ok();
        // Of another number of rows, products of the forward pass round in another way on some processors.
        assert!(farthest(&sum.out, &whole.out) < 1e-5, "{shards} shards: {}", farthest(&sum.out, &whole.out));
        assert_eq!(sum.facts()["tokens_counted"], whole.facts()["tokens_counted"]);
        let (found, expected) = (sum.json("layers.json"), whole.json("layers.json"));
        for (found, expected) in found["inputs"].as_array().unwrap().iter().zip(expected["inputs"].as_array().unwrap())
        {
            assert_eq!((&found["modules"], &found["width"]), (&expected["modules"], &expected["width"]));
            for figure in ["trace", "first_token_share"] {
                let (found, expected) = (found[figure].as_f64().unwrap(), expected[figure].as_f64().unwrap());
                assert!((found / expected - 1.0).abs() < 1e-5, "{figure}: {found} {expected}");
            }
        }
        assert_eq!(run(add(&parts), 1).ok().files(), sum.files(), "the number of threads changes no byte");
        let models = vec![source("a", &model, Some(&sum.out)), source("b", &model, Some(&whole.out))];
        run(Job::Merge(regmean_job(models, 0.5)), 2).ok();
    }
}

/// A model of `references` with four rows, of which two give no tokens that count: one lacks a column, one is blank.
fn sparse(directory: &Path, references: &Path) -> GramJob {
    let data = directory.join("rows.jsonl");
    fs::write(&data, "{\"text\": \"one two three\"}\n{\"other\": 1}\n{\"text\": \" \"}\n{\"text\": \"four\"}\n")
        .unwrap();
    GramJob { rows: Rows::Text("{{ text }}".to_owned()), ..gram_job(&references.join("llama/model"), &data) }
}

#[test]
fn a_shard_whose_rows_give_no_tokens_is_empty_and_others_make_up_for_it() {
    let Some(references) = references() else { return };
    let home = tempfile::tempdir().unwrap();
    let job = sparse(home.path(), references);
    let [first, lacking, empty, last] = [0, 1, 2, 3].map(|first| captured(&job, RowRange { first, count: 1 }));
    // Rows keep their numbers in the whole file.
    for (shard, reason) in [
        (&lacking, "1 row(s) lack column \"text\" (first: row 2), skipped"),
        (&empty, "1 row(s) are empty (first: row 3), skipped"),
    ] {
        assert_eq!(GramSet::open(&shard.out).unwrap().modules().count(), 0);
        assert!(shard.notes().iter().any(|note| note.ends_with(reason)), "{:?}", shard.notes());
    }
    let parts = [("p/shard-0", &*first.out), ("p/shard-1", &lacking.out), ("p/shard-2", &last.out)];
    let sum = run(add(&parts), 1).ok();
    assert_eq!(sum.notes(), ["p/shard-1: no row gives a token that counts"]);
    let whole = run(Job::Gram(job), 1).ok();
    assert!(farthest(&sum.out, &whole.out) < 1e-5);

    let nothing = run(add(&[("p/shard-0", &empty.out), ("p/shard-1", &empty.out)]), 1);
    assert_eq!(nothing.code, 3, "{}", nothing.stderr);
    assert!(nothing.stderr.contains("none of the 2 parts has a row that gives a token that counts"));
}

#[test]
fn strict_refuses_in_a_shard_what_it_refuses_in_the_whole() {
    let Some(references) = references() else { return };
    let home = tempfile::tempdir().unwrap();
    let job = GramJob { strict: true, range: Some(RowRange { first: 2, count: 1 }), ..sparse(home.path(), references) };
    let outcome = run(Job::Gram(job), 1);
    assert_eq!(outcome.code, 3);
    assert!(outcome.stderr.contains("rows.jsonl, row 3: the row is empty"), "{}", outcome.stderr);
}

#[test]
fn a_column_that_no_row_of_the_whole_file_has_is_a_mistake_in_every_shard() {
    let Some(references) = references() else { return };
    let home = tempfile::tempdir().unwrap();
    let range = Some(RowRange { first: 1, count: 2 });
    let rows = Rows::Text("{{ texts }}".to_owned());
    let outcome = run(Job::Gram(GramJob { rows, range, ..sparse(home.path(), references) }), 1);
    assert_eq!(outcome.code, 3);
    assert!(outcome.stderr.contains("row 2: no column \"texts\""), "{}", outcome.stderr);
}

/// Two Gram artifacts of a toy model from 3 and 5 tokens, with the tokens themselves.
fn toys(home: &Path) -> ([PathBuf; 2], [Tensor; 2]) {
    tch::manual_seed(7);
    let tokens = [3, 5].map(|count| Tensor::randn([count, 6], (Kind::Float, Device::Cpu)));
    let grams =
        [("one", 0), ("two", 1)].map(|(name, index): (&str, usize)| toy_grams(&home.join(name), &tokens[index]));
    (grams, tokens)
}

fn edit_index(directory: &Path, change: impl Fn(&mut GramIndex)) {
    let path = directory.join("index.json");
    let mut index: GramIndex = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    index.write(directory).unwrap();
}

#[test]
fn parts_count_by_their_tokens_and_equally_where_those_are_not_known() {
    let home = tempfile::tempdir().unwrap();
    let ([one, two], tokens) = toys(home.path());
    let parts = [("one", &*one), ("two", &*two)];
    let mean = |x: &Tensor| x.tr().matmul(x).to_kind(Kind::Double) / x.size()[0] as f64;
    let found = |out: &Path| {
        let set = GramSet::open(out).unwrap();
        let entry = set.entry(TOY_LAYER).unwrap().clone();
        (set.matrix(&entry).unwrap().to_kind(Kind::Double), entry.n)
    };
    let (sum, n) = found(&run(add(&parts), 1).ok().out);
    let all = Tensor::cat(&tokens, 0);
    assert!((sum - mean(&all)).abs().max().double_value(&[]) < 1e-6);
    assert_eq!(n, Some(8));
    edit_index(&two, |index| index.modules[0].n = None);
    let outcome = run(add(&parts), 1).ok();
    let (sum, n) = found(&outcome.out);
    assert!((sum - (mean(&tokens[0]) + mean(&tokens[1])) / 2.0).abs().max().double_value(&[]) < 1e-6);
    assert_eq!(n, None);
    assert!(!outcome.out.join("layers.json").exists(), "matrices without figures have none together");
}

#[test]
fn parts_that_do_not_fit_are_named_with_the_module() {
    let home = tempfile::tempdir().unwrap();
    let ([one, two], _) = toys(home.path());
    let refused = |two: &Path, message: &str| {
        let outcome = run(add(&[("p/shard-0", &one), ("p/shard-1", two)]), 1);
        assert_eq!(outcome.code, 1);
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
    };
    edit_index(&two, |index| {
        let entry = index.modules.shift_remove(TOY_LAYER).unwrap();
        index.modules.insert("other".to_owned(), entry);
    });
    refused(&two, &format!("p/shard-1: {TOY_LAYER}: it has no Gram matrix here"));
    let entry = |index: &mut GramIndex| index.modules["other"].clone();
    edit_index(&two, |index| {
        let shared = entry(index);
        index.modules.insert(TOY_LAYER.to_owned(), shared);
    });
    refused(&two, "p/shard-0: other: it has no Gram matrix here");
    let wide = toy_grams(&home.path().join("wide"), &Tensor::randn([4, 7], (Kind::Float, Device::Cpu)));
    refused(
        &wide,
        &format!(
            "p/shard-1: {TOY_LAYER}: a matrix of width 7 in tiles of 7 here, of width 6 in tiles of 6 in p/shard-0"
        ),
    );
    // A merge of the toy takes the sum as it takes what was captured at once.
    let fit = toy_grams(&home.path().join("fit"), &Tensor::randn([4, 6], (Kind::Float, Device::Cpu)));
    let sum = run(add(&[("one", &one), ("fit", &fit)]), 1).ok();
    let model = toy_model(&home.path().join("model"), 1, 3, 6, 9);
    let models = vec![source("a", &model, Some(&sum.out)), source("b", &model, Some(&fit))];
    run(Job::Merge(regmean_job(models, 0.1)), 1).ok();
}

/// Says of modules of a part why they have no Gram.
fn without(directory: &Path, modules: &[(&str, &str)]) {
    edit_index(directory, |index| {
        for (module, _) in modules {
            index.modules.shift_remove(*module);
        }
        let reasons = modules.iter().map(|(module, reason)| (format!("{module}.weight"), (*reason).to_owned()));
        index.without = Some(reasons.collect());
    });
}

fn with_second_module(directory: &Path, name: &str) {
    edit_index(directory, |index| {
        let entry = index.modules[TOY_LAYER].clone();
        index.modules.insert(name.to_owned(), GramEntry { transposed: true, ..entry });
        index.without = Some(IndexMap::from([("fused.weight".to_owned(), "it is no linear layer's".to_owned())]));
    });
}

#[test]
fn a_module_that_no_token_of_a_part_reached_counts_there_for_nothing() {
    let home = tempfile::tempdir().unwrap();
    let ([one, two], tokens) = toys(home.path());
    // The second part has one matrix more than what is left of the first.
    toy_grams(&home.path().join("expert"), &tokens[1]);
    fs::copy(home.path().join("expert/layer.safetensors"), two.join("expert.safetensors")).unwrap();
    edit_index(&two, |index| {
        let entry = index.modules[TOY_LAYER].clone();
        index.modules.insert("expert".to_owned(), GramEntry { file: "expert.safetensors".to_owned(), ..entry });
        index.without = Some(IndexMap::new());
    });
    without(&one, &[("expert", "it never ran")]);
    let sum = run(add(&[("one", &one), ("two", &two)]), 1).ok();
    let set = GramSet::open(&sum.out).unwrap();
    assert_eq!((set.entry(TOY_LAYER).unwrap().n, set.entry("expert").unwrap().n), (Some(8), Some(5)));
    assert_eq!(set.without(), Some(&IndexMap::new()), "it has a Gram now");
    let matrix = |set: &GramSet| set.matrix(set.entry("expert").unwrap()).unwrap();
    assert_eq!(matrix(&set), matrix(&GramSet::open(&two).unwrap()));
    let program = include_str!("../../../../gram-transformers/gram.py");
    assert!(program.contains("\"it never ran\""), "it is what that program says");

    without(&one, &[("expert", "none of its tokens counts, as far as can be told")]);
    let sum = run(add(&[("two", &two), ("one", &one)]), 1).ok();
    let set = GramSet::open(&sum.out).unwrap();
    assert!(set.entry("expert").is_none());
    assert_eq!(set.why_without("expert.weight"), Some("none of its tokens counts, as far as can be told"));
}

#[test]
fn what_an_artifact_says_of_weights_is_said_of_the_sum() {
    let home = tempfile::tempdir().unwrap();
    let ([one, two], _) = toys(home.path());
    with_second_module(&one, "conv");
    with_second_module(&two, "conv");
    let parts = [("p/shard-0", &*one), ("p/shard-1", &*two)];
    let sum = run(add(&parts), 1).ok();
    let set = GramSet::open(&sum.out).unwrap();
    assert!(set.entry("conv").unwrap().transposed && !set.entry(TOY_LAYER).unwrap().transposed);
    assert_eq!(set.why_without("fused.weight"), Some("it is no linear layer's"));
    edit_index(&two, |index| index.modules["conv"].transposed = false);
    let outcome = run(add(&parts), 1);
    assert_eq!(outcome.code, 1);
    let message = "p/shard-1: conv: its weight lies the other way round here than in p/shard-0";
    assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
}
