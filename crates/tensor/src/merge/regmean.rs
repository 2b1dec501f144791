//! `regmean`: for linear layers, the weights that agree best with each model on that model's own activations
//! (Jin et al., <https://arxiv.org/abs/2212.09849>); everything else is averaged.
//!
//! `W` minimises `Σ uᵢ ‖Xᵢ (W - Wᵢ)ᵀ‖²` with the Grams' off-diagonals scaled by α:
//! `(Σ uᵢ G̃ᵢ) Wᵀ = Σ uᵢ G̃ᵢ Wᵢᵀ`, `G̃ᵢ = α Gᵢ + (1-α) diag Gᵢ`. How it is solved is in [`crate::linalg`].

use indexmap::IndexMap;
use mergelab_wire::{Alpha, MergeJob};

use super::alpha;
use super::error::MergeError;
use super::gradient::gradient;
use super::grams::Grams;
use super::layers::is_linear;
use super::method::{Context, Method, Unit};
use super::rules::AlphaRule;
use super::solve::Group;

/// RegMean.
#[derive(Debug)]
pub struct Regmean;

impl Method for Regmean {
    fn name(&self) -> &'static str {
        "regmean"
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        refuse_params(job)?;
        let refuse = |reason: String, hint| Err(MergeError::Request { method: job.method.clone(), reason, hint });
        if let Some(model) = job.models.iter().find(|model| model.grams.is_none()) {
            return refuse(
                format!("model {} has no Gram matrices", model.name),
                "`grams:` names one entry per model, in order",
            );
        }
        match &job.alpha {
            Some(Alpha::Auto | Alpha::AutoLayer) => alpha::check(job),
            Some(Alpha::Number(alpha)) if !(0.0..=1.0).contains(alpha) => {
                refuse(format!("alpha is {alpha}"), "α is a number in [0, 1]")
            }
            Some(Alpha::Gradient(list)) if list.is_empty() || list.iter().any(|alpha| !(0.0..=1.0).contains(alpha)) => {
                refuse(
                    "a gradient of alpha holds numbers in [0, 1]".to_owned(),
                    "`alpha: [0.1, 0.9]` runs from the first layer to the last",
                )
            }
            _ => Ok(()),
        }
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let family = context.sources.family.as_deref();
        let grams = Grams::open(context.job)?;
        let mut solved = Vec::new();
        let mut units = Vec::new();
        for (name, rule) in tensors {
            let shape = context.sources.shape(&name)?;
            if rule.is_some_and(|rule| rule.required) || is_linear(&grams.used, family, &name, shape) {
                solved.push((name, rule));
            } else {
                units.push(Unit::Average(name));
            }
        }
        units.extend(groups(context, grams, solved)?);
        Ok(units)
    }
}

/// Refuses parameters: this method has none.
///
/// # Errors
/// When there is one.
pub(super) fn refuse_params(job: &MergeJob) -> Result<(), MergeError> {
    match job.params.keys().next() {
        None => Ok(()),
        Some(name) => Err(MergeError::Request {
            method: job.method.clone(),
            reason: format!("it has no parameter {name:?}"),
            hint: "remove it, or choose the method it belongs to",
        }),
    }
}

/// The RegMean that rules ask for by name, whatever the merge's method, and the tensors that are left to that.
///
/// # Errors
/// When a Gram is missing or does not fit.
pub(super) fn by_rule(
    context: &Context<'_>,
    tensors: Vec<(String, Option<AlphaRule>)>,
) -> Result<(Vec<Unit>, Vec<String>), MergeError> {
    let (solved, rest): (Vec<_>, Vec<_>) =
        tensors.into_iter().partition(|(_, rule)| rule.is_some_and(|rule| rule.required));
    let rest = rest.into_iter().map(|(name, _)| name).collect();
    let units = if solved.is_empty() { Vec::new() } else { groups(context, Grams::open(context.job)?, solved)? };
    Ok((units, rest))
}

