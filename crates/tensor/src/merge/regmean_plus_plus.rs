//! `regmean++`: RegMean on activations that flow through the merged model (Nguyen et al.,
//! <https://arxiv.org/abs/2508.03121>).
//!
//! RegMean takes each model's Grams from its own forward pass, although the merged layer will see what the merged layers
//! before it give. Here the merged model is made from its embedding up: a block's Grams are taken from each model's own block on
//! states that the merged blocks before it gave. The formulas are those of [`super::regmean`]; how the states flow is in
//! [`super::blocks`].

use mergelab_wire::{Alpha, MergeJob};

use super::blocks::Blocks;
use super::error::MergeError;
use super::layers::is_linear;
use super::method::{Context, Method, Unit};
use super::regmean;
use super::rules::AlphaRule;

/// RegMean++.
#[derive(Debug)]
pub struct RegmeanPlusPlus;

impl Method for RegmeanPlusPlus {
    fn name(&self) -> &'static str {
        "regmean++"
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        regmean::refuse_params(job)?;
        let refuse = |reason: String, hint| Err(MergeError::Request { method: job.method.clone(), reason, hint });
        if let Some(model) = job.models.iter().find(|model| model.capture.is_none()) {
            return refuse(
                format!("nothing says what to run model {} on", model.name),
                "`grams:` names one entry per model, in order, for its data and settings",
            );
        }
        if let Some(model) = job.models.iter().find(|model| model.held_out.is_some()) {
            return refuse(
                format!("model {} has held-out Gram matrices", model.name),
                "leave `held_out` out: they are not of activations that flow through the merged model",
            );
        }
        let outside = |alpha: &f64| !(0.0..=1.0).contains(alpha);
        match &job.alpha {
            Some(Alpha::Auto | Alpha::AutoLayer) => {
                refuse("it cannot choose α by itself".to_owned(), "state α as a number in [0, 1]")
            }
            Some(Alpha::Number(alpha)) if outside(alpha) => refuse(format!("alpha is {alpha}"), ALPHA),
            Some(Alpha::Gradient(list)) if list.is_empty() || list.iter().any(outside) => {
                refuse("a gradient of alpha holds numbers in [0, 1]".to_owned(), ALPHA)
            }
            _ => Ok(()),
        }
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let family = context.sources.family.as_deref();
        let (mut solved, mut units) = (Vec::new(), Vec::new());
        for (name, rule) in tensors {
            let shape = context.sources.shape(&name)?;
            if rule.is_some_and(|rule| rule.required) || is_linear(&[], family, &name, shape) {
                solved.push((name, rule));
            } else {
                units.push(Unit::Average(name));
            }
        }
        units.push(Unit::Blocks(Box::new(Blocks::plan(context, solved)?)));
        Ok(units)
    }
}

const ALPHA: &str = "α is a number in [0, 1], or a list of them from the first layer to the last";
