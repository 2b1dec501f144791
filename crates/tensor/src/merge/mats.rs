//! `mats`: for linear layers, some steps of conjugate gradient on the systems of RegMean, from a stated start (Tam et al.,
//! <https://arxiv.org/abs/2312.04339>, with the activations' Gram matrices as the tasks' subspaces); everything else is
//! averaged.
//!
//! `(Σ uᵢ G̃ᵢ) Wᵀ = Σ uᵢ G̃ᵢ Wᵢᵀ` is solved only as far as the steps reach: what they have not reached stays at the start. The
//! steps are in [`crate::linalg::Operator`].

use mergelab_wire::{Alpha, MergeJob, Solver};
use serde_json::Value;
use tch::{Kind, TchError, Tensor};

use super::error::MergeError;
use super::grams::Grams;
use super::layers::is_linear;
use super::method::{Context, Method, Unit};
use super::regmean::groups;
use super::rules::AlphaRule;
use crate::linalg::{Operator, ScaledSystem, SolveError, Symmetric};
use crate::parallel::Pool;

/// Steps where the merge states none.
const ITERATIONS: u64 = 100;

/// Merging by matching models in task subspaces.
#[derive(Debug)]
pub struct Mats;

/// Where the steps begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the weighted mean of the models.
    Average,
    /// At the base model.
    Base,
    /// At zero.
    Zeros,
}

/// What a merge says of the steps.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    start: Start,
    iterations: usize,
}

impl Settings {
    fn of(job: &MergeJob) -> Result<Self, MergeError> {
        let refuse = |reason: String, hint| MergeError::Request { method: job.method.clone(), reason, hint };
        let mut settings = Self { start: Start::Average, iterations: ITERATIONS as usize };
        for (name, value) in &job.params {
            match (name.as_str(), value.as_u64(), value.as_str()) {
                ("iterations", Some(count @ 1..), _) => settings.iterations = count as usize,
                ("x0", _, Some("average")) => settings.start = Start::Average,
                ("x0", _, Some("base")) => settings.start = Start::Base,
                ("x0", _, Some("zeros")) => settings.start = Start::Zeros,
                ("iterations", ..) => return Err(refuse(format!("iterations is {value}"), "it is a number from 1")),
                ("x0", ..) => return Err(refuse(format!("x0 is {value}"), "it is average, base or zeros")),
                _ => return Err(refuse(format!("it has no parameter {name:?}"), "it has `iterations` and `x0`")),
            }
        }
        Ok(settings)
    }
}

impl Method for Mats {
    fn name(&self) -> &'static str {
        "mats"
    }

    fn reads_base(&self, job: &MergeJob) -> bool {
        job.params.get("x0").and_then(Value::as_str) == Some("base")
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        let refuse = |reason: String, hint| Err(MergeError::Request { method: job.method.clone(), reason, hint });
        Settings::of(job)?;
        if let Some(model) = job.models.iter().find(|model| model.grams.is_none()) {
            let hint = "`grams:` names one entry per model, in order";
            return refuse(format!("model {} has no Gram matrices", model.name), hint);
        }
        if job.solver != Solver::Auto {
            return refuse("it has no `solver`".to_owned(), "it goes by conjugate gradient; `regmean` has solvers");
        }
        let stated = match &job.alpha {
            Some(Alpha::Number(alpha)) => vec![*alpha],
            Some(Alpha::Gradient(list)) if !list.is_empty() => list.clone(),
            _ => return refuse("it takes α as a number or a list of them".to_owned(), "`alpha: 1.0`, as published"),
        };
        match stated.iter().find(|alpha| !(0.0..=1.0).contains(*alpha)) {
            Some(alpha) => refuse(format!("alpha is {alpha}"), "α is a number in [0, 1]"),
            None => Ok(()),
        }
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let settings = Settings::of(context.job)?;
        let family = context.sources.family.as_deref();
        let grams = Grams::open(context.job)?;
        let (mut iterated, mut solved, mut units) = (Vec::new(), Vec::new(), Vec::new());
        for (name, rule) in tensors {
            let shape = context.sources.shape(&name)?;
            if rule.is_some_and(|rule| rule.required) {
                solved.push((name, rule));
            } else if is_linear(&grams.used, family, &name, shape) {
                iterated.push((name, rule));
            } else {
                units.push(Unit::Average(name));
            }
        }
        // A rule that says `use: regmean` means RegMean.
        units.extend(groups(context, Grams::open(context.job)?, solved)?);
        units.extend(groups(context, grams, iterated)?.into_iter().map(|unit| match unit {
            Unit::Regmean(group) => Unit::Regmean(group.iterated(settings)),
            unit => unit,
        }));
        Ok(units)
    }
}

