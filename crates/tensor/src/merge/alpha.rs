//! `alpha: auto` and `alpha: auto-layer`: the α whose merge is closest to every model on Grams that it was not made of.
//!
//! For each input and each α of a grid the system is solved as the merge itself would be, for rows spread evenly over every
//! tensor; `Σᵢ uᵢ tr (W-Wᵢ) Gᵢ (W-Wᵢ)ᵀ` of these rows on the held-out Grams, times rows over rows taken, estimates that of the
//! tensor. A tensor that has no more rows is taken whole, and the figure is exact. Then two more αs are tried, halfway to
//! the best one's neighbours. Of equal αs the smaller is taken.
//!
//! What was tried is in `alpha.json`: `{ "format": 1, "mode", "rows", "alpha", "curve", "inputs": [{ "tensors", "alpha",
//! "curve" }] }`, a curve being `[[α, objective], …]` by α. With `auto-layer` each input has its own α, and the first two
//! are `null`.
//!
//! Format history: 1, the first.

use std::ops::Range;
use std::path::Path;

use mergelab_wire::{Alpha, MergeJob};
use serde::Serialize;
use serde_json::json;
use tch::{Kind, Tensor};

use super::correct::{Corrected, Method};
use super::error::MergeError;
use super::figures::finite;
use super::method::Context;
use super::objective::{Merged, forms, objective};
use super::room::{Load, Room};
use super::solve::{Group, Sample, differences, measures, pivot};
use crate::failure::FileError;
use crate::linalg::{Measure, ScaledSystem, SolveError};
use crate::report::Reporter;

/// What is tried first, in thousandths.
const GRID: [u32; 13] = [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 950, 990, 1000];

/// Rows of each tensor that the objective is estimated on.
pub(super) const ROWS: usize = 256;

/// Rows that a worker takes at a time.
const PIECE: usize = 64;

/// Refuses a merge without held-out Grams to choose on.
///
/// # Errors
/// When a model has none.
pub fn check(job: &MergeJob) -> Result<(), MergeError> {
    match job.models.iter().find(|model| model.held_out.is_none()) {
        None => Ok(()),
        Some(model) => Err(MergeError::Request {
            method: job.method.clone(),
            reason: format!("α is chosen on held-out Grams, and model {} has none", model.name),
            hint: "`held_out: [NAME, …]` names one Gram entry per model, in order; or state α as a number in [0, 1]",
        }),
    }
}

/// The objective by α: thousandths and value, ascending.
#[derive(Clone, Debug, Default, PartialEq)]
struct Curve(Vec<(u32, f64)>);

impl Curve {
    fn add(&mut self, points: impl IntoIterator<Item = (u32, f64)>) {
        self.0.extend(points);
        self.0.sort_by_key(|point| point.0);
    }

    /// The place of the least value, the first of equal ones; none if no value is a number.
    fn best(&self) -> Option<usize> {
        let numbers = self.0.iter().enumerate().filter(|(_, point)| point.1.is_finite());
        numbers.min_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(place, _)| place)
    }

    /// αs halfway between the best one and its neighbours.
    fn beside_best(&self) -> Vec<u32> {
        let Some(best) = self.best() else { return Vec::new() };
        let neighbours = [best.checked_sub(1), Some(best + 1)];
        let alphas = neighbours.into_iter().flatten().filter_map(|place| self.0.get(place).map(|point| point.0));
        let best = self.0[best].0;
        alphas.map(|alpha| u32::midpoint(alpha, best)).filter(|alpha| self.0.iter().all(|p| p.0 != *alpha)).collect()
    }

    /// The sum of curves over the same αs.
    fn sum(curves: &[Self]) -> Self {
        let mut sum = curves.first().cloned().unwrap_or_default();
        for curve in curves.iter().skip(1) {
            for (total, point) in sum.0.iter_mut().zip(&curve.0) {
                total.1 += point.1;
            }
        }
        sum
    }

    fn chosen(&self, context: &Context<'_>) -> Result<f64, MergeError> {
        self.best().map(|place| alpha(self.0[place].0)).ok_or_else(|| MergeError::Request {
            method: context.job.method.clone(),
            reason: "the objective on the held-out Grams is not a number for any α".to_owned(),
            hint: "state α as a number in [0, 1]",
        })
    }

    fn points(&self) -> Vec<(f64, Option<f64>)> {
        self.0.iter().map(|(thousandths, value)| (alpha(*thousandths), finite(*value))).collect()
    }
}

fn alpha(thousandths: u32) -> f64 {
    f64::from(thousandths) / 1000.0
}

/// What was chosen, and from what.
#[derive(Debug, Serialize)]
pub struct Choice {
    format: u32,
    mode: &'static str,
    /// Rows of a tensor that the curves rest on, at most.
    rows: usize,
    /// α of all inputs, with `auto`.
    alpha: Option<f64>,
    /// The sum of all inputs' curves, with `auto`.
    curve: Option<Vec<(f64, Option<f64>)>>,
    inputs: Vec<Input>,
}

