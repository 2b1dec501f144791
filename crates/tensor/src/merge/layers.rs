//! What a tensor is: whether a linear layer's weight, and how deep it lies.

use std::ops::Range;

use mergelab_wire::Place;

use crate::gram::GramSet;

/// Linear projections of the native families.
const PROJECTIONS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Families whose linear layers are [`PROJECTIONS`] and `lm_head`, and nothing else.
const KNOWN: [&str; 4] = mergelab_wire::NATIVE_FAMILIES;

/// Families whose layers have their weights as `[in, out]`.
const TRANSPOSED: [&str; 4] = ["gpt2", "openai-gpt", "imagegpt", "decision_transformer"];

/// Parts of names that embeddings go by.
const EMBEDDINGS: [&str; 6] = ["embed", "wte", "wpe", "shared", "relative_attention_bias", "position"];

/// Whether `name` is the weight of a linear layer, in a model with these Grams.
///
/// What the Grams say goes first: an engine that saw the whole model lists every matrix that is one, with or without a
/// Gram ([`GramSet::is_linear`]), and one that any set lists is one. Names decide where a set does not say.
pub fn is_linear(sets: &[GramSet], family: Option<&str>, name: &str, shape: &[usize]) -> bool {
    let said: Option<Vec<bool>> = sets.iter().map(|set| set.is_linear(name)).collect();
    match said {
        Some(said) if !said.is_empty() => said.contains(&true),
        _ => is_linear_by_name(family, name, shape),
    }
}

/// Whether `name` goes by the name of a linear layer's weight.
///
/// For the native families by the projections' names; otherwise every matrix `*.weight` that is not an embedding.
fn is_linear_by_name(family: Option<&str>, name: &str, shape: &[usize]) -> bool {
    let Some(module) = name.strip_suffix(".weight") else { return false };
    if shape.len() != 2 {
        return false;
    }
    if family.is_some_and(|family| KNOWN.contains(&family)) {
        let last = module.rsplit('.').next().unwrap_or(module);
        return last == "lm_head" || PROJECTIONS.contains(&last);
    }
    !EMBEDDINGS.iter().any(|part| module.contains(part))
}

/// Whether a family's linear layers are stored as `[in, out]`.
pub fn is_transposed(family: Option<&str>) -> bool {
    family.is_some_and(|family| TRANSPOSED.contains(&family))
}

/// Whether the linear layer `name` is stored as `[in, out]`; what such a family has behind its layers, as a head, is not.
pub fn is_transposed_layer(family: Option<&str>, name: &str) -> bool {
    is_transposed(family) && depth(name).is_some()
}

/// Whether `name` is an embedding or an output projection: its rows are the vocabulary.
pub fn is_vocabulary(name: &str) -> bool {
    ["embed_tokens.weight", "lm_head.weight", "wte.weight", "word_embeddings.weight", "embed_out.weight"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Whether `name` has a row, or an entry, for each token.
pub fn is_by_token(name: &str) -> bool {
    is_vocabulary(name)
        || [
            "lm_head.bias",
            "embed_out.bias",
            "predictions.bias",
            "predictions.decoder.weight",
            "predictions.decoder.bias",
        ]
        .iter()
        .any(|end| name.ends_with(end))
}

/// How many layers a model with these tensors has; one where no name has a number.
pub fn count<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.filter_map(depth).max().map_or(1, |last| last + 1)
}

/// The layer number in a name: 3 in `model.layers.3.mlp.up_proj.weight`.
pub fn depth(name: &str) -> Option<usize> {
    name[number(name)?].parse().ok()
}

/// A name with another layer number; the name itself where it has none.
pub fn renumbered(name: &str, depth: usize) -> String {
    match number(name) {
        Some(place) => format!("{}{depth}{}", &name[..place.start], &name[place.end..]),
        None => name.to_owned(),
    }
}

/// What stands before the layer number in a name: whose layer it is, where a model has several stacks of them.
pub fn stack(name: &str) -> Option<&str> {
    Some(&name[..number(name)?.start])
}

/// Whether a tensor that is in no layer lies before them all.
pub fn is_before_layers(name: &str) -> bool {
    EMBEDDINGS.iter().any(|part| name.contains(part)) && !name.ends_with("embed_out.weight")
}

/// Where the layer number stands in a name.
fn number(name: &str) -> Option<Range<usize>> {
    let start = Place::of(name).layer?.stack.len() + 1;
    let digits = name[start..].split('.').next()?.len();
    Some(start..start + digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_layers_of_a_known_family_are_its_projections_and_the_head() {
        let linear = |name: &str| is_linear_by_name(Some("llama"), name, &[4, 4]);
        assert!(linear("model.layers.0.self_attn.q_proj.weight"));
        assert!(linear("lm_head.weight"));
        assert!(!linear("model.embed_tokens.weight"));
        assert!(!linear("model.layers.0.something.weight"));
        assert!(!is_linear_by_name(Some("llama"), "model.layers.0.self_attn.q_proj.bias", &[4]));
    }

    #[test]
    fn in_an_unknown_family_every_matrix_but_embeddings_is_linear() {
        assert!(is_linear_by_name(None, "encoder.layer.0.attention.self.query.weight", &[4, 4]));
        assert!(!is_linear_by_name(None, "embeddings.word_embeddings.weight", &[9, 4]));
        assert!(!is_linear_by_name(None, "encoder.layer.0.LayerNorm.weight", &[4]));
    }

    #[test]
    fn layers_of_gpt2_are_transposed_and_its_heads_are_not() {
        assert!(is_transposed_layer(Some("gpt2"), "transformer.h.0.attn.c_attn.weight"));
        assert!(!is_transposed_layer(Some("gpt2"), "score.weight"));
        assert!(!is_transposed_layer(Some("gpt_neox"), "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"));
        assert!(!is_transposed_layer(None, "h.0.attn.c_attn.weight"));
    }

    #[test]
    fn depth_is_the_number_after_layers() {
        assert_eq!(depth("model.layers.13.mlp.up_proj.weight"), Some(13));
        assert_eq!(depth("transformer.h.2.attn.c_attn.weight"), Some(2));
        assert_eq!(depth("lm_head.weight"), None);
        assert_eq!(depth("model.layers.norm.0.weight"), None);
    }

    #[test]
    fn a_layer_gets_another_number_and_keeps_those_of_its_experts() {
        let name = "model.layers.13.mlp.experts.13.up_proj.weight";
        assert_eq!(renumbered(name, 4), "model.layers.4.mlp.experts.13.up_proj.weight");
        assert_eq!(stack(name), Some("model.layers."));
        assert_eq!(renumbered("model.norm.weight", 4), "model.norm.weight");
        assert_eq!(stack("model.norm.weight"), None);
    }

    #[test]
    fn embeddings_lie_before_the_layers_and_norms_and_heads_behind_them() {
        for name in
            ["model.embed_tokens.weight", "transformer.wpe.weight", "transformer.word_embeddings_layernorm.bias"]
        {
            assert!(is_before_layers(name), "{name}");
        }
        for name in ["model.norm.weight", "lm_head.weight", "embed_out.weight", "score.weight", "transformer.ln_f.bias"]
        {
            assert!(!is_before_layers(name), "{name}");
        }
    }
}
