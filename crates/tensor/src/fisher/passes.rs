//! Sequences up through a model, layer by layer, and their gradients down again.
//!
//! Each sequence goes by itself, for it is its own gradient that is squared. What is kept of it between two layers are its
//! hidden states, on the way down its gradient in their place. Resident at a time: the weights of one layer, the sums of
//! its squared gradients, and the gradients of as many sequences as there are workers (fewer where they take more than a quarter
//! of the memory).

use std::path::Path;

use indexmap::IndexSet;
use mergelab_wire::Labels;
use tch::{Device, Kind, TchError, Tensor};

use super::error::FisherError;
use super::labels::Example;
use super::squares::Squares;
use crate::device;
use crate::gram::GramError;
use crate::gram::capture::Means;
use crate::gram::flow::{first_not_finite, keep};
use crate::gram::hidden::Hidden;
use crate::model::decoder::{EMBEDDING, FinalNorm};
use crate::model::{Decoder, DecoderConfig, Rope, Span};

/// Fisher information by the parameter's name.
pub(super) type Named = Vec<(String, Tensor)>;

/// The final norm and the output projection.
const OUTPUT: &str = "the output";

/// Sequences with their states or gradients before every layer and after the last.
#[derive(Debug)]
pub(super) struct Passes<'a> {
    decoder: &'a Decoder<'a>,
    config: &'a DecoderConfig,
    /// The data file, for messages.
    data: &'a Path,
    labels: Labels,
    means: Means<'a>,
    examples: Vec<Example>,
    /// Levels one after the other, each with all examples. The hidden states of level `l` enter layer `l`; those above the
    /// last layer are kept beside their gradient where the embedding needs them once more.
    states: Hidden,
}

impl<'a> Passes<'a> {
    /// Room for examples, of which there is at least one.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn new(
        decoder: &'a Decoder<'a>,
        (data, spill): (&'a Path, &Path),
        labels: Labels,
        means: Means<'a>,
        examples: Vec<Example>,
    ) -> Result<Self, FisherError> {
        let (config, kind) = (decoder.config(), decoder.kind());
        let levels = config.layers + 1 + usize::from(decoder.head().is_none());
        let tokens = (0..levels).flat_map(|_| examples.iter().map(|example| example.ids.len()));
        let longest = examples.iter().map(|example| example.ids.len()).max().unwrap_or(0);
        let working = working_set(config, kind, longest, means);
        let states = keep(tokens, (config.hidden, kind), working, means, (spill, 1))?;
        Ok(Self { decoder, config, data, labels, means, examples, states })
    }

    /// Rotary tables for the longest sequence.
    ///
    /// # Errors
    /// When libtorch fails.
    pub(super) fn rope(&self) -> Result<Rope, FisherError> {
        let longest = self.examples.iter().map(|example| example.ids.len()).max().unwrap_or(0);
        self.decoder.rope(longest).map_err(FisherError::torch("rotary embedding"))
    }

    /// Tokens that are predicted: what sums of squares are divided by.
    pub(super) fn predicted(&self) -> usize {
        self.examples.iter().map(Example::predicted).sum()
    }

    /// Embeds all sequences.
    ///
    /// # Errors
    /// When the embedding cannot be read or is not finite, or there is no room.
    pub(super) fn embed(&self) -> Result<(), FisherError> {
        const PLACE: &str = "the embedding";
        let embedding = self.decoder.embedding()?;
        for (index, example) in self.examples.iter().enumerate() {
            let states = ids(&example.ids, self.means.device).and_then(|ids| embedding.f_index_select(0, &ids));
            let states = states.map_err(FisherError::torch(PLACE))?;
            self.check_states(&states, index, PLACE)?;
            self.set(0, index, &states)?;
        }
        Ok(())
    }

    /// All sequences through one layer.
    ///
    /// # Errors
    /// When its weights cannot be read, an activation is not finite, libtorch fails, or there is no room.
    pub(super) fn ascend(&self, layer: usize, rope: &Rope) -> Result<(), FisherError> {
        let (weights, place) = (self.decoder.layer(layer)?, format!("layer {layer}"));
        let work = (0..self.examples.len()).map(|index| (index, weights.share(), rope.share())).collect();
        self.means.pool.map(work, |(index, weights, rope)| {
            let after = weights.forward(&self.get(layer, index)?, &self.span(index), &rope);
            let after = after.map_err(FisherError::torch(&place))?.output;
            self.check_states(&after, index, &place)?;
            self.set(layer + 1, index, &after)
        })?;
        Ok(())
    }

