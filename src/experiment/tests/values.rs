//! Values that do not go together: weights that cancel each other, densities that leave no room for an epsilon.

use super::{errors, shown, valid, with};

fn weights(method: &str, a: &str, b: &str) -> String {
    format!(
        "merges: {{ m: {{ method: {method}, models: [{{ model: a, weight: {a} }}, {{ model: b, weight: {b} }}] }} }}"
    )
}

fn one(sections: &str) -> String {
    let found = errors(sections);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().expect("one")
}

#[test]
fn weights_by_tensor_name_that_cancel_each_other_are_refused_where_that_is_certain() {
    let by_name = |mlp: &str, rest: &str| format!("[{{ filter: mlp, value: {mlp} }}, {{ value: {rest} }}]");
    let average = |a: &str, b: &str| weights("average", a, b);
    let for_mlp = "the weights add up to 0 for tensors with `mlp` in their names";
    assert_eq!(one(&average(&by_name("-1", "1"), "1")), for_mlp);
    assert_eq!(one(&average("1", &by_name("-1", "1"))), for_mlp);
    assert_eq!(one(&average(&by_name("-1", "1"), &by_name("1", "1"))), for_mlp);
    assert_eq!(one(&average(&by_name("1", "1"), &by_name("[1, -1]", "1"))), format!("{for_mlp} at the last layer"));
    assert_eq!(
        one(&average(&by_name("1", "0.1"), &by_name("1", "-0.1"))),
        "the weights add up to 0 for tensors that no filter fits"
    );
    // What no filter fits has the weight 1.
    assert_eq!(
        one(&average("[{ filter: mlp, value: 2 }]", "-1")),
        "the weights add up to 0 for tensors that no filter fits"
    );
    // 0.1 + 0.2 - 0.3 is not 0 in floating point, and what is left of it is no weight.
    let three = "merges: { m: { method: average, models: [{ model: a, weight: 0.1 }, { model: b, weight: 0.2 }, { model: base, weight: -0.3 }] } }";
    assert_eq!(one(three), "the weights add up to 0");
    // A tensor with `up_proj` in its name may have `mlp` in it as well, or not.
    valid(&average(&by_name("1", "-1"), "[{ filter: up_proj, value: 1 }, { value: 2 }]"));
    valid(&average(&by_name("-1", "1"), "1").replace("average,", "average, normalize: false,"));
    let sphere = |method: &str| weights(method, &by_name("-1", "1"), "1");
    assert_eq!(one(&sphere("multislerp")), for_mlp);
    valid(&sphere("multislerp, normalize_weights: false"));
    valid(&sphere("nuslerp"));
    assert_eq!(
        one(&format!(
            "{GRAMS} [{{ model: a, weight: [{{ filter: mlp, value: 0 }}, {{ value: 1 }}] }}, {{ model: b, weight: 0 }}] }} }}"
        )),
        for_mlp
    );
}

const GRAMS: &str = "merges: { m: { method: regmean, grams: [ga, gb], models:";

#[test]
fn the_weight_that_says_for_which_tensors_is_shown() {
    insta::assert_snapshot!(shown(
        "merges:
  m:
    method: average
    models:
      - model: a
      - model: b
        weight:
          - { filter: mlp, value: -1 }
          - { value: 0.5 }
"
    ));
}

fn della(keys: &str, a: &str) -> String {
    format!("merges: {{ m: {{ method: della_linear, base: base, {keys}, models: [{{ model: a, {a} }}, b] }} }}")
}

#[test]
fn a_density_that_leaves_no_room_for_its_epsilon_is_refused_where_that_is_certain() {
    let no_room =
        |density: &str, epsilon: &str| format!("`density` {density} has no room for an `epsilon` of {epsilon}");
    let merge = |keys: &str| one(&della(keys, "weight: 1"));
    assert_eq!(merge("density: 0.9"), no_room("0.9", "0.15"));
    assert_eq!(merge("density: 0.85"), no_room("0.85", "0.15"));
    assert_eq!(merge("density: 0.1"), no_room("0.1", "0.15"));
    assert_eq!(merge("density: 0.5, epsilon: 0.5"), no_room("0.5", "0.5"));
    assert_eq!(merge("density: [0.5, 0.95]"), no_room("0.95", "0.15"));
    assert_eq!(merge("density: [{ filter: mlp, value: 0.9 }, { value: 0.5 }]"), no_room("0.9", "0.15"));
    assert_eq!(merge("density: 0.5, epsilon: [{ filter: mlp, value: 0.6 }]"), no_room("0.5", "0.6"));
    for fit in [
        "density: 0.9, epsilon: 0.05",
        "density: 1",
        "density: 0",
        "epsilon: 0.9",
        "density: [0, 0.5, 1]",
        "density: [{ filter: mlp, value: 0.9 }, { value: 0.5 }], epsilon: [{ filter: mlp, value: 0.05 }]",
        // Whether there are tensors with `mlp` and without `up_proj` in their names only the models say.
        "density: [{ filter: mlp, value: 0.9 }, { value: 0.5 }], epsilon: [{ filter: up_proj, value: 0.05 }]",
    ] {
        valid(&della(fit, "weight: 1"));
    }
    assert_eq!(one(&della("density: 0.5", "density: 0.9")), no_room("0.9", "0.15"));
    assert_eq!(one(&della("density: 0.9, epsilon: 0.05", "epsilon: 0.2")), no_room("0.9", "0.2"));
    valid(&della("density: 0.5", "density: 0.9, epsilon: 0.05"));
    // Other methods have an epsilon of another meaning, or none.
    assert!(with(&della("density: 0.9", "weight: 1").replace("della_linear", "dare_linear")).is_ok());
}

#[test]
fn in_a_slice_each_layer_has_a_density_that_is_known() {
    let slice = |end: usize, density: &str| {
        format!(
            "merges: {{ m: {{ method: della, base: base, density: 0.9, slices: [{{ models: [{{ model: base, layers: [0, {end}] }},
               {{ model: a, layers: [0, {end}], density: {density} }}] }}] }} }}"
        )
    };
    valid(&slice(2, "[0.5, 0.95, 0.5]"));
    assert_eq!(one(&slice(3, "[0.5, 0.95, 0.5]")), "`density` 0.95 has no room for an `epsilon` of 0.15");
    assert_eq!(one(&slice(1, "[0.5, 0.95]")), "`density` 0.95 has no room for an `epsilon` of 0.15");
    valid(&slice(1, "[0.95, 0.5]"));
}

#[test]
fn density_and_epsilon_are_shown_where_they_stand() {
    insta::assert_snapshot!(shown(
        "merges:
  m:
    method: della
    base: base
    epsilon: 0.2
    models:
      - a
      - model: b
        density: [0.5, 0.9]
"
    ));
}
