//! Where in a model a tensor lies, as its name says.

/// Where a tensor lies: in which layer, and what it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The layer, for what lies in one.
    pub layer: Option<Layer<'a>>,
    /// What it is in its layer: `mlp.up_proj.weight`; outside of layers the whole name.
    pub kind: &'a str,
}

/// One of the layers that stand one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layer<'a> {
    /// The stack that it is one of: `model.layers`.
    pub stack: &'a str,
    /// Its number, from 0.
    pub number: usize,
}

/// What stacks of layers are called in the models of transformers.
const STACKS: [&str; 5] = ["layers", "layer", "h", "blocks", "block"];

impl<'a> Place<'a> {
    /// Of a tensor or a module by its name.
    #[must_use]
    pub fn of(name: &'a str) -> Self {
        Self::in_layer(name).unwrap_or(Self { layer: None, kind: name })
    }

    fn in_layer(name: &'a str) -> Option<Self> {
        let mut end = 0;
        for part in name.split('.') {
            end += part.len();
            if STACKS.contains(&part) {
                let stack = &name[..end];
                let rest = name.get(end + 1..)?;
                let (number, kind) = rest.split_once('.').unwrap_or((rest, ""));
                return Some(Self { layer: Some(Layer { stack, number: number.parse().ok()? }), kind });
            }
            end += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_stack_number_and_kind() {
        let place = |name| {
            let Place { layer, kind } = Place::of(name);
            (layer.map(|layer| (layer.stack, layer.number)), kind)
        };
        assert_eq!(place("model.layers.13.mlp.up_proj.weight"), (Some(("model.layers", 13)), "mlp.up_proj.weight"));
        assert_eq!(place("transformer.h.2.ln_1.bias"), (Some(("transformer.h", 2)), "ln_1.bias"));
        assert_eq!(
            place("decoder.block.0.layer.1.layer_norm.weight"),
            (Some(("decoder.block", 0)), "layer.1.layer_norm.weight")
        );
        assert_eq!(place("h.7"), (Some(("h", 7)), ""));
        for outside in ["lm_head.weight", "model.layers", "model.layers.x.weight", "", "layers."] {
            assert_eq!(place(outside), (None, outside));
        }
    }
}
