//! Layers one after the other, each loaded while the one before it is in use.

use std::thread;

use super::decoder::{Decoder, Layer};
use crate::checkpoint::CheckpointError;
use crate::parallel;

/// Hands over the first `layers` decoder layers in their order. Two are resident at a time: the one in use, and the next.
///
/// # Errors
/// When a layer cannot be loaded, or the first error of `visit`.
pub(crate) fn walk<E>(
    decoder: &Decoder<'_>,
    layers: usize,
    mut visit: impl FnMut(usize, Layer) -> Result<(), E>,
) -> Result<(), E>
where
    E: From<CheckpointError>,
{
    thread::scope(|scope| {
        let load = |index: usize| {
            scope.spawn(move || {
                parallel::one_thread_here();
                decoder.layer(index)
            })
        };
        let mut next = (layers > 0).then(|| load(0));
        for index in 0..layers {
            let loading = next.take().expect("the next layer is always on its way");
            let layer = loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            next = (index + 1 < layers).then(|| load(index + 1));
            visit(index, layer)?;
        }
        Ok(())
    })
}
