//! `rules:` of a merge: what happens to which tensors.

use mergelab_wire::{Rule, RuleUse};

use super::diagnostics::{Diagnostic, Span};
use super::keys::{RULE, RULE_MODEL, RULE_WORDS};
use super::merge::Reader;
use super::methods::Need;
use super::read::{Fields, Reading, did_you_mean, listed};
use super::types::Weighted;

impl Reader<'_> {
    /// Reads one rule; `models` are those of the merge, where they could be read.
    pub(super) fn rule(&self, reading: Reading<'_>, models: Option<&[(Weighted, Span)]>) -> Option<Rule> {
        let fields = Fields::open(self.context.report, reading.node, reading.node.span, "a rule", &[RULE])?;
        let pattern = fields.get("match", Reading::glob);
        let action = fields.get("use", |action| self.action(action, models));
        let alpha = fields.get("alpha", |alpha| alpha.number(0.0, 1.0));
        if !fields.has("use") && !fields.has("alpha") {
            let diagnostic = Diagnostic::new(fields.place, "a rule needs `use` or `alpha`");
            self.context.report.add(diagnostic.hint(format!("use: {}, or {{ model: NAME }}", RULE_WORDS.join(", "))));
            return None;
        }
        let regmean = matches!(action, Some(RuleUse::Regmean))
            || (!fields.has("use") && self.method.is_none_or(|method| method.grams != Need::No));
        if fields.has("alpha") && !regmean && (action.is_some() || !fields.has("use")) {
            fields.refuse(&["alpha"], "in a rule that does not use RegMean");
        }
        (action.is_some() || !fields.has("use")).then_some(Rule { pattern: pattern?, action, alpha })
    }

    fn action(&self, reading: Reading<'_>, models: Option<&[(Weighted, Span)]>) -> Option<RuleUse> {
        if reading.node.as_map().is_some() {
            let fields = Fields::open(self.context.report, reading.node, reading.node.span, "`use`", &[RULE_MODEL])?;
            return fields.get("model", |model| {
                let name = model.name()?;
                self.rule_model(model, &name, models)
            });
        }
        let text = reading.word()?;
        match text.as_str() {
            "average" => Some(RuleUse::Average),
            "base" => Some(RuleUse::Base),
            "regmean" => Some(RuleUse::Regmean),
            other => {
                if let Some(name) = other.strip_prefix("model:") {
                    return self.rule_model(reading, name.trim(), models);
                }
                let diagnostic = Diagnostic::new(reading.node.span, format!("a rule cannot use `{other}`"));
                let hint = did_you_mean(other, RULE_WORDS.iter().copied());
                let others = || format!("use one of {}, or {{ model: NAME }}", RULE_WORDS.join(", "));
                reading.fail(diagnostic.hint(hint.unwrap_or_else(others)))
            }
        }
    }

    fn rule_model(&self, reading: Reading<'_>, name: &str, models: Option<&[(Weighted, Span)]>) -> Option<RuleUse> {
        let name = self.context.names.models.one(reading, name, &self.item.member.picks)?;
        in_merge(reading, &name, models).then_some(RuleUse::Model(name))
    }
}

/// Whether a model is one of the merge; where those could not be read, it may be.
pub(super) fn in_merge(reading: Reading<'_>, name: &str, models: Option<&[(Weighted, Span)]>) -> bool {
    let Some(models) = models else { return true };
    let names: Vec<_> = models.iter().map(|(weighted, _)| weighted.model.as_str()).collect();
    if names.contains(&name) {
        return true;
    }
    let hint = listed(&names, "models");
    reading
        .report
        .add(Diagnostic::new(reading.node.span, format!("`{name}` is not a model of this merge")).maybe_hint(hint));
    false
}
