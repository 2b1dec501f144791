//! `rules:`, resolved to one decision per tensor.

use globset::{GlobBuilder, GlobMatcher};
use indexmap::IndexMap;
use mergelab_wire::{MergeJob, MergeSource, Rule, RuleUse};

use super::error::MergeError;
use super::sources::Sources;

/// What happens to one tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The method decides, with its own α where a rule states one.
    Own {
        /// α for this tensor.
        alpha: Option<AlphaRule>,
    },
    /// The weighted mean.
    Average,
    /// The tensor of this model of the merge, by its index.
    Take(usize),
    /// The base model's tensor.
    Base,
}

/// What a rule says about RegMean on a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlphaRule {
    /// α in place of the merge's.
    pub alpha: Option<f64>,
    /// RegMean was asked for by name, so that a tensor without a Gram is an error whatever it is.
    pub required: bool,
}

/// Compiles a rule's pattern; `*` also matches dots.
fn matcher(rule: &Rule) -> Result<GlobMatcher, MergeError> {
    let glob = GlobBuilder::new(&rule.pattern).literal_separator(false).build();
    let glob = glob.map_err(|error| MergeError::Rule { pattern: rule.pattern.clone(), reason: error.to_string() })?;
    Ok(glob.compile_matcher())
}

/// The decision for every tensor, in the order of the sources' names: the first rule that matches decides.
///
/// # Errors
/// When a rule cannot be followed: no base, no such model, α outside [0, 1].
pub fn decide(job: &MergeJob, sources: &Sources) -> Result<IndexMap<String, Decision>, MergeError> {
    let rules = job.rules.iter().map(|rule| Ok((rule, matcher(rule)?))).collect::<Result<Vec<_>, MergeError>>()?;
    for (rule, _) in &rules {
        let fail = |reason: String| MergeError::Rule { pattern: rule.pattern.clone(), reason };
        if rule.alpha.is_some_and(|alpha| !(0.0..=1.0).contains(&alpha)) {
            return Err(fail("alpha is outside [0, 1]".to_owned()));
        }
        if rule.action == Some(RuleUse::Base) && sources.base.is_none() {
            return Err(fail("the merge has no `base:`".to_owned()));
        }
        let has_none = |model: &MergeSource| model.grams.is_none() && model.capture.is_none();
        if rule.action == Some(RuleUse::Regmean) && job.models.iter().any(has_none) {
            return Err(fail("RegMean needs Gram matrices of every model (`grams:`)".to_owned()));
        }
    }
    let mut decisions = IndexMap::new();
    for name in sources.names() {
        let rule = rules.iter().find(|(_, matcher)| matcher.is_match(name)).map(|(rule, _)| *rule);
        let decision = match rule.map(|rule| (rule, &rule.action)) {
            None => Decision::Own { alpha: None },
            Some((rule, None)) => Decision::Own { alpha: Some(AlphaRule { alpha: rule.alpha, required: false }) },
            Some((rule, Some(RuleUse::Regmean))) => {
                Decision::Own { alpha: Some(AlphaRule { alpha: rule.alpha, required: true }) }
            }
            Some((_, Some(RuleUse::Average))) => Decision::Average,
            Some((_, Some(RuleUse::Base))) => Decision::Base,
            Some((rule, Some(RuleUse::Model(model)))) => {
                let index = sources.models.iter().position(|source| source.name == *model);
                Decision::Take(index.ok_or_else(|| MergeError::Rule {
                    pattern: rule.pattern.clone(),
                    reason: format!("{model:?} is not a model of the merge"),
                })?)
            }
        };
        decisions.insert(name.clone(), decision);
    }
    Ok(decisions)
}

/// Patterns that match no tensor: misspelt, most likely.
///
/// # Errors
/// When a pattern is no glob.
pub fn unused<'a>(job: &'a MergeJob, sources: &Sources) -> Result<Vec<&'a str>, MergeError> {
    let mut unused = Vec::new();
    for rule in &job.rules {
        let matcher = matcher(rule)?;
        if !sources.names().iter().any(|name| matcher.is_match(name)) {
            unused.push(rule.pattern.as_str());
        }
    }
    Ok(unused)
}
