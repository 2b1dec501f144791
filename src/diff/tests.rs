//! Two models and two sets of results, with figures worked out by hand.

use std::path::Path;

use mergelab_wire::{Compared, DIFFERENCE_FORMAT, Difference, LargestEntry, LoneTensor, Sums, TensorDifference};
use serde_json::json;

use super::*;
use crate::report::results::from_csv;
use crate::report::{Finding, Measurement, PairedTest};

fn sums(a: &[f64], b: &[f64]) -> Sums {
    let pairs = || a.iter().zip(b);
    let most = pairs().enumerate().map(|(at, (a, b))| (at, b - a)).filter(|(_, difference)| *difference != 0.0);
    let most = most.max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()));
    Sums {
        squares: [a, b].map(|values| Some(values.iter().map(|value| value * value).sum())),
        products: Some(pairs().map(|(a, b)| a * b).sum()),
        difference: Some(pairs().map(|(a, b)| (b - a) * (b - a)).sum()),
        elements: a.len() as u64,
        differing: pairs().filter(|(a, b)| *a - *b != 0.0).count() as u64,
        not_finite: [0, 0],
        largest: most.map(|(at, _)| LargestEntry { index: vec![at], values: [a[at], b[at]] }),
    }
}

fn tensor(name: &str, compared: Compared) -> TensorDifference {
    let dtypes = ["BF16", "BF16"].map(str::to_owned);
    TensorDifference { name: name.to_owned(), shapes: [vec![2], vec![2]], dtypes, compared }
}

fn numbers(name: &str, a: &[f64], b: &[f64]) -> TensorDifference {
    tensor(name, Compared::Numbers(sums(a, b)))
}

fn of(tensors: Vec<TensorDifference>) -> Models {
    Models::of(Difference { format: DIFFERENCE_FORMAT, tensors, only: [Vec::new(), Vec::new()], tied: [false; 2] })
}

/// Two layers, the second before the first in the file, with one of everything that can be wrong.
fn ordinary() -> Models {
    let mut wide = tensor("model.layers.0.mlp.up_proj.weight", Compared::Not);
    wide.shapes = [vec![4, 6], vec![6, 4]];
    let mut kinds = tensor("model.ids", Compared::Not);
    kinds.dtypes[1] = "I64".to_owned();
    let mut integers = tensor("model.table", Compared::Bytes { differing: 3 });
    integers.dtypes = ["I64", "I64"].map(str::to_owned);
    let broken = Sums { not_finite: [1, 2], differing: 2, ..sums(&[1.0, 0.0], &[1.0, 0.0]) };
    let mut stored = numbers("model.embed_tokens.weight", &[1.0, 1.0], &[1.0, 1.25]);
    stored.dtypes[1] = "F32".to_owned();
    let tensors = vec![
        stored,
        numbers("model.layers.10.self_attn.q_proj.weight", &[2.0, 0.0], &[2.0, 0.0]),
        numbers("model.layers.2.self_attn.q_proj.weight", &[3.0, 0.0], &[0.0, 4.0]),
        numbers("model.layers.2.self_attn.q_proj.bias", &[1.0, 0.0], &[1.0, 0.0]),
        tensor("model.norm.weight", Compared::Numbers(broken)),
        numbers("model.zero", &[0.0, 0.0], &[0.0, 0.5]),
        wide,
        kinds,
        integers,
    ];
    let lone = |name: &str| LoneTensor { name: name.to_owned(), shape: vec![8, 4], dtype: "F32".to_owned() };
    let only = [vec![lone("lm_head.weight")], vec![lone("b.10"), lone("b.9")]];
    Models::of(Difference { format: DIFFERENCE_FORMAT, tensors, only, tied: [false, true] })
}

