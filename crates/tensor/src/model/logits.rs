//! One sequence through the whole model.

use tch::{Kind, Tensor};

use super::decoder::{Decoder, Span};
use crate::checkpoint::CheckpointError;

/// Logits `[tokens, vocab]`, fp32, of one sequence; layers are loaded one after the other.
///
/// # Errors
/// When a weight is missing or of another shape than the configuration says, or libtorch fails.
pub fn logits(decoder: &Decoder<'_>, ids: &[u32]) -> Result<Tensor, CheckpointError> {
    let fail = || CheckpointError::torch("logits");
    let ids: Vec<i64> = ids.iter().copied().map(i64::from).collect();
    let embedding = decoder.embedding()?;
    let ids = Tensor::f_from_slice(&ids).and_then(|ids| ids.f_to_device(embedding.device())).map_err(fail())?;
    let mut x = embedding.f_index_select(0, &ids).map_err(fail())?;
    drop(embedding);
    let length = x.size()[0] as usize;
    let rope = decoder.rope(length).map_err(fail())?;
    for layer in 0..decoder.config().layers {
        let spans = [Span { start: 0, count: 1, length }];
        x = decoder.layer(layer)?.forward(&x, &spans, &rope).map_err(fail())?.output;
    }
    let x = decoder.final_norm()?.forward(&x).map_err(fail())?;
    let weight = decoder.head_weight()?;
    x.f_linear(&weight, None::<Tensor>).and_then(|logits| logits.f_to_kind(Kind::Float)).map_err(fail())
}