/// A group's system, made ready for steps; handles only.
#[derive(Debug)]
pub(super) struct Conjugate {
    settings: Settings,
    operator: Operator,
    /// The right-hand side's matrices, fp64: `Σⱼ (Wⱼ - W̄) H̃ⱼ` over all models but the pivot is the average's residual.
    sides: Vec<Symmetric>,
}

/// What came of a block of rows, beside the weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// `Σ (B - X S)²`.
    pub(super) residual: f64,
    /// `Σ (B - X₀ S)²`.
    pub(super) start: f64,
    /// Steps of the row that took most.
    pub(super) iterations: usize,
    /// Rows that were given up.
    pub(super) given_up: usize,
}

impl Conjugate {
    /// Makes a system ready.
    ///
    /// # Errors
    /// When a Gram cannot be read or is not finite, or libtorch fails.
    pub(super) fn new(system: &ScaledSystem<'_>, settings: Settings, pool: Pool) -> Result<Self, SolveError> {
        let sides = system.sides(Kind::Double, pool)?;
        Ok(Self { settings, operator: Operator::new(system, pool)?, sides })
    }

    /// Another handle on the same numbers, for another thread.
    pub(super) fn share(&self) -> Self {
        let sides = self.sides.iter().map(Symmetric::share).collect();
        Self { settings: self.settings, operator: self.operator.share(), sides }
    }

    /// Bytes of its matrices.
    pub(super) fn bytes(&self) -> u64 {
        self.operator.bytes() + self.sides.iter().map(Symmetric::bytes).sum::<u64>()
    }

    /// Whether the steps begin at the base model.
    pub(super) fn reads_base(&self) -> bool {
        self.settings.start == Start::Base
    }

    /// `W - W̄` of a block, from the mean, the differences from it of all models but the pivot, and the base's rows where the
    /// steps begin there; all `[rows, width]` in fp64.
    ///
    /// # Errors
    /// When libtorch fails.
    pub(super) fn solve(
        &self,
        mean: &Tensor,
        differences: &[Tensor],
        base: Option<&Tensor>,
    ) -> Result<(Tensor, Reached), TchError> {
        let of_average = mean.f_zeros_like()?;
        for (difference, side) in differences.iter().zip(&self.sides) {
            side.multiply_into(&of_average, difference)?;
        }
        let offset = match (self.settings.start, base) {
            (Start::Zeros, _) => Some(mean.f_neg()?),
            (Start::Base, Some(base)) => Some(base.f_sub(mean)?),
            _ => None,
        };
        let residual = match &offset {
            Some(offset) => of_average.f_sub(&self.operator.multiply(offset)?)?,
            None => of_average,
        };
        let iterated = self.operator.solve(&residual, self.settings.iterations)?;
        let correction = match offset {
            Some(offset) => iterated.change.f_add(&offset)?,
            None => iterated.change,
        };
        let start = residual.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        let (residual, iterations, given_up) = (iterated.residual, iterated.iterations, iterated.given_up);
        Ok((correction, Reached { residual, start, iterations, given_up }))
    }
}
