//! From the last hidden states to what is predicted: the final norm, the output projection, and the logarithms of the
//! probabilities, block by block of tokens.
//!
//! Whatever the type of the forward pass, the norm's output and the projection's weights are widened (exactly) and multiplied in
//! fp32: a logit of 20 rounded to bf16 is off by up to 0.06, which would be most of the KL divergence of two models that are
//! near each other.

use tch::{Device, Kind, TchError, Tensor};

use crate::checkpoint::CheckpointError;
use crate::gram::GramError;
use crate::gram::chunk::Chunk;
use crate::model::Decoder;
use crate::model::decoder::FinalNorm;

/// Logits in a block of tokens, on the CPU: 32 MB, and a few times that on the way.
const CPU_LOGITS: usize = 1 << 23;

/// Logits in a block of tokens, on a GPU: 512 MB.
const CUDA_LOGITS: usize = 1 << 27;

/// What makes hidden states into predictions.
#[derive(Debug)]
pub(super) struct Head {
    norm: FinalNorm,
    /// `[vocab, hidden]`, fp32.
    weight: Tensor,
}

/// Positions of the tokens that count in a chunk; each has one before it in its sequence.
pub(super) fn counted(chunk: &Chunk) -> &[i64] {
    chunk.counted.as_deref().expect("first tokens do not count")
}

impl Head {
    /// Loads what a model has after its last layer.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape than the configuration says.
    pub(super) fn load(decoder: &Decoder<'_>) -> Result<Self, CheckpointError> {
        let norm = decoder.final_norm()?;
        let weight = decoder.head_weight()?.f_to_kind(Kind::Float).map_err(CheckpointError::torch("lm_head"))?;
        Ok(Self { norm, weight })
    }

    pub(super) fn share(&self) -> Self {
        Self { norm: self.norm.share(), weight: self.weight.shallow_clone() }
    }

    /// `-log p` of each token that counts, in nats, from the last hidden states of its chunk `[tokens, hidden]`.
    pub(super) fn nll(&self, chunk: &Chunk, states: &Tensor) -> Result<Vec<f64>, GramError> {
        let ids = chunk.ids(states.device()).map_err(fail())?;
        self.by_blocks(chunk, states.device(), |at| {
            let predicted = self.log_probabilities(states, at)?;
            let ids = ids.f_index_select(0, at)?.f_unsqueeze(1)?;
            predicted.f_gather(1, &ids, false)?.f_squeeze_dim(1)?.f_neg()?.f_to_kind(Kind::Double)
        })
    }

    /// `Σ p (log p - log q)` over the vocabulary for each token that counts, in nats: `p` predicted here, `q` by another model
    /// from its own hidden states of the same chunk.
    pub(super) fn kl(
        &self,
        states: &Tensor,
        other: &Self,
        others: &Tensor,
        chunk: &Chunk,
    ) -> Result<Vec<f64>, GramError> {
        self.by_blocks(chunk, states.device(), |at| {
            let mut p = self.log_probabilities(states, at)?;
            let mut terms = p.f_sub(&other.log_probabilities(others, at)?)?;
            terms.f_mul_(&p.f_exp_()?)?.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Double)
        })
    }

    /// One number for each token that counts, by blocks of their positions `[block]`.
    fn by_blocks(
        &self,
        chunk: &Chunk,
        device: Device,
        work: impl Fn(&Tensor) -> Result<Tensor, TchError>,
    ) -> Result<Vec<f64>, GramError> {
        let logits = if device == Device::Cpu { CPU_LOGITS } else { CUDA_LOGITS };
        let block = (logits / self.weight.size()[0] as usize).max(1);
        let mut values = Vec::with_capacity(counted(chunk).len());
        for positions in counted(chunk).chunks(block) {
            let at = Tensor::f_from_slice(positions).and_then(|at| at.f_to_device(device));
            let of_block = at.and_then(|at| work(&at)).map_err(fail())?;
            values.extend(Vec::<f64>::try_from(of_block).map_err(fail())?);
        }
        Ok(values)
    }

    /// Logarithms of the probabilities of what may stand at some positions, predicted at those before them: `[block, vocab]`,
    /// fp32.
    fn log_probabilities(&self, states: &Tensor, at: &Tensor) -> Result<Tensor, TchError> {
        let states = states.f_index_select(0, &at.f_sub_scalar(1)?)?;
        let x = self.norm.forward(&states)?.f_to_kind(Kind::Float)?;
        x.f_linear(&self.weight, None::<Tensor>)?.f_log_softmax(-1, Kind::Float)
    }
}

fn fail() -> impl FnOnce(TchError) -> GramError {
    GramError::torch("lm_head")
}
