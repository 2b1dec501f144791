//! RegMean on one group: the linear layers that share an input, and so a system.
//!
//! The system is factored once. Then blocks of weight rows, of a fixed size, are solved in parallel: read from every
//! model, corrected, written. A block whose refinement does not converge is solved again with an fp64 factor.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use mergelab_wire::{MergeJob, MergeSource, Normalize, Solver};
use tch::{Device, Kind, TchError, Tensor};

use super::elementwise::mean;
use super::error::MergeError;
use super::figures::{LayerFigures, finite, ratio};
use super::method::Context;
use super::objective::{forms, objective};
use crate::checkpoint::Writer;
use crate::dtype::FloatType;
use crate::gram::GramSet;
use crate::linalg::{Factor, Path, PlainSolver, ScaledSystem, Term};

/// Weight rows that are solved together.
const BLOCK_ROWS: usize = 256;

/// The Gram artifacts of a merge, in the order of its models.
#[derive(Debug)]
pub struct Grams {
    /// What the systems are made of.
    pub used: Vec<GramSet>,
    /// What the objective is reported on as well; empty, or one per model.
    pub held_out: Vec<GramSet>,
}

impl Grams {
    /// Opens what a merge names.
    ///
    /// # Errors
    /// When an artifact cannot be read.
    pub fn open(job: &MergeJob) -> Result<Self, MergeError> {
        let open = |path: &PathBuf| GramSet::open(path).map_err(MergeError::from);
        let sets = |path: fn(&MergeSource) -> Option<&PathBuf>| {
            job.models.iter().filter_map(path).map(open).collect::<Result<Vec<_>, _>>()
        };
        let used = sets(|model| model.grams.as_ref())?;
        let mut held_out = sets(|model| model.held_out.as_ref())?;
        if held_out.len() != used.len() {
            held_out.clear();
        }
        Ok(Self { used, held_out })
    }
}

/// Linear layers with the same Grams and the same α, whose weights are stored the same way.
#[derive(Debug)]
pub struct Group {
    tensors: Vec<String>,
    transposed: bool,
    alpha: f64,
    grams: Arc<Grams>,
}

/// How a block gets from the models' rows to merged ones; handles only, so that each worker has its own.
enum Method {
    Scaled { factor: Factor, matrix: Tensor, root: Tensor, sides: Vec<Tensor> },
    Plain(PlainSolver),
}

/// Everything a block needs.
struct Piece {
    tensor: usize,
    rows: Range<usize>,
    method: Method,
    used: Vec<Tensor>,
    held_out: Vec<Tensor>,
}

/// Sums over a block, added up in the order of blocks.
#[derive(Clone, Debug, Default)]
struct Sums {
    mean: f64,
    correction: f64,
    rounding: f64,
    rhs: f64,
    residual: f64,
    /// Per model: the quadratic forms of its Gram on the differences and the correction.
    used: Vec<Vec<f64>>,
    held_out: Vec<Vec<f64>>,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.mean += other.mean;
        self.correction += other.correction;
        self.rounding += other.rounding;
        self.rhs += other.rhs;
        self.residual += other.residual;
        for (mine, theirs) in [(&mut self.used, &other.used), (&mut self.held_out, &other.held_out)] {
            if mine.is_empty() {
                mine.clone_from(theirs);
            } else {
                for (a, b) in mine.iter_mut().flatten().zip(theirs.iter().flatten()) {
                    *a += b;
                }
            }
        }
    }
}

fn square(x: &Tensor) -> Result<f64, TchError> {
    x.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])
}

