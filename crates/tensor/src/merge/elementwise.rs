//! Tensors that are merged element by element: what a method of that kind has to say, and no more.
//!
//! Such a method is a [`Kernel`] over fp32 tiles. What it must know of a whole tensor first, such as a threshold, it works
//! out when it makes the kernel of that tensor; [`super::stream`] does the reading, rounding, writing and hashing.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use indexmap::IndexMap;
use tch::Tensor;

use super::error::MergeError;
use super::method::{Context, Unit};
use super::regmean;
use super::rules::AlphaRule;
use super::sources::{Source, Sources};
use crate::codec::is_float;
use crate::system::vectorized;

/// Elements of a tile: a few of them, as fp32, stay in a core's nearest caches.
pub const TILE: usize = 4096;

/// Elements whose sums are held at a time: they stay in the nearest cache, whatever the number of models.
pub const BLOCK: usize = 512;

/// One method on one tensor, tile by tile.
pub trait Kernel: Debug + Send + Sync {
    /// Fills `out` from as many elements of each input.
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]);

    /// How many elements must come together: a row's, for a method that looks at rows.
    fn grain(&self) -> usize {
        1
    }

    /// How many elements so far had no more than their weighted mean, where the method counts them.
    fn averaged(&self) -> Option<u64> {
        None
    }
}

/// Some elements of one tensor, of every input the same, all of them finite.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    /// The first one's position in the tensor laid flat.
    pub start: usize,
    /// Of the base, where the work reads it.
    pub base: Option<&'a [f32]>,
    /// Of each model that the work reads.
    pub models: &'a [&'a [f32]],
    /// Of what the work reads beside the models.
    pub beside: &'a [&'a [f32]],
}

impl Tile<'_> {
    /// The tile in blocks, each with its part of `out`.
    pub fn blocks<'a>(&'a self, out: &'a mut [f32]) -> impl Iterator<Item = (Block<'a>, &'a mut [f32])> {
        self.blocks_from(0, out)
    }

    /// As [`Self::blocks`] as many elements as `out` has, from one of the tile on.
    pub fn blocks_from<'a>(
        &'a self,
        from: usize,
        out: &'a mut [f32],
    ) -> impl Iterator<Item = (Block<'a>, &'a mut [f32])> {
        out.chunks_mut(BLOCK).enumerate().map(move |(number, out)| {
            let first = from + number * BLOCK;
            (Block { tile: self, range: first..first + out.len() }, out)
        })
    }
}

/// Elements of a tile that are worked on together, [`BLOCK`] at most.
///
/// What is done with it is a sequence of small loops, each [`vectorized`]: larger ones the compiler does not repeat for wider
/// vectors.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    tile: &'a Tile<'a>,
    range: Range<usize>,
}

impl<'a> Block<'a> {
    /// Of the base.
    ///
    /// # Panics
    /// When the work reads none.
    #[inline]
    pub fn base(&self) -> &'a [f32] {
        &self.tile.base.expect("work from a base reads one")[self.range.clone()]
    }

    /// Of each model.
    #[inline]
    pub fn models(&self) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        let Self { tile, range } = self.clone();
        tile.models.iter().map(move |model| &model[range.clone()])
    }
}

/// How the elements of one tensor come about.
#[derive(Debug)]
pub struct Elementwise {
    /// The tensor.
    pub tensor: String,
    /// Whether the base model's tensor is read.
    pub base: bool,
    /// The models that are read, by index.
    pub models: Vec<usize>,
    /// What is read beside them, under the tensor's name: something that the method knows of each element.
    pub beside: Vec<Arc<Source>>,
    /// What is done with their elements.
    pub how: How,
}

/// What is done with elements.
#[derive(Debug)]
pub enum How {
    /// They are merged, as fp32.
    Merge(Arc<dyn Kernel>),
    /// The bytes of the one model are taken as they are: integers.
    Verbatim,
}

