//! What a tensor's name says: whether it is a linear layer's weight, and how deep it lies.

/// Linear projections of the native families.
const PROJECTIONS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Families whose linear layers are [`PROJECTIONS`] and `lm_head`, and nothing else.
const KNOWN: [&str; 4] = crate::model::config::NATIVE_FAMILIES;

/// Parts of names that embeddings go by.
const EMBEDDINGS: [&str; 6] = ["embed", "wte", "wpe", "shared", "relative_attention_bias", "position"];

/// Whether `name` is the weight of a linear layer.
///
/// For the native families by the projections' names; otherwise every matrix `*.weight` that is not an embedding.
pub fn is_linear(family: Option<&str>, name: &str, shape: &[usize]) -> bool {
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

/// Whether `name` is an embedding or an output projection: its rows are the vocabulary.
pub fn is_vocabulary(name: &str) -> bool {
    ["embed_tokens.weight", "lm_head.weight", "wte.weight", "word_embeddings.weight", "embed_out.weight"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// The layer number in a name: 3 in `model.layers.3.mlp.up_proj.weight`.
pub fn depth(name: &str) -> Option<usize> {
    let mut parts = name.split('.');
    while let Some(part) = parts.next() {
        if matches!(part, "layers" | "layer" | "h" | "blocks" | "block") {
            return parts.next()?.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_layers_of_a_known_family_are_its_projections_and_the_head() {
        let linear = |name: &str| is_linear(Some("llama"), name, &[4, 4]);
        assert!(linear("model.layers.0.self_attn.q_proj.weight"));
        assert!(linear("lm_head.weight"));
        assert!(!linear("model.embed_tokens.weight"));
        assert!(!linear("model.layers.0.something.weight"));
        assert!(!is_linear(Some("llama"), "model.layers.0.self_attn.q_proj.bias", &[4]));
    }

    #[test]
    fn in_an_unknown_family_every_matrix_but_embeddings_is_linear() {
        assert!(is_linear(None, "encoder.layer.0.attention.self.query.weight", &[4, 4]));
        assert!(!is_linear(None, "embeddings.word_embeddings.weight", &[9, 4]));
        assert!(!is_linear(None, "encoder.layer.0.LayerNorm.weight", &[4]));
    }

    #[test]
    fn depth_is_the_number_after_layers() {
        assert_eq!(depth("model.layers.13.mlp.up_proj.weight"), Some(13));
        assert_eq!(depth("transformer.h.2.attn.c_attn.weight"), Some(2));
        assert_eq!(depth("lm_head.weight"), None);
    }
}
