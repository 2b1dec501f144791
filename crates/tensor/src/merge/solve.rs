//! RegMean on one group: the linear layers that share an input, and so a system.
//!
//! The system is factored once. Then blocks of weight rows, of a fixed size, are solved in parallel: read from every
//! model, corrected, written. A block whose refinement does not converge is solved again with an fp64 factor.

use std::ops::Range;
use std::sync::Arc;

use mergelab_wire::{Normalize, Solver};
use tch::{Kind, TchError, Tensor};

use super::alpha;
use super::correct::{Method, Scaled};
use super::elementwise::mean;
use super::error::MergeError;
use super::figures::{LayerFigures, finite, ratio};
use super::grams::Grams;
use super::mats::{Conjugate, Settings};
use super::method::Context;
use super::objective::{Known, Merged, forms, objective};
use super::room::{Load, Room};
use super::sources::Source;
use super::sums::{Solution, Sums};
use crate::checkpoint::Writer;
use crate::dtype::FloatType;
use crate::gram::{Gram, GramSet};
use crate::linalg::{
    Check, Factor, GOOD_ENOUGH, Measure, Path, PlainSolver, ScaledSystem, SolveError, Term, check, square,
};

/// Weight rows that are solved together.
pub(super) const BLOCK_ROWS: usize = 512;

/// Rows of a tensor that are checked against fp64.
pub(super) const SAMPLED_ROWS: usize = 16;

/// Linear layers with the same Grams, the same α and the same weights of models, whose own weights are stored the same way.
#[derive(Debug)]
pub struct Group {
    tensors: Vec<String>,
    transposed: bool,
    /// Until [`super::alpha`] has chosen one, none for some groups.
    alpha: Option<f64>,
    grams: Arc<Grams>,
    /// Of conjugate gradient, where the system is not solved but iterated.
    iterated: Option<Settings>,
}

/// Rows of a group's tensors, spread evenly over each.
#[derive(Debug)]
pub(super) struct Sample {
    /// Per model, the rows of all tensors `[rows, width]`, in fp64.
    pub(super) rows: Vec<Tensor>,
    /// How many are of each tensor.
    pub(super) counts: Vec<usize>,
}

/// Everything a block needs.
struct Piece<'g> {
    tensor: usize,
    rows: Range<usize>,
    method: Method,
    used: Vec<Measure<'g>>,
    held_out: Vec<Measure<'g>>,
}

impl Group {
    /// A group; all its tensors have Grams in `grams`.
    ///
    /// `transposed`: their weights are stored `[in, out]`. In there, in all that is computed, they are `[out, in]`.
    pub fn new(tensors: Vec<String>, transposed: bool, alpha: f64, grams: Arc<Grams>) -> Self {
        Self { tensors, transposed, alpha: Some(alpha), grams, iterated: None }
    }

    /// A group whose α is to be chosen before it runs.
    pub fn open(tensors: Vec<String>, transposed: bool, grams: Arc<Grams>) -> Self {
        Self { tensors, transposed, alpha: None, grams, iterated: None }
    }

    /// Its α, unless that is to be chosen.
    pub fn alpha(&self) -> Option<f64> {
        self.alpha
    }

    /// Chooses its α.
    pub fn settle(&mut self, alpha: f64) {
        self.alpha = Some(alpha);
    }

    /// The names of its weights.
    pub fn tensors(&self) -> &[String] {
        &self.tensors
    }

    /// The models' weights, the same for all its tensors.
    pub(super) fn weights(&self, context: &Context<'_>) -> Vec<f64> {
        context.sources.weights(&self.tensors[0])
    }

    /// Its Grams: those used and those held out.
    pub(super) fn grams(&self) -> &Grams {
        &self.grams
    }

    /// The same group by conjugate gradient.
    #[must_use]
    pub fn iterated(self, settings: Settings) -> Self {
        Self { iterated: Some(settings), ..self }
    }

    /// `[out, in]` of a tensor.
    pub(super) fn shape(&self, context: &Context<'_>, tensor: &str) -> Result<[usize; 2], MergeError> {
        let shape = context.sources.shape(tensor)?;
        Ok(if self.transposed { [shape[1], shape[0]] } else { [shape[0], shape[1]] })
    }