fn share(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

impl Method {
    fn share(&self) -> Self {
        match self {
            Self::Scaled { factor, matrix, root, sides } => Self::Scaled {
                factor: factor.share(),
                matrix: matrix.shallow_clone(),
                root: root.shallow_clone(),
                sides: share(sides),
            },
            Self::Plain(solver) => Self::Plain(solver.share()),
        }
    }
}

impl Group {
    /// A group; all its tensors have Grams in `grams`.
    ///
    /// `transposed`: their weights are stored `[in, out]`. In there, in all that is computed, they are `[out, in]`.
    pub fn new(tensors: Vec<String>, transposed: bool, alpha: f64, grams: Arc<Grams>) -> Self {
        Self { tensors, transposed, alpha, grams }
    }

    /// `[out, in]` of a tensor.
    fn shape(&self, context: &Context<'_>, tensor: &str) -> Result<[usize; 2], MergeError> {
        let shape = context.sources.shape(tensor)?;
        Ok(if self.transposed { [shape[1], shape[0]] } else { [shape[0], shape[1]] })
    }

    fn module(&self) -> &str {
        let first = &self.tensors[0];
        first.strip_suffix(".weight").unwrap_or(first)
    }

    /// Solves and writes the group's tensors.
    ///
    /// # Errors
    /// When something cannot be read or written, a weight is not finite, or a plain solver fails.
    pub fn run(&self, context: &Context<'_>, writer: &Writer) -> Result<Vec<LayerFigures>, MergeError> {
        let module = self.module();
        let weights: Vec<f64> = context.sources.models.iter().map(|source| source.weight).collect();
        let pivot = pivot(&weights);
        let used = self.matrices(&self.grams.used, context.device)?;
        let held_out = self.matrices(&self.grams.held_out, context.device)?;
        let scale = |grams: &[Tensor]| -> Result<Vec<f64>, TchError> {
            grams
                .iter()
                .zip(&weights)
                .map(|(gram, weight)| Ok(weight * normalization(context.job.normalize, gram)?))
                .collect()
        };
        let used_scales = scale(&used).map_err(MergeError::torch(module))?;
        let held_scales = scale(&held_out).map_err(MergeError::torch(module))?;
        let terms: Vec<Term> = used
            .iter()
            .zip(&used_scales)
            .zip(&weights)
            .map(|((gram, scale), weight)| Term { gram: gram.shallow_clone(), scale: *scale, weight: *weight })
            .collect();

        let system = ScaledSystem::new(&terms, self.alpha).map_err(MergeError::solve(module))?;
        let unseen = system.unseen;
        let mut steps = Vec::new();
        let (method, mut path, condition, cut) = if context.job.solver == Solver::Auto {
            let factor = Factor::new(&system.matrix).map_err(MergeError::solve(module))?;
            steps.extend_from_slice(factor.steps());
            let (path, condition, cut) = (factor.path(), factor.condition(), factor.cut());
            let sides = system.right_hand_sides(&terms, pivot).map_err(MergeError::torch(module))?;
            // Without refinement nothing gains from fp64 products.
            let kind = if path == Path::Cholesky { Kind::Float } else { Kind::Double };
            let sides = sides.iter().map(|side| side.f_to_kind(kind)).collect::<Result<_, _>>();
            let matrix = system.matrix.f_to_kind(kind).map_err(MergeError::torch(module))?;
            let root = system.root.shallow_clone();
            (
                Method::Scaled { factor, matrix, root, sides: sides.map_err(MergeError::torch(module))? },
                path,
                Some(condition),
                cut,
            )
        } else {
            let solver = PlainSolver::new(context.job.solver, &terms, self.alpha).map_err(MergeError::solve(module))?;
            (Method::Plain(solver), Path::Plain, None, 0)
        };

        let mut sums = vec![Sums::default(); self.tensors.len()];
        let mut blocks = self.blocks(context)?;
        let mut method = method;
        loop {
            let pieces = blocks.iter().map(|(tensor, rows)| Piece {
                tensor: *tensor,
                rows: rows.clone(),
                method: method.share(),
                used: share(&used),
                held_out: share(&held_out),
            });
            let pieces: Vec<Piece> = pieces.collect();
            let done = context.pool.map(pieces, |piece| self.block(context, writer, &piece, &weights, pivot))?;
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
            steps.push(format!("refinement did not converge for {} block(s) of rows", again.len()));
            blocks = again;
            let factor = Factor::double(&system.matrix, Vec::new()).map_err(MergeError::solve(module))?;
            steps.extend_from_slice(factor.steps());
            path = path.max(factor.path());
            method = match method {
                Method::Scaled { matrix, root, sides, .. } => Method::Scaled { factor, matrix, root, sides },
                plain @ Method::Plain(_) => plain,
            };
        }
        if !steps.is_empty() {
            context.reporter.note(format!("{module}: {} (α {}); solved by {path:?}", steps.join("; "), self.alpha));
        }
        self.tensors
            .iter()
            .zip(&sums)
            .map(|(tensor, sums)| {
                let shape = self.shape(context, tensor)?;
                let objective = |forms: &[Vec<f64>], scales: &[f64]| objective(forms, scales, &weights, pivot);
                Ok(LayerFigures {
                    tensor: tensor.clone(),
                    shape,
                    alpha: self.alpha,
                    path,
                    steps: steps.clone(),
                    condition: condition.and_then(finite),
                    residual: (path != Path::Plain).then(|| ratio(sums.residual.sqrt(), sums.rhs.sqrt())).flatten(),
                    unseen_features: unseen,
                    cut_eigenvalues: cut,
                    correction_over_weights: ratio(sums.correction.sqrt(), sums.mean.sqrt()),
                    rounding_over_correction: ratio(sums.rounding.sqrt(), sums.correction.sqrt()),
                    objective: objective(&sums.used, &used_scales),
                    objective_held_out: (!held_out.is_empty()).then(|| objective(&sums.held_out, &held_scales)),
                })
            })
            .collect()
    }

    /// The Grams of the group's input, `[in, in]` each.
    fn matrices(&self, sets: &[GramSet], device: Device) -> Result<Vec<Tensor>, MergeError> {
        sets.iter()
            .map(|set| {
                let entry = set.entry(self.module()).expect("groups are made of modules with Grams");
                set.matrix(entry)?.f_to_device(device).map_err(MergeError::torch(self.module()))
            })
            .collect()
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
        piece: &Piece,
        weights: &[f64],
        pivot: usize,
    ) -> Result<Option<Sums>, MergeError> {
        let name = &self.tensors[piece.tensor];
        let [_, width] = self.shape(context, name)?;
        let range = piece.rows.start * width..piece.rows.end * width;
        let fail = || MergeError::torch(name);
        let rows = context
            .sources
            .models
            .iter()
            .map(|source| {
                let flat = source.elements(name, range.clone())?;
                let (rows, width) = (piece.rows.len() as i64, width as i64);
                let matrix = match self.transposed {
                    true => flat.f_view([width, rows]).and_then(|stored| stored.f_tr()?.f_contiguous()),
                    false => flat.f_view([rows, width]),
                };
                matrix.and_then(|matrix| matrix.f_to_device(context.device)).map_err(fail())
            })
            .collect::<Result<Vec<_>, MergeError>>()?;
        let mean = mean(&rows, weights).map_err(fail())?;
        let differences = (0..rows.len())
            .filter(|index| *index != pivot)
            .map(|index| rows[index].f_sub(&mean))
            .collect::<Result<Vec<_>, _>>()
            .map_err(fail())?;

        let mut sums = Sums::default();
        let correction = match &piece.method {
            Method::Plain(solver) => {
                let merged = solver.solve(&rows).map_err(MergeError::solve(name))?;
                merged.f_to_kind(Kind::Double).and_then(|merged| merged.f_sub(&mean)).map_err(fail())?
            }
            Method::Scaled { factor, matrix, root, sides } => {
                let solved = (|| {
                    let mut rhs = Tensor::f_zeros(mean.size(), (matrix.kind(), mean.device()))?;
                    for (difference, side) in differences.iter().zip(sides) {
                        rhs = rhs.f_addmm_(&difference.f_to_kind(matrix.kind())?, side)?;
                    }
                    sums.rhs = square(&rhs)?;
                    factor.solve(matrix, &rhs)
                })()
                .map_err(fail())?;
                if !solved.converged {
                    return Ok(None);
                }
                sums.residual = solved.residual;
                solved.solution.f_mul(root).map_err(fail())?
            }
        };
        drop(rows);
        let merged = mean.f_add(&correction).map_err(fail())?;
        let stored = match self.transposed {
            true => merged.f_tr().and_then(|merged| merged.f_contiguous()).map_err(fail())?,
            false => merged.shallow_clone(),
        };
        writer.write(name, range.start, &stored)?;

        let kind =
            context.dtype.or(FloatType::of_header(context.sources.dtype(name)?)).map_or(Kind::Float, FloatType::kind);
        let mut measure = || -> Result<(), TchError> {
            let rounded = merged.f_to_kind(kind)?.f_to_kind(Kind::Double)?;
            sums.rounding = square(&rounded.f_sub(&merged)?)?;
            sums.mean = square(&mean)?;
            sums.correction = square(&correction)?;
            let basis = differences
                .iter()
                .chain([&correction])
                .map(|v| v.f_to_kind(Kind::Float))
                .collect::<Result<Vec<_>, _>>()?;
            sums.used = forms(&basis, &piece.used)?;
            sums.held_out = forms(&basis, &piece.held_out)?;
            Ok(())
        };
        measure().map_err(fail())?;
        Ok(Some(sums))
    }
}

/// The model whose difference from the mean follows from the others': the heaviest, so that nothing is divided by little.
fn pivot(weights: &[f64]) -> usize {
    (0..weights.len()).rev().max_by(|a, b| weights[*a].total_cmp(&weights[*b])).unwrap_or(0)
}

fn normalization(normalize: Normalize, gram: &Tensor) -> Result<f64, TchError> {
    match normalize {
        Normalize::None => Ok(1.0),
        Normalize::Trace => {
            let trace = gram.f_diagonal(0, 0, 1)?.f_sum(Kind::Double)?.f_double_value(&[])?;
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