impl Elementwise {
    /// The weighted mean of one tensor; integers have none and are taken over where all models agree.
    ///
    /// # Errors
    /// When integers differ, or the weights cancel each other.
    pub fn average(context: &Context<'_>, tensor: String) -> Result<Self, MergeError> {
        /// Of their sizes' sum: what is left of weights that cancel each other, by rounding.
        const NOTHING: f64 = 1e-12;
        let weights = context.sources.weights(&tensor);
        let sizes: f64 = weights.iter().map(|weight| weight.abs()).sum();
        if weights.iter().sum::<f64>().abs() <= NOTHING * sizes {
            return Err(MergeError::Request {
                method: context.job.method.clone(),
                reason: format!("the weights of the models add up to zero at {tensor}"),
                hint: "a mean needs weights that do not; `average` with `normalize: false` takes their sum",
            });
        }
        Self::weighted(context, tensor, Mean::new)
    }

    /// The weighted sum of one tensor, whatever its weights add up to; of integers as [`Self::average`].
    ///
    /// # Errors
    /// When integers differ.
    pub fn sum(context: &Context<'_>, tensor: String) -> Result<Self, MergeError> {
        Self::weighted(context, tensor, Mean::sum)
    }

    fn weighted(context: &Context<'_>, tensor: String, kernel: impl Fn(Vec<f64>) -> Mean) -> Result<Self, MergeError> {
        let sources = context.sources;
        if !is_float(sources.dtype(&tensor)?) {
            return same_integers(sources, tensor);
        }
        let how = How::Merge(Arc::new(kernel(sources.weights(&tensor))));
        Ok(Self { tensor, base: false, models: (0..sources.models.len()).collect(), beside: Vec::new(), how })
    }

    /// One model's tensor; the base's where there is no index.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn take(context: &Context<'_>, tensor: String, model: Option<usize>) -> Result<Self, MergeError> {
        let is_number = is_float(context.sources.dtype(&tensor)?);
        let how = if is_number { How::Merge(Arc::new(Copy)) } else { How::Verbatim };
        Ok(Self { tensor, base: model.is_none(), models: model.into_iter().collect(), beside: Vec::new(), how })
    }

    /// How many elements must come together.
    pub fn grain(&self) -> usize {
        match &self.how {
            How::Merge(kernel) => kernel.grain(),
            How::Verbatim => 1,
        }
    }

    /// The sources that are read: the base first, then models, then what is beside them.
    pub fn inputs<'a>(&'a self, sources: &'a Sources) -> Vec<&'a Source> {
        let base = sources.base.as_ref().filter(|_| self.base);
        let models = self.models.iter().map(|index| &sources.models[*index]);
        base.into_iter().chain(models).chain(self.beside.iter().map(|source| &**source)).collect()
    }
}

/// Work with the models that it is on.
#[derive(Debug)]
pub struct Work<'a> {
    /// The models.
    pub sources: &'a Sources,
    /// What is done.
    pub elementwise: Elementwise,
}

impl<'a> Work<'a> {
    /// The sources that are read, as [`Elementwise::inputs`] has them.
    pub fn inputs(&self) -> Vec<&Source> {
        self.elementwise.inputs(self.sources)
    }

    /// Work by the names of its tensors.
    pub fn by_name(work: impl IntoIterator<Item = Self>) -> IndexMap<String, Self> {
        work.into_iter().map(|work| (work.elementwise.tensor.clone(), work)).collect()
    }

    /// Some work on the same models.
    pub fn on(sources: &'a Sources, work: impl IntoIterator<Item = Elementwise>) -> impl Iterator<Item = Self> {
        work.into_iter().map(move |elementwise| Self { sources, elementwise })
    }
}