    /// Rows `[rows, in]` of a model's weight on the device; of a transposed one, all of them.
    fn rows(
        &self,
        context: &Context<'_>,
        source: &Source,
        tensor: &str,
        rows: Range<usize>,
        kind: Kind,
    ) -> Result<Tensor, MergeError> {
        let [_, width] = self.shape(context, tensor)?;
        let flat = source.elements(tensor, rows.start * width..rows.end * width, kind)?;
        let (rows, width) = (rows.len() as i64, width as i64);
        let matrix = if self.transposed {
            flat.f_view([width, rows]).and_then(|stored| stored.f_tr()?.f_contiguous())
        } else {
            flat.f_view([rows, width])
        };
        matrix.and_then(|matrix| matrix.f_to_device(context.device)).map_err(MergeError::torch(tensor))
    }

    pub(super) fn module(&self) -> &str {
        let first = &self.tensors[0];
        first.strip_suffix(".weight").unwrap_or(first)
    }

    /// Solves and writes the group's tensors.
    ///
    /// # Errors
    /// When something cannot be read or written, a weight is not finite, or a plain solver fails.
    ///
    /// # Panics
    /// When its α was left open.
    pub fn run(&self, context: &Context<'_>, writer: &Writer) -> Result<Vec<LayerFigures>, MergeError> {
        let module = self.module();
        let weights = self.weights(context);
        let pivot = pivot(&weights);
        let alpha = self.alpha.expect("α is chosen before anything is solved");
        let (used, held_out) = (self.terms(&self.grams.used, context)?, self.terms(&self.grams.held_out, context)?);
        let (room, load) = (Room::of(context), self.load(context)?);
        let system = ScaledSystem::new(&used, pivot, alpha, context.device).map_err(MergeError::solve(module))?;
        let system = system.within(room.bytes());
        let makers = Context { pool: room.makers(context.pool, &load), ..*context };
        let (mut method, checks) = self.prepare(&makers, &system, &used, pivot)?;
        let mut figures = Solution::of(&method);

        let known = matches!(method, Method::Scaled(_)) && alpha >= Known::SMALLEST_ALPHA;
        // Of two models the solved system tells the form with the pivot's Gram.
        let left_out = (known && used.len() == 2 && system.taken(1 - pivot) > 0.0).then_some(pivot);
        let used_grams: Vec<Gram<'_>> =
            used.iter().enumerate().filter(|(index, _)| left_out != Some(*index)).map(|(_, term)| term.gram).collect();
        let held_out_grams: Vec<Gram<'_>> = held_out.iter().map(|term| term.gram).collect();
        let each = load.block(load.rows, method.kind());
        let count = used_grams.len() + held_out_grams.len();
        let held = room.beside(method.bytes()).holds(context.pool, &load, count, each);
        let measures_used = measures(used_grams, &makers, held).map_err(MergeError::solve(module))?;
        let measures_held_out = measures(held_out_grams, &makers, held).map_err(MergeError::solve(module))?;
        let room = room.beside(if held { count as u64 * load.gram() } else { 0 });

        let mut sums = vec![Sums::default(); self.tensors.len()];
        let mut blocks = self.blocks(context)?;
        loop {
            let pieces = blocks.iter().map(|(tensor, rows)| Piece {
                tensor: *tensor,
                rows: rows.clone(),
                method: method.share(),
                used: measures_used.iter().map(Measure::share).collect(),
                held_out: measures_held_out.iter().map(Measure::share).collect(),
            });
            let pieces: Vec<Piece<'_>> = pieces.collect();
            let solve = |piece: Piece<'_>| self.block(context, writer, &piece, (&weights, pivot), known);
            let pool = room.beside(method.bytes()).workers(context.pool, &load, each);
            let done = pool.map_err(MergeError::solve(module))?.map(pieces, solve)?;
            let mut again = Vec::new();
            for (block, done) in blocks.into_iter().zip(done) {
                match done {
                    Some(done) => sums[block.0].add(&done),
                    None => again.push(block),
                }
            }
            if again.is_empty() {
                break;
            }
            figures.steps.push(format!("refinement did not converge for {} block(s) of rows", again.len()));
            blocks = again;
            figures.steps.extend(method.step_down(&system, makers.pool).map_err(MergeError::solve(module))?);
            figures.fell(&method);
        }
        if !figures.steps.is_empty() {
            let (steps, path) = (figures.steps.join("; "), figures.path);
            context.reporter.note(format!("{module}: {steps} (α {alpha}); solved by {path:?}"));
        }
        let scales = |terms: &[Term<'_>]| terms.iter().map(|term| term.scale).collect::<Vec<_>>();
        let (used_scales, held_scales) = (scales(&used), scales(&held_out));
        self.tensors
            .iter()
            .enumerate()
            .zip(sums)
            .map(|((index, tensor), mut sums)| {
                let shape = self.shape(context, tensor)?;
                if let Some(pivot) = left_out {
                    let other = 1 - pivot;
                    let (scale, taken) = (used_scales[other], system.taken(other));
                    let form = sums.known.pivot_form(alpha, sums.used[0][0], scale, taken);
                    sums.used.insert(pivot, vec![form]);
                }
                let merged = if known { Merged::Known(sums.known, alpha) } else { Merged::InBasis };
                let check = checks.get(index);
                let iterations = self.iterated.map(|_| sums.iterations);
                let mut steps = figures.steps.clone();
                if sums.given_up > 0 {
                    steps.push(format!("{} rows ended where fp32 Grams say nothing", sums.given_up));
                }
                Ok(LayerFigures {
                    tensor: tensor.clone(),
                    shape,
                    alpha,
                    path: figures.path,
                    steps,
                    condition: figures.condition.and_then(finite),
                    iterations,
                    residual: match (figures.path, check) {
                        (Path::Plain, _) => None,
                        (Path::Cholesky, Some(check)) => finite(check.residual),
                        _ => ratio(sums.residual.sqrt(), sums.rhs.sqrt()),
                    },
                    error_over_correction: check.filter(|_| figures.path == Path::Cholesky).map(|check| check.error),
                    unseen_features: system.unseen(),
                    cut_eigenvalues: figures.cut,
                    correction_over_weights: ratio(sums.correction.sqrt(), sums.mean.sqrt()),
                    rounding_over_correction: ratio(sums.rounding.sqrt(), sums.correction.sqrt()),
                    objective: objective(&sums.used, &used_scales, &weights, pivot, merged),
                    objective_held_out: (!held_out.is_empty())
                        .then(|| objective(&sums.held_out, &held_scales, &weights, pivot, Merged::InBasis)),
                })
            })
            .collect()
    }

    /// What it is made of, as far as its memory goes.
    pub(super) fn load(&self, context: &Context<'_>) -> Result<Load, MergeError> {
        let blocks = self.blocks(context)?;
        let rows = blocks.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0);
        let [_, width] = self.shape(context, &self.tensors[0])?;
        let mut wide = Kind::Float;
        for tensor in &self.tensors {
            wide = if stored(context, tensor)? == Kind::Float { Kind::Double } else { wide };
        }
        let most = if self.alpha.is_none() { alpha::ROWS } else { SAMPLED_ROWS };
        let shapes = self.tensors.iter().map(|tensor| self.shape(context, tensor));
        let sampled = shapes.map(|shape| Ok(shape?[0].min(most))).sum::<Result<usize, MergeError>>()?;
        Ok(Load { width, models: context.sources.models.len(), rows, sampled, wide })
    }