    /// The Fisher information of the final norm, and of the output projection where it is not the embedding; and `log p` of
    /// all tokens that are predicted. From here on there are gradients above the last layer.
    ///
    /// # Errors
    /// When weights cannot be read, a gradient is not finite, libtorch fails, or there is no room.
    pub(super) fn output(&self) -> Result<(Named, f64), FisherError> {
        let (norm, head) = (self.decoder.final_norm()?, self.decoder.head_weight()?);
        let mut parameters = vec![(self.decoder.outside("norm.weight"), norm.weight())];
        parameters.extend(self.decoder.head().map(|name| (format!("{name}.weight"), &head)));
        let share = || (norm.share(), head.shallow_clone());
        let own = parameters.len() > 1;
        self.each(OUTPUT, parameters, &share, |index, (norm, head)| {
            let states = self.leaf(self.config.layers, index)?;
            let back = || -> Result<_, TchError> {
                let likelihood = self.log_likelihood(index, &states, (&norm, &head))?;
                let mut inputs = vec![&states, norm.weight()];
                inputs.extend(own.then_some(&head));
                let gradients = Tensor::f_run_backward(&[&likelihood], &inputs, false, false)?;
                Ok((gradients, likelihood.f_double_value(&[])?))
            };
            let (mut gradients, likelihood) = back().map_err(FisherError::torch(OUTPUT))?;
            self.pass_down(self.top(), index, &gradients.remove(0), OUTPUT)?;
            Ok((gradients, likelihood))
        })
        .map(|(fisher, likelihoods)| (fisher, likelihoods.into_iter().sum()))
    }

