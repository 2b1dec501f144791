//! What the name of a tensor in an adapter says: of which module it is, and which part.

/// Which part of a module's change a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// `A` `[rank, in]` of a linear layer.
    A,
    /// `B` `[out, rank]` of a linear layer.
    B,
    /// `A` `[rank, vocabulary]` of an embedding.
    EmbeddingA,
    /// `B` `[width, rank]` of an embedding.
    EmbeddingB,
    /// The tensor itself, in the place of the model's: what was trained whole.
    Whole,
}

/// What every name begins with: PEFT's two wrappers around a model.
pub(super) const PREFIX: &str = "base_model.model.";

/// Parts by the end of a name.
const ENDS: [(&str, Part); 4] = [
    (".lora_A.weight", Part::A),
    (".lora_B.weight", Part::B),
    (".lora_embedding_A", Part::EmbeddingA),
    (".lora_embedding_B", Part::EmbeddingB),
];

/// PEFT's names of the module inside of one of its own.
const WRAPPERS: [&str; 2] = [".base_layer.", ".modules_to_save."];

/// The module and the part of a tensor; of one that was trained whole its name in the model. Nothing for a name that is no
/// LoRA's.
pub(super) fn read(name: &str) -> Option<(String, Part)> {
    let name = name.strip_prefix(PREFIX)?;
    if let Some((module, part)) = ENDS.iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, *part))) {
        return Some((module.to_owned(), part));
    }
    if name.contains(".lora_") {
        return None;
    }
    let plain = WRAPPERS.iter().fold(name.to_owned(), |name, wrapper| name.replace(wrapper, "."));
    Some((plain, Part::Whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_module_and_part() {
        let read = |name: &str| read(name).map(|(name, part)| format!("{name} {part:?}"));
        let layer = "base_model.model.model.layers.0.self_attn.q_proj";
        assert_eq!(read(&format!("{layer}.lora_A.weight")).unwrap(), "model.layers.0.self_attn.q_proj A");
        assert_eq!(read(&format!("{layer}.lora_B.weight")).unwrap(), "model.layers.0.self_attn.q_proj B");
        assert_eq!(read(&format!("{layer}.base_layer.bias")).unwrap(), "model.layers.0.self_attn.q_proj.bias Whole");
        assert_eq!(
            read("base_model.model.model.embed_tokens.lora_embedding_A").unwrap(),
            "model.embed_tokens EmbeddingA"
        );
        assert_eq!(read("base_model.model.lm_head.modules_to_save.weight").unwrap(), "lm_head.weight Whole");
        assert_eq!(read("base_model.model.lm_head.weight").unwrap(), "lm_head.weight Whole");
        assert_eq!(read(&format!("{layer}.lora_magnitude_vector.weight")), None);
        assert_eq!(read("model.layers.0.self_attn.q_proj.lora_A.weight"), None);
    }
}