    /// The Grams of the group's input, with their weights in the sum.
    pub(super) fn terms<'g>(&self, sets: &'g [GramSet], context: &Context<'_>) -> Result<Vec<Term<'g>>, MergeError> {
        let term = |(set, weight): (&'g GramSet, f64)| {
            let entry = set.entry(self.module()).expect("groups are made of modules with Grams");
            let gram = Gram { set, entry };
            let scale = weight * normalization(context.job.normalize, gram)?;
            Ok(Term { gram, scale, weight })
        };
        sets.iter().zip(self.weights(context)).map(term).collect()
    }

    /// Factors the system and checks what comes of it on some rows of every tensor.
    pub(super) fn prepare(
        &self,
        context: &Context<'_>,
        system: &ScaledSystem<'_>,
        terms: &[Term<'_>],
        pivot: usize,
    ) -> Result<(Method, Vec<Check>), MergeError> {
        let fail = || MergeError::solve(self.module());
        let torch = || MergeError::torch(self.module());
        // Halves of fp64 matrices take four bytes for each number of a whole one.
        let models = terms.len() as u64;
        if let Some(settings) = self.iterated {
            system.afford("conjugate gradient in fp64", 4 * models).map_err(fail())?;
            let conjugate = Conjugate::new(system, settings, context.pool).map_err(fail())?;
            return Ok((Method::Conjugate(conjugate), Vec::new()));
        }
        if context.job.solver != Solver::Auto {
            // Every part, their sum, what comes of it, and what the call works with.
            let workspace = if context.job.solver == Solver::Pinv { 8 } else { 3 };
            system.afford("a plain solver", 4 * (models + workspace)).map_err(fail())?;
            let solver = PlainSolver::new(context.job.solver, terms, system.alpha(), context.device).map_err(fail())?;
            return Ok((Method::Plain(solver), Vec::new()));
        }
        if terms.len() < 2 {
            return Ok((Method::Average, Vec::new()));
        }
        let mut factor = Factor::new(system, context.pool).map_err(fail())?;
        let mut checks = Vec::new();
        let mut kind = Kind::Double;
        let mut sides = Vec::new();
        if factor.path() == Path::Cholesky {
            sides = system.sides(Kind::Float, context.pool).map_err(fail())?;
            let Sample { rows, counts } = self.sample(context, SAMPLED_ROWS)?;
            let weights: Vec<f64> = terms.iter().map(|term| term.weight).collect();
            let (_, differences) = differences(&rows, &weights, pivot).map_err(torch())?;
            checks = check(system, &factor, &sides, &differences, &counts, context.pool).map_err(fail())?;
            let worst = checks.iter().map(|check| check.error).fold(0.0, f64::max);
            if worst <= GOOD_ENOUGH {
                kind = Kind::Float;
            } else {
                factor = factor.refined(format!("fp32 alone is off by {worst:.1e} of the correction"));
            }
        }
        if kind == Kind::Double {
            sides.clear();
            system.afford("refinement in fp64", 8 + 4 * models).map_err(fail())?;
            sides = system.sides(Kind::Double, context.pool).map_err(fail())?;
        }
        let matrix = (kind == Kind::Double).then(|| system.matrix(kind, context.pool)).transpose().map_err(fail())?;
        let root = system.root().map_err(torch())?;
        let diagonals = system.side_diagonals().map_err(torch())?;
        Ok((Method::Scaled(Scaled { factor, matrix, sides, root, diagonals }), checks))
    }

    /// Rows of every tensor, spread evenly: so many of each, or all that there are.
    pub(super) fn sample(&self, context: &Context<'_>, most: usize) -> Result<Sample, MergeError> {
        let models = &context.sources.models;
        let mut samples: Vec<Vec<Tensor>> = models.iter().map(|_| Vec::new()).collect();
        let mut counts = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            let [rows, _] = self.shape(context, tensor)?;
            let count = most.min(rows);
            let places: Vec<usize> = (0..count).map(|place| (2 * place + 1) * rows / (2 * count)).collect();
            for (sample, source) in samples.iter_mut().zip(models) {
                if self.transposed {
                    let whole = self.rows(context, source, tensor, 0..rows, Kind::Double)?;
                    let row = |row: &usize| whole.f_get(*row as i64).map_err(MergeError::torch(tensor));
                    sample.extend(places.iter().map(row).collect::<Result<Vec<_>, _>>()?);
                } else {
                    for &row in &places {
                        let row = self.rows(context, source, tensor, row..row + 1, Kind::Double)?;
                        sample.push(row.f_get(0).map_err(MergeError::torch(tensor))?);
                    }
                }
            }
            counts.push(count);
        }
        let rows = samples.iter().map(|rows| Tensor::f_stack(rows, 0)).collect::<Result<_, _>>();
        Ok(Sample { rows: rows.map_err(MergeError::torch(self.module()))?, counts })
    }