#[test]
fn figures_of_a_layer_are_those_of_all_its_elements() {
    let found = ordinary();
    let layer = found.layers.iter().find(|group| group.layer == "model.layers.2").unwrap();
    // A is (3, 0, 1, 0), B is (0, 4, 1, 0): norms √10 and √17, product 1, difference 5.
    let near =
        |found: Option<f64>, expected: f64| assert!((found.unwrap() - expected).abs() < 1e-15, "{found:?}, {expected}");
    near(layer.figures.norms[0], 10.0_f64.sqrt());
    near(layer.figures.norms[1], 17.0_f64.sqrt());
    near(layer.figures.difference, 5.0);
    near(layer.figures.relative, 5.0 / 10.0_f64.sqrt());
    near(layer.figures.cosine, 1.0 / 170.0_f64.sqrt());
    let largest = layer.figures.largest.as_ref().unwrap();
    assert_eq!(
        (&*largest.tensor, &largest.index[..], largest.values),
        ("model.layers.2.self_attn.q_proj.weight", &[1][..], [0.0, 4.0])
    );
    assert_eq!((layer.tensors, layer.figures.elements, layer.figures.differing), (2, 4, 2));
    near(found.total.difference, (25.0_f64 + 0.0625 + 0.25).sqrt());
    // Zero in A has no relative difference, and no angle.
    let zero = found.layers.iter().find(|group| group.layer == "model.zero").unwrap();
    assert_eq!((zero.figures.relative, zero.figures.cosine, zero.figures.norms), (None, None, [Some(0.0), Some(0.5)]));
}

#[test]
fn a_cosine_is_never_beyond_one_and_what_is_too_large_has_no_figure() {
    let third = 1.0 / 3.0;
    let found = of(vec![numbers("a", &[third; 2], &[third; 2])]);
    assert_eq!((found.total.cosine, found.differ), (Some(1.0), false));
    let large = Sums { squares: [None, Some(1.0)], difference: None, ..sums(&[1.0], &[1.0]) };
    let found = of(vec![tensor("a", Compared::Numbers(large)), numbers("b", &[1.0], &[2.0])]);
    assert_eq!((found.total.norms[0], found.total.relative, found.total.cosine), (None, None, None));
    assert_eq!(found.total.norms[1], Some(5.0_f64.sqrt()));
}

#[test]
fn people_read_layers_in_their_order_and_all_that_is_not_compared() {
    insta::assert_snapshot!("models", ordinary().text(2, false));
    insta::assert_snapshot!("models-all", ordinary().text(2, true));
    insta::assert_snapshot!("models-csv", ordinary().csv());
    let same = of(vec![numbers("model.layers.0.q.weight", &[1.0, 2.0], &[1.0, 2.0])]);
    insta::assert_snapshot!("models-same", same.text(5, false));
    insta::assert_snapshot!("models-none", of(Vec::new()).text(5, false));
}

#[test]
fn a_type_alone_is_a_difference_and_integers_count() {
    let mut stored = numbers("a", &[1.0], &[1.0]);
    stored.dtypes[1] = "F32".to_owned();
    assert!(of(vec![stored]).differ);
    assert!(of(vec![tensor("a", Compared::Bytes { differing: 1 })]).differ);
    assert!(!of(vec![tensor("a", Compared::Bytes { differing: 0 })]).differ);
}

#[test]
fn experts_of_one_kind_are_one_cell_of_a_chart() {
    let found = of(vec![
        numbers("model.layers.0.mlp.experts.0.up_proj.weight", &[3.0], &[3.0]),
        numbers("model.layers.0.mlp.experts.1.up_proj.weight", &[4.0], &[5.0]),
        numbers("model.norm.weight", &[1.0], &[1.0]),
    ]);
    let cells: Vec<_> = found.by_layer_and_kind();
    assert_eq!(cells.len(), 1);
    assert_eq!(
        (&*cells[0].0, &*cells[0].1, cells[0].2.relative),
        ("model.layers.0", "mlp.experts.*.up_proj", Some(0.2))
    );
    assert_eq!(found.outside().map(|group| &*group.layer).collect::<Vec<_>>(), ["model.norm"]);
    insta::assert_snapshot!("chart", crate::plot::difference(&["merges.<a>".to_owned(), "m".to_owned()], &found));
}

#[test]
fn names_of_tensors_stay_text() {
    let found = of(vec![numbers("model.layers.0.<script>\u{202e}.weight", &[1.0], &[2.0])]);
    let picture = crate::plot::difference(&["a".to_owned(), "<b>".to_owned()], &found);
    assert!(
        !picture.contains("<script>") && !picture.contains('\u{202e}') && picture.contains("&lt;b&gt;"),
        "{picture}"
    );
    assert!(!found.text(5, true).contains('\u{202e}'));
}

fn figures(lines: &str) -> Vec<Measurement> {
    let header = crate::report::results::COLUMNS.join(",");
    from_csv(&format!("{header}\n{lines}"), Path::new("results.csv")).unwrap()
}