/// The work of a method on task vectors, which reads the base and every model: `kernel` makes that of a tensor, and may
/// read the tensor for it. Integers are taken over where the models agree.
///
/// # Errors
/// When integers differ, and what `kernel` says.
pub fn on_task_vectors(
    context: &Context<'_>,
    tensors: Vec<(String, Option<AlphaRule>)>,
    kernel: impl Fn(&str) -> Result<Arc<dyn Kernel>, MergeError> + Sync,
) -> Result<Vec<Unit>, MergeError> {
    let models: Vec<usize> = (0..context.sources.models.len()).collect();
    on_tensors(context, tensors, true, &models, kernel)
}

/// The work of a method that reads some models, by index, and the base where `base` says so; else as [`on_task_vectors`].
/// Tensors for which a rule asks for RegMean are not the method's.
///
/// # Errors
/// When integers differ or a Gram is missing, and what `kernel` says.
pub fn on_tensors(
    context: &Context<'_>,
    tensors: Vec<(String, Option<AlphaRule>)>,
    base: bool,
    models: &[usize],
    kernel: impl Fn(&str) -> Result<Arc<dyn Kernel>, MergeError> + Sync,
) -> Result<Vec<Unit>, MergeError> {
    let (mut units, rest) = regmean::by_rule(context, tensors)?;
    units.extend(context.host.map(rest, |tensor| {
        if !is_float(context.sources.dtype(&tensor)?) {
            return same_integers(context.sources, tensor).map(Unit::Elementwise);
        }
        let how = How::Merge(kernel(&tensor)?);
        Ok::<_, MergeError>(Unit::Elementwise(Elementwise {
            tensor,
            base,
            models: models.to_vec(),
            beside: Vec::new(),
            how,
        }))
    })?);
    Ok(units)
}

/// Integers have no mean: they are taken over where all models agree.
fn same_integers(sources: &Sources, tensor: String) -> Result<Elementwise, MergeError> {
    let (first, others) = sources.models.split_first().expect("a merge has models");
    let bytes = |source: &Source| {
        let all = 0..source.checkpoint.info(&tensor)?.elements();
        Ok::<_, MergeError>(source.checkpoint.file(&tensor)?.bytes(&tensor, all)?.into_owned())
    };
    let values = bytes(first)?;
    for other in others {
        if bytes(other)? != values {
            let (first, other) = (first.name.clone(), other.name.clone());
            return Err(MergeError::Integers { name: tensor, first, other });
        }
    }
    Ok(Elementwise { tensor, base: false, models: vec![0], beside: Vec::new(), how: How::Verbatim })
}

/// Says how many elements had no more than their weighted mean, where the method counts them.
///
/// # Errors
/// When a tensor is not there.
pub fn report<'a>(context: &Context<'_>, done: impl Iterator<Item = &'a Work<'a>>) -> Result<(), MergeError> {
    let mut found = None;
    for Work { sources, elementwise } in done {
        let How::Merge(kernel) = &elementwise.how else { continue };
        let Some(averaged) = kernel.averaged() else { continue };
        let (count, total) = found.unwrap_or((0, 0));
        let elements: usize = sources.shape(&elementwise.tensor)?.iter().product();
        found = Some((count + averaged, total + elements as u64));
    }
    let Some((averaged, total)) = found else { return Ok(()) };
    context.reporter.fact("elements_averaged", averaged);
    if averaged > 0 {
        let method = &context.job.method;
        context.reporter.note(format!(
            "{averaged} of {total} elements took the weighted mean: `{method}` has nothing to weigh them by"
        ));
    }
    Ok(())
}

/// The ranges of a tensor's tiles.
pub fn tiles(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    aligned(range, 1)
}

/// Ranges of whole grains, about a tile long or one grain.
pub fn aligned(range: Range<usize>, grain: usize) -> impl Iterator<Item = Range<usize>> {
    let step = grain * (TILE / grain).max(1);
    range.clone().step_by(step).map(move |start| start..(start + step).min(range.end))
}

/// `Σ wᵢ Wᵢ / Σ wᵢ`, in fp64 and rounded once.
#[derive(Debug)]
pub struct Mean {
    weights: Vec<f64>,
    /// What the sum is multiplied by.
    factor: f64,
}