    /// Blocks of rows of every tensor.
    fn blocks(&self, context: &Context<'_>) -> Result<Vec<(usize, Range<usize>)>, MergeError> {
        // A least-squares call factors the matrix itself: as published, once for all rows. A row of a transposed weight is
        // a column in the file; the models that have such weights are small enough to take them whole.
        let whole = context.job.solver == Solver::Lstsq || self.transposed;
        let size = if whole { usize::MAX } else { BLOCK_ROWS };
        let mut blocks = Vec::new();
        for (index, tensor) in self.tensors.iter().enumerate() {
            let [rows, _] = self.shape(context, tensor)?;
            let mut start = 0;
            while start < rows {
                let end = start.saturating_add(size).min(rows);
                blocks.push((index, start..end));
                start = end;
            }
        }
        Ok(blocks)
    }

    /// Solves and writes one block; `None` if its refinement did not converge.
    fn block(
        &self,
        context: &Context<'_>,
        writer: &Writer,
        piece: &Piece<'_>,
        (weights, pivot): (&[f64], usize),
        known: bool,
    ) -> Result<Option<Sums>, MergeError> {
        let name = &self.tensors[piece.tensor];
        let [_, width] = self.shape(context, name)?;
        let fail = || MergeError::torch(name);
        let stored = stored(context, name)?;
        let kind = piece.method.kind();
        // Average and merge in fp64 where fp32 would be rounded to a second time.
        let wide = if kind == Kind::Float && stored != Kind::Float { Kind::Float } else { Kind::Double };
        let read = |source: &Source| self.rows(context, source, name, piece.rows.clone(), wide);
        let rows = context.sources.models.iter().map(read).collect::<Result<Vec<_>, MergeError>>()?;
        let mean = mean(&rows, weights).map_err(fail())?;
        let others = rows.iter().enumerate().filter(|(index, _)| *index != pivot);
        let differences =
            others.map(|(_, rows)| rows.f_sub(&mean)?.f_to_kind(kind)).collect::<Result<Vec<_>, _>>().map_err(fail())?;

        let mut sums = Sums::default();
        let base = piece.method.reads_base().then_some(context.sources.base.as_ref()).flatten();
        let base = base.map(read).transpose()?;
        let corrected = piece.method.correct(rows, &mean, &differences, base.as_ref(), known);
        let Some(corrected) = corrected.map_err(MergeError::solve(name))? else { return Ok(None) };
        (sums.residual, sums.rhs) = corrected.residual;
        (sums.iterations, sums.given_up) = corrected.iterated;
        sums.known = corrected.known.unwrap_or_default();
        let correction = corrected.correction;
        sums.mean = square(&mean).map_err(fail())?;
        let mut mean = mean;
        let merged = mean.f_add_(&correction).map_err(fail())?;
        if self.transposed {
            let stored = merged.f_tr().and_then(|merged| merged.f_contiguous()).map_err(fail())?;
            writer.write(name, 0, &stored)?;
        } else {
            writer.write(name, piece.rows.start * width, &merged)?;
        }

        let measure = || -> Result<(), SolveError> {
            // Stored in the type that it is computed in, it is not rounded, and these would be one tensor.
            if stored != wide {
                let mut rounded = merged.f_to_kind(stored)?.f_to_kind(wide)?;
                sums.rounding = square(&rounded.f_sub_(&merged)?)?;
            }
            drop(merged);
            sums.correction = square(&correction)?;
            let basis = differences.iter().chain([&correction]).map(|x| x.f_to_kind(Kind::Float));
            let basis = basis.collect::<Result<Vec<_>, _>>()?;
            sums.used = forms(if known { &basis[..differences.len()] } else { &basis }, &piece.used)?;
            sums.held_out = forms(&basis, &piece.held_out)?;
            Ok(())
        };
        measure().map_err(MergeError::solve(name))?;
        Ok(Some(sums))
    }
}

