//! Sums of squared gradients, added in the order of the sequences whatever the number of threads.

use tch::{Device, Kind, TchError, Tensor};

use crate::parallel::Pool;

/// Elements of a strip: what one worker adds at a time.
const STRIP: usize = 1 << 18;

/// `Σ g²` of some parameters, in fp32.
#[derive(Debug)]
pub(super) struct Squares {
    sums: Vec<Tensor>,
}

impl Squares {
    /// Zeros of these shapes.
    pub(super) fn new(shapes: &[Vec<i64>], device: Device) -> Result<Self, TchError> {
        let zeros = |shape: &Vec<i64>| Tensor::f_zeros(shape.as_slice(), (Kind::Float, device));
        Ok(Self { sums: shapes.iter().map(zeros).collect::<Result<_, _>>()? })
    }

    /// Adds the squares of the gradients of some sequences, of each as many as there are parameters.
    pub(super) fn add(&mut self, sequences: &[Vec<Tensor>], pool: Pool) -> Result<(), TchError> {
        let mut strips = Vec::new();
        for (index, sum) in self.sums.iter().enumerate() {
            let rows = sum.size()[0];
            let step = (STRIP as i64 * rows / (sum.numel() as i64).max(1)).max(1);
            for start in (0..rows).step_by(step as usize) {
                let cut = |x: &Tensor| x.f_narrow(0, start, step.min(rows - start));
                let gradients = sequences.iter().map(|gradients| cut(&gradients[index]));
                strips.push((cut(sum)?, gradients.collect::<Result<Vec<_>, _>>()?));
            }
        }
        pool.map(strips, |(mut sum, gradients)| {
            for gradient in gradients {
                let gradient = gradient.f_to_kind(Kind::Float)?;
                sum = sum.f_addcmul_(&gradient, &gradient)?;
            }
            Ok::<_, TchError>(())
        })?;
        Ok(())
    }

    /// Adds squares of rows `[rows, …]` to those rows of the only parameter that `indices` names, each once.
    pub(super) fn add_rows(&mut self, indices: &Tensor, rows: &Tensor) -> Result<(), TchError> {
        let squared = rows.f_to_kind(Kind::Float)?.f_square()?;
        self.sums[0].f_index_add_(0, indices, &squared).map(drop)
    }

    /// The sums, divided.
    pub(super) fn over(self, count: usize) -> Result<Vec<Tensor>, TchError> {
        self.sums.into_iter().map(|mut sum| sum.f_div_scalar_(count as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_the_same_bits_whatever_the_workers_and_however_sequences_come() {
        tch::manual_seed(3);
        let shapes = [vec![700, 900], vec![5]];
        let random = |shape: &Vec<i64>| Tensor::randn(shape.as_slice(), (Kind::Float, Device::Cpu));
        let sequences: Vec<Vec<Tensor>> = (0..5).map(|_| shapes.iter().map(random).collect()).collect();
        let summed = |workers, wave| {
            let mut squares = Squares::new(&shapes, Device::Cpu).unwrap();
            sequences.chunks(wave).for_each(|wave| squares.add(wave, Pool::new(workers)).unwrap());
            squares.over(2).unwrap()
        };
        let found = summed(1, 5);
        assert_eq!(found, summed(3, 2));
        for (index, found) in found.iter().enumerate() {
            let expected = sequences.iter().fold(found.zeros_like(), |sum, gradients| sum + gradients[index].square());
            assert!((found * 2.0 - expected).abs().max().double_value(&[]) < 1e-5);
        }
    }
}