/// One shared input.
#[derive(Debug, Serialize)]
struct Input {
    tensors: Vec<String>,
    alpha: f64,
    curve: Vec<(f64, Option<f64>)>,
}

impl Choice {
    /// Writes `alpha.json`, and facts for the manifest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn report(&self, out: &Path, reporter: &Reporter) -> Result<(), FileError> {
        let path = out.join("alpha.json");
        let text = serde_json::to_string_pretty(self).expect("finite numbers and names");
        std::fs::write(&path, text + "\n").map_err(FileError::of("write", &path))?;
        match self.alpha {
            Some(alpha) => {
                reporter.fact("alpha", json!(alpha));
                reporter.fact("alpha_curve", json!(self.curve));
            }
            None => {
                let chosen = || self.inputs.iter().map(|input| input.alpha);
                reporter.fact("alpha_min", json!(chosen().fold(f64::INFINITY, f64::min)));
                reporter.fact("alpha_max", json!(chosen().fold(0.0, f64::max)));
            }
        }
        Ok(())
    }
}

/// Chooses α for every group that has none. Rules keep theirs, and count for nothing here.
///
/// # Errors
/// When something cannot be read, or a system cannot be solved.
pub fn choose(context: &Context<'_>, groups: &mut [Group]) -> Result<Option<Choice>, MergeError> {
    let mut open: Vec<&mut Group> = groups.iter_mut().filter(|group| group.alpha().is_none()).collect();
    if open.is_empty() {
        return Ok(None);
    }
    let one_for_all = context.job.alpha == Some(Alpha::Auto);
    let total = open.len();
    let mut curves = Vec::with_capacity(total);
    for (done, group) in open.iter().enumerate() {
        context.reporter.progress(done, total, "curves of α");
        let candidate = Candidate::new(context, group)?;
        let mut curve = Curve::default();
        curve.add(candidate.objectives(&GRID)?);
        if !one_for_all {
            curve.add(candidate.objectives(&curve.beside_best())?);
        }
        curves.push(curve);
    }
    let mut all = Curve::default();
    if one_for_all {
        let beside = Curve::sum(&curves).beside_best();
        for (group, curve) in open.iter().zip(&mut curves) {
            curve.add(Candidate::new(context, group)?.objectives(&beside)?);
        }
        all = Curve::sum(&curves);
    }
    let shared = if one_for_all { Some(all.chosen(context)?) } else { None };
    let mut inputs = Vec::with_capacity(total);
    for (group, curve) in open.iter_mut().zip(&curves) {
        let alpha = shared.map_or_else(|| curve.chosen(context), Ok)?;
        group.settle(alpha);
        inputs.push(Input { tensors: group.tensors().to_vec(), alpha, curve: curve.points() });
    }
    Ok(Some(Choice {
        format: 1,
        mode: if one_for_all { "auto" } else { "auto-layer" },
        rows: ROWS,
        alpha: shared,
        curve: one_for_all.then(|| all.points()),
        inputs,
    }))
}

/// A group whose αs are tried, with what they have in common.
struct Candidate<'a> {
    /// With as many workers as there is room for to make matrices.
    context: Context<'a>,
    group: &'a Group,
    load: Load,
    /// What is left for a system.
    room: Room,
    weights: Vec<f64>,
    pivot: usize,
    sample: Sample,
    mean: Tensor,
    /// Of all models but the pivot, fp64.
    differences: Vec<Tensor>,
    held_out: Vec<Measure<'a>>,
    /// What each held-out Gram counts.
    scales: Vec<f64>,
}

/// Some rows of one tensor.
struct Piece<'g> {
    /// What a row stands for.
    factor: f64,
    method: Method,
    rows: Vec<Tensor>,
    mean: Tensor,
    differences: Vec<Tensor>,
    held_out: Vec<Measure<'g>>,
}

impl Piece<'_> {
    /// The forms of the differences and the correction with each held-out Gram; `None` if a refinement did not converge.
    fn forms(&self) -> Result<Option<Vec<Vec<f64>>>, SolveError> {
        let rows = self.rows.iter().map(Tensor::shallow_clone).collect();
        let corrected = self.method.correct(rows, &self.mean, &self.differences, None, false)?;
        let Some(Corrected { correction, .. }) = corrected else { return Ok(None) };
        let basis = self.differences.iter().chain([&correction]).map(|x| x.f_to_kind(Kind::Float));
        let mut found = forms(&basis.collect::<Result<Vec<_>, _>>()?, &self.held_out)?;
        found.iter_mut().flatten().for_each(|form| *form *= self.factor);
        Ok(Some(found))
    }
}