/// α of a tensor: the rule's, or the merge's, over depth where that is a gradient; none where it is to be chosen.
///
/// # Errors
/// When neither states one.
pub(super) fn alpha_of(
    job: &MergeJob,
    rule: Option<AlphaRule>,
    name: &str,
    layers: usize,
) -> Result<Option<f64>, MergeError> {
    if let Some(alpha) = rule.and_then(|rule| rule.alpha) {
        return Ok(Some(alpha));
    }
    match &job.alpha {
        Some(Alpha::Number(alpha)) => Ok(Some(*alpha)),
        Some(Alpha::Gradient(list)) => Ok(Some(gradient(list, name, &(0..layers)))),
        Some(Alpha::Auto | Alpha::AutoLayer) => alpha::check(job).map(|()| None),
        None => Err(MergeError::Request {
            method: job.method.clone(),
            reason: format!("no α is stated for {name}"),
            hint: "state `alpha:` in the merge, or in the rule",
        }),
    }
}

/// What linear layers of one system share.
#[derive(PartialEq, Eq, Hash)]
struct Shared {
    /// Where their Grams lie, by file and tensor.
    grams: Vec<(String, String)>,
    /// Whether their weights are stored `[in, out]`.
    transposed: bool,
    /// The bits of their α; none where it is to be chosen.
    alpha: Option<u64>,
    /// The bits of the models' weights, which may differ by depth.
    weights: Vec<u64>,
}

/// Groups linear layers by what they share: the Gram of every model, the held-out ones, α, and the models' weights.
///
/// # Errors
/// When a layer has no Gram, one of another width, or Grams that do not agree on how its weight is stored.
pub fn groups(
    context: &Context<'_>,
    grams: Grams,
    tensors: Vec<(String, Option<AlphaRule>)>,
) -> Result<Vec<Unit>, MergeError> {
    let grams = std::sync::Arc::new(grams.named(context)?);
    let mut groups: IndexMap<Shared, Vec<String>> = IndexMap::new();
    for (name, rule) in tensors {
        let module = name.strip_suffix(".weight").unwrap_or(&name);
        let shape = context.sources.shape(&name)?;
        let mut places = Vec::new();
        let mut transposed: Option<(bool, &str)> = None;
        for (set, source) in grams.used.iter().chain(&grams.held_out).zip(context.sources.models.iter().cycle()) {
            let entry = set.entry(module).ok_or_else(|| MergeError::NoGram {
                name: name.clone(),
                model: source.name.clone(),
                directory: set.directory().to_path_buf(),
                why: set.why_without(&name).map(str::to_owned),
            })?;
            let input = shape.get(usize::from(!entry.transposed)).copied().unwrap_or(0);
            if shape.len() != 2 || input != entry.width {
                return Err(MergeError::GramWidth { name, model: source.name.clone(), input, width: entry.width });
            }
            let (first, model) = *transposed.get_or_insert((entry.transposed, &source.name));
            if first != entry.transposed {
                let (transposed, plain) = if first { (model, &*source.name) } else { (&*source.name, model) };
                return Err(MergeError::Transposed { name, transposed: transposed.into(), plain: plain.into() });
            }
            places.push((entry.file.clone(), entry.tensor.clone()));
        }
        let alpha = alpha_of(context.job, rule, &name, context.sources.layers().len())?;
        let shared = Shared {
            grams: places,
            transposed: transposed.is_some_and(|(transposed, _)| transposed),
            alpha: alpha.map(f64::to_bits),
            weights: context.sources.weights(&name).into_iter().map(f64::to_bits).collect(),
        };
        groups.entry(shared).or_default().push(name);
    }
    let unit = |(shared, tensors): (Shared, Vec<String>)| {
        let grams = std::sync::Arc::clone(&grams);
        Unit::Regmean(match shared.alpha {
            Some(alpha) => Group::new(tensors, shared.transposed, f64::from_bits(alpha), grams),
            None => Group::open(tensors, shared.transposed, grams),
        })
    };
    Ok(groups.into_iter().map(unit).collect())
}
