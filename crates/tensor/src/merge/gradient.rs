//! Lists as functions of depth: α, weights and methods' parameters.
//!
//! The first value stands at the first layer, the last at the last, straight lines between. What lies in no layer takes the
//! first value: embeddings, the final norm, the output projection. So it is in mergekit 0.1.5, and in a model of one layer
//! that layer has the last value, as there.

use std::ops::Range;

use super::layers::depth;

/// A list's value at a tensor, over these layers.
///
/// # Panics
/// When the list is empty.
pub(super) fn gradient(list: &[f64], tensor: &str, layers: &Range<usize>) -> f64 {
    let share = match depth(tensor) {
        Some(depth) if layers.len() > 1 => {
            let last = layers.len() - 1;
            depth.saturating_sub(layers.start).min(last) as f64 / last as f64
        }
        Some(_) => 1.0,
        None => 0.0,
    };
    let position = share * (list.len() - 1) as f64;
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    list[low] + (list[high] - list[low]) * (position - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a stated value is compared by: it comes back as it was, and not only nearly.
    fn bits(list: &[f64], name: &str, layers: usize) -> u64 {
        gradient(list, name, &(0..layers)).to_bits()
    }

    #[test]
    fn a_gradient_runs_from_the_first_layer_to_the_last() {
        let at =
            |layer: usize| gradient(&[0.0, 1.0, 0.5], &format!("model.layers.{layer}.mlp.up_proj.weight"), &(0..5));
        for (found, expected) in (0..5).map(at).zip([0.0, 0.5, 1.0, 0.75, 0.5]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn over_some_layers_it_runs_from_the_first_of_them_to_their_last() {
        let at = |layer: usize| gradient(&[1.0, 3.0], &format!("model.layers.{layer}.mlp.up_proj.weight"), &(4..7));
        for (found, expected) in (4..7).map(at).zip([1.0, 2.0, 3.0]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(gradient(&[1.0, 3.0], "model.norm.weight", &(4..7)).to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn what_lies_in_no_layer_has_the_first_value() {
        let at = |name: &str| bits(&[0.25, 9.0, 0.75], name, 4);
        for name in ["model.embed_tokens.weight", "transformer.wte.weight", "model.norm.weight", "lm_head.weight"] {
            assert_eq!(at(name), 0.25_f64.to_bits(), "{name}");
        }
    }

    #[test]
    fn one_layer_is_the_last_one_and_one_value_holds_everywhere() {
        assert_eq!(bits(&[0.25, 0.75], "model.layers.0.mlp.up_proj.weight", 1), 0.75_f64.to_bits());
        for name in ["model.layers.2.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"] {
            assert_eq!(bits(&[0.5], name, 3), 0.5_f64.to_bits());
        }
    }
}
