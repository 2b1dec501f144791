//! The models of one tensor, a tile at a time, for what a method must know of the whole tensor before it merges.

use super::elementwise::{TILE, aligned};
use super::error::MergeError;
use super::method::Context;
use super::sources::Source;
use crate::system::{Loop, vectorized};

/// One tensor of some models, each less the base's where there is one: task vectors.
#[derive(Clone, Debug)]
pub struct Vectors<'a> {
    models: Vec<&'a Source>,
    base: Option<&'a Source>,
    tensor: &'a str,
    /// Sides of the tensor.
    pub shape: &'a [usize],
}

impl<'a> Vectors<'a> {
    /// Differences from the base of some models, by index.
    ///
    /// # Errors
    /// When there is no such tensor.
    ///
    /// # Panics
    /// When the merge has no base.
    pub fn from_base(context: &Context<'a>, tensor: &'a str, models: &[usize]) -> Result<Self, MergeError> {
        let base = context.sources.base.as_ref().expect("a method on task vectors has a base");
        Ok(Self { base: Some(base), ..Self::plain(context, tensor, models)? })
    }

    /// The tensors of some models themselves, by index.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn plain(context: &Context<'a>, tensor: &'a str, models: &[usize]) -> Result<Self, MergeError> {
        let models = models.iter().map(|index| &context.sources.models[*index]).collect();
        Ok(Self { models, base: None, tensor, shape: context.sources.shape(tensor)? })
    }

    /// The base's tensor and that of one model, as two vectors.
    ///
    /// # Errors
    /// When there is no such tensor.
    ///
    /// # Panics
    /// When the merge has no base.
    pub fn with_base(context: &Context<'a>, tensor: &'a str, model: usize) -> Result<Self, MergeError> {
        let base = context.sources.base.as_ref().expect("a method between a base and a model has a base");
        let models = vec![base, &context.sources.models[model]];
        Ok(Self { models, base: None, tensor, shape: context.sources.shape(tensor)? })
    }

    /// How many vectors they are.
    pub fn count(&self) -> usize {
        self.models.len()
    }

    /// How many elements each has.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Shows them in order, so many elements or a multiple of them together: the position of the first, and each vector's.
    ///
    /// # Errors
    /// When a tensor cannot be read or is not finite.
    pub fn each(&self, grain: usize, mut visit: impl FnMut(usize, &mut [&mut [f32]])) -> Result<(), MergeError> {
        let size = TILE.max(grain).min(self.elements());
        let (mut values, mut base) = (vec![vec![0.0f32; size]; self.count()], vec![0.0f32; size]);
        for tile in aligned(0..self.elements(), grain) {
            if let Some(source) = self.base {
                source.decode(self.tensor, tile.clone(), &mut base[..tile.len()])?;
            }
            for (model, values) in self.models.iter().zip(&mut values) {
                let values = &mut values[..tile.len()];
                model.decode(self.tensor, tile.clone(), values)?;
                if self.base.is_some() {
                    vectorized(|| values.iter_mut().zip(&base).for_each(|(value, base)| *value -= base));
                }
            }
            let mut tiles: Vec<&mut [f32]> = values.iter_mut().map(|values| &mut values[..tile.len()]).collect();
            visit(tile.start, &mut tiles);
        }
        Ok(())
    }
}

/// The sum of a term of each pair of elements, in fp64: so many sums side by side, in an order that does not depend on how wide
/// a processor's vectors are.
pub fn total<const LANES: usize>(left: &[f32], right: &[f32], term: impl Fn(f32, f32) -> f64) -> f64 {
    vectorized(Total::<_, LANES> { left, right, term })
}

struct Total<'a, F, const LANES: usize> {
    left: &'a [f32],
    right: &'a [f32],
    term: F,
}

impl<F: Fn(f32, f32) -> f64, const LANES: usize> Loop for Total<'_, F, LANES> {
    type Output = f64;

    #[expect(clippy::inline_always, reason = "it is compiled for each width of vectors only where it is inlined")]
    #[inline(always)]
    fn run(self) -> f64 {
        let (left, left_rest) = self.left.as_chunks::<LANES>();
        let (right, right_rest) = self.right.as_chunks::<LANES>();
        let rest: f64 = left_rest.iter().zip(right_rest).map(|(a, b)| (self.term)(*a, *b)).sum();
        let mut sums = [0.0f64; LANES];
        for (a, b) in left.iter().zip(right) {
            for lane in 0..LANES {
                sums[lane] += (self.term)(a[lane], b[lane]);
            }
        }
        sums.iter().sum::<f64>() + rest
    }
}
