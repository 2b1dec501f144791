//! What a sequence predicts: the places of the tokens that count, and the tokens that stand there or are drawn.

use mergelab_wire::Labels;
use tch::{Device, Kind, TchError, Tensor};

use crate::draw::Draws;
use crate::text::Sequence;

/// One sequence, and what of it is predicted.
#[derive(Debug)]
pub(super) struct Example {
    /// Row in the data file, counted from 1.
    pub(super) row: usize,
    /// Token ids.
    pub(super) ids: Vec<u32>,
    /// Positions whose token counts and that another one precedes; at least one.
    targets: Vec<usize>,
}

impl Example {
    /// A sequence, unless nothing of it is predicted.
    pub(super) fn new(sequence: Sequence) -> Option<Self> {
        let counts = sequence.counts.iter().enumerate().skip(1);
        let targets: Vec<usize> = counts.filter_map(|(position, counts)| counts.then_some(position)).collect();
        let Sequence { row, ids, .. } = sequence;
        (!targets.is_empty()).then_some(Self { row, ids, targets })
    }

    /// How many tokens are predicted.
    pub(super) fn predicted(&self) -> usize {
        self.targets.len()
    }

    /// Positions that predict: the ones before the targets, `[predicted]`.
    pub(super) fn before(&self, device: Device) -> Result<Tensor, TchError> {
        let positions: Vec<i64> = self.targets.iter().map(|target| *target as i64 - 1).collect();
        Tensor::f_from_slice(&positions)?.f_to_device(device)
    }

    /// Labels `[predicted]` for predictions `log p`, `[predicted, vocab]` in fp32.
    pub(super) fn labels(&self, labels: Labels, predictions: &Tensor) -> Result<Tensor, TchError> {
        let Labels::Model { seed } = labels else {
            let ids: Vec<i64> = self.targets.iter().map(|target| i64::from(self.ids[*target])).collect();
            return Tensor::f_from_slice(&ids)?.f_to_device(predictions.device());
        };
        let draws = Draws::numbered(seed, self.row);
        let uniform: Vec<f64> = self.targets.iter().map(|target| draws.at(*target)).collect();
        let uniform = Tensor::f_from_slice(&uniform)?.f_to_device(predictions.device())?.f_unsqueeze(1)?;
        // The label is the first at which the sum of probabilities passes the draw, scaled to what they really add up to.
        let cumulative = predictions.f_to_kind(Kind::Double)?.f_exp()?.f_cumsum(1, Kind::Double)?;
        let threshold = cumulative.f_narrow(1, cumulative.size()[1] - 1, 1)?.f_mul(&uniform)?;
        cumulative.f_le_tensor(&threshold)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(row: usize, counts: &[bool]) -> Option<Example> {
        let ids: Vec<u32> = (10..).take(counts.len()).collect();
        let bytes = vec![1; ids.len()];
        Example::new(Sequence { row, ids, counts: counts.to_vec(), bytes })
    }

    #[test]
    fn a_token_that_nothing_precedes_is_not_predicted() {
        assert!(example(1, &[true, false, false]).is_none());
        let example = example(1, &[true, true, false, true]).unwrap();
        let list = |tensor: Tensor| Vec::<i64>::try_from(tensor).unwrap();
        assert_eq!(list(example.before(Device::Cpu).unwrap()), [0, 2]);
        let predictions = Tensor::zeros([2, 20], (Kind::Float, Device::Cpu));
        assert_eq!(list(example.labels(Labels::Data, &predictions).unwrap()), [11, 13]);
    }

    #[test]
    fn labels_are_drawn_as_often_as_the_model_says_and_the_same_each_time() {
        let tokens = 20_000;
        let example = example(3, &vec![true; tokens + 1]).unwrap();
        let probabilities = [0.5, 0.0, 0.2, 0.3, 0.0];
        let one = Tensor::from_slice(&probabilities).to_kind(Kind::Float).log();
        let predictions = one.unsqueeze(0).expand([tokens as i64, 5], false);
        let drawn = |seed| {
            let labels = example.labels(Labels::Model { seed }, &predictions).unwrap();
            Vec::<i64>::try_from(labels).unwrap()
        };
        let labels = drawn(0);
        for (label, probability) in probabilities.iter().enumerate() {
            let share = labels.iter().filter(|drawn| **drawn == label as i64).count() as f64 / tokens as f64;
            // Five standard errors; what is impossible is never drawn.
            let error = 5.0 * (probability * (1.0 - probability) / tokens as f64).sqrt();
            assert!((share - probability).abs() <= error, "{label}: {share}");
        }
        assert_eq!(labels, drawn(0));
        assert_ne!(labels, drawn(1));
    }
}