impl Mean {
    /// With weights that do not add up to zero.
    pub fn new(weights: Vec<f64>) -> Self {
        Self { factor: weights.iter().sum::<f64>().recip(), weights }
    }

    /// `Σ wᵢ Wᵢ`, with any weights.
    pub fn sum(weights: Vec<f64>) -> Self {
        Self { factor: 1.0, weights }
    }
}

impl Kernel for Mean {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        let mut sums = [0.0f64; BLOCK];
        let factor = self.factor;
        for (block, out) in tile.blocks(out) {
            let sums = &mut sums[..out.len()];
            for (index, (values, &weight)) in block.models().zip(&self.weights).enumerate() {
                let add = if index == 0 { set } else { add };
                add(sums, values, weight);
            }
            vectorized(|| {
                for (out, sum) in out.iter_mut().zip(&*sums) {
                    *out = (sum * factor) as f32;
                }
            });
        }
    }
}

/// Numbers times a factor, as sums to add others to.
pub(super) fn set(sums: &mut [f64], values: &[f32], factor: f64) {
    vectorized(|| {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = f64::from(*value) * factor;
        }
    });
}

/// Adds numbers times a factor to sums.
pub(super) fn add(sums: &mut [f64], values: &[f32], factor: f64) {
    vectorized(|| {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += f64::from(*value) * factor;
        }
    });
}

/// The one tensor that is read.
#[derive(Debug)]
struct Copy;

impl Kernel for Copy {
    fn merge(&self, tile: &Tile<'_>, out: &mut [f32]) {
        out.copy_from_slice(tile.base.unwrap_or_else(|| tile.models[0]));
    }
}

/// The weighted mean of tensors of one shape in fp64, to the bit that of [`Mean`] before it is rounded.
///
/// # Errors
/// When libtorch fails.
pub fn mean(tensors: &[Tensor], weights: &[f64]) -> Result<Tensor, tch::TchError> {
    let mut sum = tensors[0].f_mul_scalar(weights[0])?;
    for (tensor, weight) in tensors.iter().zip(weights).skip(1) {
        sum = sum.f_add_(&tensor.f_mul_scalar(*weight)?)?;
    }
    sum.f_mul_scalar(weights.iter().sum::<f64>().recip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn the_mean_of_tiles_is_that_of_tensors_to_the_bit() {
        tch::manual_seed(1);
        let models: Vec<Tensor> = (0..3).map(|_| Tensor::randn([5000], (Kind::Float, Device::Cpu))).collect();
        let weights = vec![0.3, 1.0, 2.7];
        let wide: Vec<Tensor> = models.iter().map(|model| model.to_kind(Kind::Double)).collect();
        let expected = Vec::<f32>::try_from(mean(&wide, &weights).unwrap().to_kind(Kind::Float)).unwrap();
        let models: Vec<Vec<f32>> = models.into_iter().map(|model| Vec::try_from(model).unwrap()).collect();
        let models: Vec<&[f32]> = models.iter().map(Vec::as_slice).collect();
        let mut found = vec![0.0; 5000];
        Mean::new(weights).merge(&Tile { start: 0, base: None, models: &models, beside: &[] }, &mut found);
        assert_eq!(found, expected);
    }

    #[test]
    fn tiles_cover_a_range_once() {
        let found: Vec<_> = tiles(10..2 * TILE + 11).collect();
        assert_eq!(found, [10..TILE + 10, TILE + 10..2 * TILE + 10, 2 * TILE + 10..2 * TILE + 11]);
        assert_eq!(tiles(5..5).count(), 0);
        let rows: Vec<_> = aligned(0..7 * 1500, 1500).collect();
        assert_eq!(rows, [0..3000, 3000..6000, 6000..9000, 9000..10500]);
        assert_eq!(aligned(0..3 * TILE, 2 * TILE).collect::<Vec<_>>(), [0..2 * TILE, 2 * TILE..3 * TILE]);
    }
}