impl<'a> Candidate<'a> {
    fn new(context: &Context<'a>, group: &'a Group) -> Result<Self, MergeError> {
        let weights = group.weights(context);
        let pivot = pivot(&weights);
        let sample = group.sample(context, ROWS)?;
        let (mean, differences) =
            differences(&sample.rows, &weights, pivot).map_err(MergeError::torch(group.module()))?;
        let terms = group.terms(&group.grams().held_out, context)?;
        let load = group.load(context)?;
        let (room, each) = (Room::of(context).beside(load.sample()), load.block(PIECE, Kind::Double));
        let held = room.beside(load.least()).holds(context.pool, &load, terms.len(), each);
        let context = Context { pool: room.makers(context.pool, &load), ..*context };
        let held_out = measures(terms.iter().map(|term| term.gram).collect(), &context, held);
        let held_out = held_out.map_err(MergeError::solve(group.module()))?;
        let room = room.beside(if held { terms.len() as u64 * load.gram() } else { 0 });
        let scales = terms.iter().map(|term| term.scale).collect();
        Ok(Self { context, group, load, room, weights, pivot, sample, mean, differences, held_out, scales })
    }

    fn objectives(&self, alphas: &[u32]) -> Result<Vec<(u32, f64)>, MergeError> {
        alphas.iter().map(|thousandths| Ok((*thousandths, self.objective(alpha(*thousandths))?))).collect()
    }

    /// The objective on the held-out Grams, of the merge with this α.
    fn objective(&self, alpha: f64) -> Result<f64, MergeError> {
        let (context, fail) = (&self.context, || MergeError::solve(self.group.module()));
        let used = self.group.terms(&self.group.grams().used, context)?;
        let system = ScaledSystem::new(&used, self.pivot, alpha, context.device).map_err(fail())?;
        let system = system.within(self.room.bytes());
        let (mut method, _) = self.group.prepare(context, &system, &used, self.pivot)?;
        let parts = loop {
            let pieces = self.pieces(&method)?;
            let room = self.room.beside(method.bytes());
            let pool = room.workers(context.pool, &self.load, self.load.block(PIECE, Kind::Double)).map_err(fail())?;
            let parts = pool.map(pieces, |piece| piece.forms()).map_err(fail())?;
            if let Some(parts) = parts.into_iter().collect::<Option<Vec<_>>>() {
                break parts;
            }
            method.step_down(&system, context.pool).map_err(fail())?;
        };
        let mut sums: Vec<Vec<f64>> = Vec::new();
        for part in parts {
            if sums.is_empty() {
                sums = part;
            } else {
                sums.iter_mut().flatten().zip(part.iter().flatten()).for_each(|(sum, form)| *sum += form);
            }
        }
        let found = objective(&sums, &self.scales, &self.weights, self.pivot, Merged::InBasis);
        Ok(found.merge.unwrap_or(f64::NAN))
    }

    /// The sample in pieces, none of which is of two tensors.
    fn pieces(&self, method: &Method) -> Result<Vec<Piece<'a>>, MergeError> {
        let mut pieces = Vec::new();
        let mut first = 0;
        for (tensor, count) in self.group.tensors().iter().zip(&self.sample.counts) {
            let [rows, _] = self.group.shape(&self.context, tensor)?;
            let factor = rows as f64 / *count as f64;
            for start in (first..first + count).step_by(PIECE) {
                let range = start..(start + PIECE).min(first + count);
                pieces.push(self.piece(method, &range, factor).map_err(MergeError::torch(tensor))?);
            }
            first += count;
        }
        Ok(pieces)
    }

    fn piece(&self, method: &Method, range: &Range<usize>, factor: f64) -> Result<Piece<'a>, tch::TchError> {
        let cut = |x: &Tensor| x.f_narrow(0, range.start as i64, range.len() as i64);
        let cut_all = |all: &[Tensor]| all.iter().map(cut).collect::<Result<Vec<_>, _>>();
        Ok(Piece {
            factor,
            method: method.share(),
            rows: cut_all(&self.sample.rows)?,
            mean: cut(&self.mean)?,
            differences: cut_all(&self.differences)?,
            held_out: self.held_out.iter().map(Measure::share).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_alphas_the_smaller_is_best_and_what_is_no_number_is_none() {
        let curve = Curve(vec![(0, f64::NAN), (100, 2.0), (200, 1.0), (300, 1.0), (400, 3.0)]);
        assert_eq!(curve.best(), Some(2));
        assert_eq!(curve.beside_best(), [150, 250]);
        assert_eq!(Curve(vec![(0, f64::NAN)]).best(), None);
    }

    #[test]
    fn at_an_end_of_the_grid_there_is_one_more_to_try_beside_the_best() {
        assert_eq!(Curve(vec![(0, 1.0), (100, 2.0)]).beside_best(), [50]);
        assert_eq!(Curve(vec![(990, 2.0), (1000, 1.0)]).beside_best(), [995]);
    }

    #[test]
    fn curves_add_up_by_alpha() {
        let curves = [Curve(vec![(0, 1.0), (100, 2.0)]), Curve(vec![(0, 0.5), (100, -1.0)])];
        assert_eq!(Curve::sum(&curves), Curve(vec![(0, 1.5), (100, 1.0)]));
    }
}
