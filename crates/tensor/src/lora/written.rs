//! An adapter that is written: its configuration, and the names of its tensors, as PEFT saves them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::names::PREFIX;

/// What is written of an adapter beside its tensors.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    /// The model that it is for, by the name under which people find it.
    pub(crate) base: &'a str,
    /// Linear layers that it changes, with the rank of each change.
    pub(crate) ranks: &'a [(String, usize)],
    /// All linear layers of the model.
    pub(crate) linear: &'a [String],
    /// Tensors that it replaces.
    pub(crate) whole: &'a [String],
    /// Whether weights are stored as `[in, out]`.
    pub(crate) is_transposed: bool,
    /// Whether the model's class is one that continues text.
    pub(crate) is_causal: bool,
    /// Whether the model's head is its embedding.
    pub(crate) is_tied: bool,
}

impl Written<'_> {
    /// `adapter_config.json`. Every scale is 1: α is the rank, layer by layer.
    pub(crate) fn config(&self) -> Value {
        let rank = self.usual_rank();
        let others: BTreeMap<&str, usize> =
            self.ranks.iter().filter(|(_, own)| *own != rank).map(|(module, own)| (&**module, *own)).collect();
        let modules: Vec<&str> = self.whole.iter().filter_map(|tensor| tensor.strip_suffix(".weight")).collect();
        let has_bias = self.whole.iter().any(|tensor| tensor.ends_with(".bias"));
        let mut config = json!({
            "peft_type": "LORA",
            "task_type": if self.is_causal { Value::from("CAUSAL_LM") } else { Value::Null },
            "base_model_name_or_path": self.base,
            "inference_mode": true,
            "r": rank,
            "lora_alpha": rank,
            "rank_pattern": others,
            "alpha_pattern": others,
            "use_rslora": false,
            "use_dora": false,
            "fan_in_fan_out": self.is_transposed,
            "init_lora_weights": true,
            "lora_dropout": 0.0,
            "bias": if has_bias { "all" } else { "none" },
            "target_modules": self.targets(),
            "modules_to_save": if modules.is_empty() { Value::Null } else { json!(modules) },
        });
        if self.is_tied && modules.iter().any(|module| module.contains("embed")) {
            config["ensure_weight_tying"] = json!(true);
        }
        config
    }

    /// The rank that most layers have; of several the largest.
    fn usual_rank(&self) -> usize {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, rank) in self.ranks {
            *counts.entry(*rank).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(rank, count)| (*count, *rank)).map_or(1, |(rank, _)| rank)
    }

    /// What PEFT is told to change: the last parts of names where they say it, else the names.
    fn targets(&self) -> Vec<&str> {
        let changed = || self.ranks.iter().map(|(module, _)| &**module);
        let ends: BTreeSet<&str> = changed().map(last_part).collect();
        let so_called = self.linear.iter().filter(|module| ends.contains(last_part(module))).count();
        if so_called == self.ranks.len() { ends.into_iter().collect() } else { changed().collect() }
    }

    /// The name of a tensor that is replaced.
    pub(crate) fn name_of_whole(&self, tensor: &str) -> String {
        let is_inside = |module: &str| self.ranks.iter().any(|(changed, _)| changed == module);
        match tensor.rsplit_once('.') {
            Some((module, end)) if is_inside(module) => format!("{PREFIX}{module}.base_layer.{end}"),
            _ => format!("{PREFIX}{tensor}"),
        }
    }
}

fn last_part(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

/// The names of the two factors of a linear layer.
pub(crate) fn names_of_factors(module: &str) -> [String; 2] {
    ["A", "B"].map(|factor| format!("{PREFIX}{module}.lora_{factor}.weight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_the_usual_rank_and_the_others_by_name_each_with_a_scale_of_one() {
        let ranks = [("l.0.q", 4), ("l.1.q", 4), ("l.0.up", 2)].map(|(module, rank)| (module.to_owned(), rank));
        let linear = ["l.0.q", "l.0.up", "l.1.q", "l.1.up"].map(str::to_owned);
        let whole = ["norm.weight", "l.0.q.bias", "l.1.up.bias"].map(str::to_owned);
        let mut written = Written {
            base: "org/base",
            ranks: &ranks,
            linear: &linear,
            whole: &whole,
            is_transposed: false,
            is_causal: true,
            is_tied: false,
        };
        let config = written.config();
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(4), &json!(4)));
        assert_eq!(
            (&config["rank_pattern"], &config["alpha_pattern"]),
            (&json!({ "l.0.up": 2 }), &json!({ "l.0.up": 2 }))
        );
        // Not all layers called `up` are changed.
        assert_eq!(config["target_modules"], json!(["l.0.q", "l.1.q", "l.0.up"]));
        assert_eq!((&config["modules_to_save"], &config["bias"]), (&json!(["norm"]), &json!("all")));
        assert_eq!(written.name_of_whole("l.0.q.bias"), "base_model.model.l.0.q.base_layer.bias");
        assert_eq!(written.name_of_whole("l.1.up.bias"), "base_model.model.l.1.up.bias");
        written.ranks = &ranks[..2];
        written.whole = &[];
        let config = written.config();
        assert_eq!((&config["target_modules"], &config["modules_to_save"]), (&json!(["q"]), &Value::Null));
        assert_eq!((&config["rank_pattern"], &config["bias"]), (&json!({}), &json!("none")));
    }
}