    /// The Fisher information of one layer. Gradients are below it afterwards.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub(super) fn descend(&self, layer: usize, rope: &Rope) -> Result<Named, FisherError> {
        let (weights, place) = (self.decoder.layer(layer)?, format!("layer {layer}"));
        let above = if layer + 1 == self.config.layers { self.top() } else { layer + 1 };
        let parameters = weights.parameters();
        let parameters = parameters.into_iter().map(|(name, tensor)| (self.decoder.module(layer, &name), tensor));
        let share = || (weights.share(), rope.share());
        let (fisher, _) = self.each(&place, parameters.collect(), &share, |index, (weights, rope)| {
            let (states, gradient) = (self.leaf(layer, index)?, self.get(above, index)?);
            let back = || -> Result<_, TchError> {
                let after = weights.forward(&states, &self.span(index), &rope)?.output;
                // Its gradient with respect to what comes out is the one that came from above.
                let objective = after.f_mul(&gradient)?.f_sum(Kind::Float)?;
                let parameters = weights.parameters();
                let inputs: Vec<&Tensor> =
                    std::iter::once(&states).chain(parameters.iter().map(|(_, tensor)| *tensor)).collect();
                Tensor::f_run_backward(&[objective], &inputs, false, false)
            };
            let mut gradients = back().map_err(FisherError::torch(&place))?;
            self.pass_down(layer, index, &gradients.remove(0), &place)?;
            Ok((gradients, ()))
        })?;
        Ok(fisher)
    }

    /// The Fisher information of the embedding. Where it is the output projection too, a sequence's gradient is the sum of
    /// both of its parts.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub(super) fn embedding(&self) -> Result<Named, FisherError> {
        const PLACE: &str = "the embedding";
        let name = self.decoder.outside(EMBEDDING);
        let fail = || FisherError::torch(PLACE);
        if self.decoder.head().is_some() {
            let shape = vec![self.config.vocab as i64, self.config.hidden as i64];
            let mut squares = Squares::new(&[shape], self.means.device).map_err(fail())?;
            for index in 0..self.examples.len() {
                let (ids, rows) = self.looked_up(index)?;
                squares.add_rows(&ids, &rows).map_err(fail())?;
            }
            return self.finish(vec![name], squares, PLACE);
        }
        let (norm, head) = (self.decoder.final_norm()?, self.decoder.head_weight()?);
        let share = || (norm.share(), head.shallow_clone());
        let (fisher, _) = self.each(PLACE, vec![(name, &head)], &share, |index, (norm, head)| {
            let states = self.get(self.config.layers, index)?;
            let (ids, rows) = self.looked_up(index)?;
            let back = || -> Result<_, TchError> {
                let likelihood = self.log_likelihood(index, &states, (&norm, &head))?;
                let gradient = Tensor::f_run_backward(&[likelihood], &[&head], false, false)?.remove(0);
                gradient.f_to_kind(Kind::Float)?.f_index_add_(0, &ids, &rows)
            };
            Ok((vec![back().map_err(fail())?], ()))
        })?;
        Ok(fisher)
    }

    /// `Σ log p` over the tokens of a sequence that are predicted, from the states `[tokens, hidden]` above the last layer.
    fn log_likelihood(
        &self,
        index: usize,
        states: &Tensor,
        (norm, head): (&FinalNorm, &Tensor),
    ) -> Result<Tensor, TchError> {
        let example = &self.examples[index];
        let before = norm.forward(states)?.f_index_select(0, &example.before(self.means.device)?)?;
        let logits = before.f_linear(head, None::<Tensor>)?.f_to_kind(Kind::Float)?;
        let predictions = logits.f_log_softmax(-1, Kind::Float)?;
        let labels = example.labels(self.labels, &predictions.f_detach()?)?;
        predictions.f_gather(1, &labels.f_unsqueeze(1)?, false)?.f_sum(Kind::Float)
    }

    /// The gradient of the embedding's rows that a sequence looks up, each once, in fp32: their ids `[rows]` and
    /// `[rows, hidden]`.
    fn looked_up(&self, index: usize) -> Result<(Tensor, Tensor), FisherError> {
        let example = &self.examples[index];
        let distinct: IndexSet<u32> = example.ids.iter().copied().collect();
        // As a product: sums in a stated order on every device.
        let mut selection = vec![0.0f32; distinct.len() * example.ids.len()];
        for (position, id) in example.ids.iter().enumerate() {
            let row = distinct.get_index_of(id).expect("every id was put in");
            selection[row * example.ids.len() + position] = 1.0;
        }
        let gradient = self.get(0, index)?;
        let sum = || -> Result<_, TchError> {
            let shape = [distinct.len() as i64, example.ids.len() as i64];
            let selection = Tensor::f_from_slice(&selection)?.f_view(shape)?.f_to_device(self.means.device)?;
            let rows = selection.f_matmul(&gradient.f_to_kind(Kind::Float)?)?;
            let distinct: Vec<u32> = distinct.into_iter().collect();
            Ok((ids(&distinct, self.means.device)?, rows))
        };
        sum().map_err(FisherError::torch("the embedding"))
    }

    /// Runs every sequence by itself and adds up the squares of what it gives: the gradients of these parameters, and
    /// something of its own. `share` makes handles on the weights for another thread.
    fn each<P: Send, R: Send>(
        &self,
        place: &str,
        parameters: Vec<(String, &Tensor)>,
        share: &dyn Fn() -> P,
        run: impl Fn(usize, P) -> Result<(Vec<Tensor>, R), FisherError> + Sync,
    ) -> Result<(Named, Vec<R>), FisherError> {
        let fail = || FisherError::torch(place);
        for (_, parameter) in &parameters {
            drop(parameter.f_set_requires_grad(true).map_err(fail())?);
        }
        let shapes: Vec<Vec<i64>> = parameters.iter().map(|(_, parameter)| parameter.size()).collect();
        let elements: i64 = shapes.iter().map(|shape| shape.iter().product::<i64>()).sum();
        let wave = self.wave(elements as u64 * size_of::<f32>() as u64);
        let mut squares = Squares::new(&shapes, self.means.device).map_err(fail())?;
        let mut others = Vec::with_capacity(self.examples.len());
        for start in (0..self.examples.len()).step_by(wave) {
            let end = (start + wave).min(self.examples.len());
            let work = (start..end).map(|index| (index, share())).collect();
            let (gradients, own): (Vec<_>, Vec<_>) =
                self.means.pool.map(work, |(index, weights)| run(index, weights))?.into_iter().unzip();
            others.extend(own);
            squares.add(&gradients, self.means.pool).map_err(fail())?;
        }
        let names = parameters.into_iter().map(|(name, _)| name).collect();
        Ok((self.finish(names, squares, place)?, others))
    }

    /// Sums of squares as Fisher information, checked to be finite.
    fn finish(&self, names: Vec<String>, squares: Squares, place: &str) -> Result<Named, FisherError> {
        let fail = || FisherError::torch(place);
        let fisher = squares.over(self.predicted()).map_err(fail())?;
        for (name, tensor) in names.iter().zip(&fisher) {
            let sum = tensor.f_sum(Kind::Double).and_then(|sum| sum.f_double_value(&[])).map_err(fail())?;
            if !sum.is_finite() {
                return Err(FisherError::Overflow { tensor: name.clone() });
            }
        }
        Ok(names.into_iter().zip(fisher).collect())
    }

    /// How many sequences run side by side, whose gradients take so many bytes each.
    fn wave(&self, gradients: u64) -> usize {
        let memory = self.means.memory.or_else(device::available_memory).unwrap_or(u64::MAX);
        let room = memory / 4 / gradients.max(1);
        self.means.pool.workers().min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
    }

    /// The level that holds the gradients above the last layer.
    fn top(&self) -> usize {
        self.config.layers + usize::from(self.decoder.head().is_none())
    }

    fn span(&self, index: usize) -> [Span; 1] {
        [Span { start: 0, count: 1, length: self.examples[index].ids.len() }]
    }

    fn get(&self, level: usize, index: usize) -> Result<Tensor, FisherError> {
        Ok(self.states.get(level * self.examples.len() + index)?)
    }

    fn set(&self, level: usize, index: usize, states: &Tensor) -> Result<(), FisherError> {
        Ok(self.states.set(level * self.examples.len() + index, states)?)
    }

    /// States that a gradient is wanted for.
    fn leaf(&self, level: usize, index: usize) -> Result<Tensor, FisherError> {
        let states = self.get(level, index)?;
        let leaf = states.f_detach().and_then(|leaf| leaf.f_set_requires_grad(true));
        leaf.map_err(FisherError::torch("hidden states"))
    }

    /// Keeps a gradient in the place of the states that it belongs to.
    fn pass_down(&self, level: usize, index: usize, gradient: &Tensor, place: &str) -> Result<(), FisherError> {
        if first_not_finite(gradient).map_err(FisherError::torch(place))?.is_some() {
            let (place, data, row) = (place.to_owned(), self.data.to_path_buf(), self.examples[index].row);
            return Err(FisherError::NotFinite { place, data, row });
        }
        self.set(level, index, gradient)
    }

    fn check_states(&self, states: &Tensor, index: usize, place: &str) -> Result<(), FisherError> {
        match first_not_finite(states).map_err(FisherError::torch(place))? {
            None => Ok(()),
            Some(_) => {
                let (place, data, row) = (place.to_owned(), self.data.to_path_buf(), self.examples[index].row);
                Err(GramError::NotFinite { place, data, row }.into())
            }
        }
    }
}

/// Token ids `[tokens]`.
fn ids(ids: &[u32], device: Device) -> Result<Tensor, TchError> {
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    Tensor::f_from_slice(&ids)?.f_to_device(device)
}

/// Bytes that the work on one piece takes, roughly: the weights of a layer or of the output projection, their sums of
/// squares, and for each sequence on its way their gradients and what it leaves behind.
fn working_set(config: &DecoderConfig, kind: Kind, longest: usize, means: Means<'_>) -> u64 {
    let layer = config.hidden * (2 * config.heads * config.head_dim + 2 * config.kv_heads * config.head_dim)
        + 3 * config.hidden * config.mlp;
    let largest = layer.max(config.vocab * config.hidden);
    let element = kind.elt_size_in_bytes();
    let passing = longest * (3 * 4 * config.vocab).max(2 * element * (6 * config.hidden + 4 * config.mlp));
    (largest * (element + 4) + means.pool.workers() * (largest * element + passing)) as u64
}