#[test]
fn scores_stand_side_by_side_with_the_error_of_two_that_have_nothing_to_do_with_each_other() {
    let a = figures(
        "avg,gsm8k,exact_match,strict,5,0.60,0.03,100,measured,\n\
         avg,add,acc,none,0,0.5,0,100,measured,\n\
         avg,mbpp,pass@1,none,,0.4,,,published,\n\
         same,gsm8k,exact_match,strict,5,0.7,0.02,100,measured,\n\
         near,gsm8k,exact_match,strict,5,0.7,0.02,100,measured,\n\
         gone,gsm8k,exact_match,strict,5,0.7,0.02,100,measured,\n",
    );
    let b = figures(
        "new,gsm8k,exact_match,strict,5,0.1,,100,measured,\n\
         near,gsm8k,exact_match,strict,5,0.72,0.02,100,measured,\n\
         same,gsm8k,exact_match,strict,5,0.7,0.02,100,measured,\n\
         avg,mbpp,pass@1,none,,0.45,0.01,,published,\n\
         avg,add,acc,none,0,0.75,0,100,measured,\n\
         avg,gsm8k,exact_match,strict,0,0.73,0.04,100,measured,\n",
    );
    let scores = Scores(match_up([&a, &b]).unwrap());
    // √(0.03² + 0.04²) is 0.05, of which 0.13 is 2.6.
    let first = &scores.0[0];
    assert!((first.stderr().unwrap() - 0.05).abs() < 1e-15 && (first.stderrs_apart().unwrap() - 2.6).abs() < 1e-12);
    assert!(first.is_beyond());
    // Two errors of zero say nothing, and one error alone is not that of a difference.
    assert_eq!((scores.0[1].stderrs_apart(), scores.0[1].is_beyond()), (None, false));
    assert_eq!((scores.0[2].stderr(), scores.0[2].is_beyond()), (None, false));
    assert!(scores.differ());
    insta::assert_snapshot!("scores", scores.text(false));
    insta::assert_snapshot!("scores-all", scores.text(true));
    insta::assert_snapshot!("scores-csv", scores.csv());
    assert!(!Scores(match_up([&a, &a]).unwrap()).differ());
    assert_eq!(Scores(Vec::new()).text(false), "no scores on either side\n");
}

#[test]
fn a_test_on_documents_counts_where_it_is_of_the_figures() {
    let a = figures("m,t,acc,none,,0.5,0.1,10,measured,aa\n");
    let b = figures("m,t,acc,none,,0.7,0.1,10,measured,bb\n");
    let paired = |difference: f64| {
        let mut scores = match_up([&a, &b]).unwrap();
        let test = PairedTest::McNemar;
        scores[0].pairing = Pairing::Found(Finding { n: 10, difference, stderr: Some(0.05), test, p: 0.03 });
        Scores(scores)
    };
    let of_figures = paired(0.2);
    assert_eq!((of_figures.0[0].stderr(), of_figures.0[0].is_beyond()), (Some(0.05), true));
    assert_eq!(of_figures.json()[0]["paired"]["p"], json!(0.03));
    insta::assert_snapshot!("scores-paired", of_figures.text(false));
    // A group's figure, in which tasks count alike: the documents say something else.
    let of_others = paired(0.1);
    assert!((of_others.0[0].stderr().unwrap() - 0.02_f64.sqrt()).abs() < 1e-15);
    assert_eq!(of_others.json()[0]["paired"], json!(null));
    // Of one evaluation there is nothing to tell apart.
    let mut same = match_up([&a, &a]).unwrap();
    same[0].pairing = Pairing::Same;
    assert_eq!((same[0].stderr(), same[0].is_beyond()), (None, false));
}

#[test]
fn a_figure_that_stands_twice_is_refused_with_its_side() {
    let once = figures("m,t,acc,,,0.5,,,measured,\n");
    let twice = figures("m,t,acc,,,0.5,,,measured,\nm,t,acc,,,0.6,,,measured,\n");
    let (side, error) = match_up([&once, &twice]).unwrap_err();
    assert_eq!(side, 1);
    assert!(error.to_string().contains("`acc` (filter ``) of task `t` was measured twice on model `m`"), "{error}");
    // Measured and published ones are two.
    let both = figures("m,t,acc,,,0.5,,,measured,\nm,t,acc,,,0.6,,,published,\n");
    assert_eq!(match_up([&once, &both]).unwrap().len(), 2);
}