/// The type that a merged tensor is stored in.
fn stored(context: &Context<'_>, tensor: &str) -> Result<Kind, MergeError> {
    let dtype = context.dtype.or(FloatType::of_header(context.sources.dtype(tensor)?));
    Ok(dtype.map_or(Kind::Float, FloatType::kind))
}

/// The mean of every model's rows, and the differences from it of all models but the pivot.
pub(super) fn differences(rows: &[Tensor], weights: &[f64], pivot: usize) -> Result<(Tensor, Vec<Tensor>), TchError> {
    let mean = mean(rows, weights)?;
    let others = rows.iter().enumerate().filter(|(index, _)| *index != pivot);
    let differences = others.map(|(_, rows)| rows.f_sub(&mean)).collect::<Result<_, _>>()?;
    Ok((mean, differences))
}

/// The Grams that an objective is taken on, read now where they are to be held.
pub(super) fn measures<'g>(
    grams: Vec<Gram<'g>>,
    context: &Context<'_>,
    held: bool,
) -> Result<Vec<Measure<'g>>, SolveError> {
    grams.into_iter().map(|gram| Measure::new(gram, context.device, held, context.pool)).collect()
}

/// The model whose difference from the mean follows from the others': the heaviest, so that nothing is divided by little.
pub(super) fn pivot(weights: &[f64]) -> usize {
    (0..weights.len()).rev().max_by(|a, b| weights[*a].total_cmp(&weights[*b])).unwrap_or(0)
}

fn normalization(normalize: Normalize, gram: Gram<'_>) -> Result<f64, MergeError> {
    match normalize {
        Normalize::None => Ok(1.0),
        Normalize::Trace => {
            let sum = gram.diagonal()?.f_sum(Kind::Double).and_then(|sum| sum.f_double_value(&[]));
            let trace = sum.map_err(MergeError::torch("the trace of a Gram matrix"))?;
            Ok(if trace > 0.0 { 1.0 / trace } else { 0.0 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pivot_is_the_first_of_the_heaviest() {
        assert_eq!(pivot(&[1.0, 2.0, 2.0]), 1);
        assert_eq!(pivot(&[1.0, 1.0]), 0);
    }
}
