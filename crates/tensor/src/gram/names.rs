//! Names of modules in Grams that were made elsewhere, matched to those of a model.
//!
//! A hook sees a module under the name that its program gave it, and programs wrap models: `DataParallel` puts `module.` in
//! front, `torch.compile` `_orig_mod.`, an adapter `base_model.model.`, a trainer another `model.`; some store a module's
//! weight's name. A model says its own names, so they are matched where both are known. What is equal is matched first;
//! the rest by what is left without wrappers, one to one or not at all.

use std::collections::{HashMap, HashSet};

/// Parts that wrappers and bases put in front.
const IN_FRONT: [&str; 4] = ["module", "_orig_mod", "base_model", "model"];

/// Parts that wrappers put anywhere.
const ANYWHERE: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// The output projection, which a model may lack because it is the embedding.
const HEAD: &str = "lm_head";

/// What Gram names are those of which modules.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Matched<'a> {
    /// Per Gram name the module's; none for the head of a model whose head is the embedding.
    pub(super) modules: Vec<Option<&'a str>>,
}

/// Why names do not match.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// No module goes by these names.
    Unknown(Vec<String>),
    /// Several names mean one module, or one name several modules.
    Ambiguous(String),
}

/// A name without wrappers: `layers.0.mlp.up_proj` of `module.model.model.layers.0.mlp.up_proj.weight`.
fn bare(name: &str) -> String {
    let parts = name.strip_suffix(".weight").unwrap_or(name).split('.');
    let parts = parts.filter(|part| !ANYWHERE.contains(part));
    parts.skip_while(|part| IN_FRONT.contains(part)).collect::<Vec<_>>().join(".")
}

/// Matches Gram names to a model's modules.
pub(super) fn matched<'a>(grams: &[&str], modules: &[&'a str]) -> Result<Matched<'a>, Mismatch> {
    let by_name: HashMap<&str, &'a str> = modules.iter().map(|module| (*module, *module)).collect();
    let named: HashSet<&str> = grams.iter().copied().filter(|gram| by_name.contains_key(gram)).collect();
    let mut others: HashMap<String, Vec<&'a str>> = HashMap::new();
    for module in modules.iter().filter(|module| !named.contains(*module)) {
        others.entry(bare(module)).or_default().push(module);
    }
    let (mut unknown, mut found, mut taken) = (Vec::new(), Vec::new(), HashMap::new());
    for gram in grams {
        if let Some(module) = by_name.get(gram) {
            found.push(Some(*module));
            continue;
        }
        let bare = bare(gram);
        match others.get(&bare).map(Vec::as_slice) {
            Some([module]) => {
                if let Some(other) = taken.insert(*module, *gram) {
                    return Err(Mismatch::Ambiguous(format!("{other:?} and {gram:?} both mean the module {module}")));
                }
                found.push(Some(*module));
            }
            Some([one, two, ..]) => {
                return Err(Mismatch::Ambiguous(format!("{gram:?} may mean the module {one} and the module {two}")));
            }
            _ if bare == HEAD && !modules.iter().any(|module| self::bare(module) == HEAD) => found.push(None),
            _ => unknown.push((*gram).to_owned()),
        }
    }
    if unknown.is_empty() { Ok(Matched { modules: found }) } else { Err(Mismatch::Unknown(unknown)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: [&str; 3] = ["model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj", "lm_head"];

    fn one<'a>(gram: &str, modules: &[&'a str]) -> Option<&'a str> {
        matched(&[gram], modules).unwrap().modules[0]
    }

    #[test]
    fn wrappers_are_seen_through() {
        for name in [
            "model.layers.0.mlp.up_proj",
            "model.layers.0.mlp.up_proj.weight",
            "module.model.layers.0.mlp.up_proj",
            "model.model.layers.0.mlp.up_proj",
            "module._orig_mod.model.layers.0.mlp.up_proj.weight",
            "model._orig_mod.layers.0._fsdp_wrapped_module.mlp.up_proj",
            "base_model.model.model.layers.0.mlp.up_proj",
            "layers.0.mlp.up_proj",
        ] {
            assert_eq!(one(name, &MODEL), Some(MODEL[0]), "{name}");
        }
        assert_eq!(one("model.lm_head", &MODEL), Some("lm_head"));
    }

    #[test]
    fn a_name_that_no_module_has_is_refused_with_all_others_like_it() {
        let found =
            matched(&["model.layers.0.mlp.up_proj", "transformer.h.0.mlp", "model.layers.1.mlp.up_proj"], &MODEL);
        let unknown = ["transformer.h.0.mlp", "model.layers.1.mlp.up_proj"].map(str::to_owned).to_vec();
        assert_eq!(found, Err(Mismatch::Unknown(unknown)));
    }

    #[test]
    fn what_may_mean_two_things_is_refused() {
        let two = matched(&["module.model.lm_head", "_orig_mod.lm_head"], &MODEL);
        assert!(matches!(two, Err(Mismatch::Ambiguous(why)) if why.contains("both mean the module lm_head")));
        let two = matched(&["module.a.b"], &["model.a.b", "a.b"]);
        assert!(matches!(two, Err(Mismatch::Ambiguous(why)) if why.contains("may mean the module")));
        // A name as the model has it leaves no doubt, nor does it take another's place.
        assert_eq!(one("a.b", &["model.a.b", "a.b"]), Some("a.b"));
        let both = matched(&["a.b", "module.a.b"], &["model.a.b", "a.b"]).unwrap();
        assert_eq!(both.modules, [Some("a.b"), Some("model.a.b")]);
        let twice = matched(&["lm_head", "module.lm_head"], &MODEL);
        assert_eq!(twice, Err(Mismatch::Unknown(vec!["module.lm_head".to_owned()])));
    }

    #[test]
    fn the_head_of_a_model_whose_head_is_the_embedding_has_no_place() {
        assert_eq!(one("module.lm_head", &MODEL[..2]), None);
    }
}
