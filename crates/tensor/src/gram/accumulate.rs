//! Sums of `Xᵀ X` in fp32, upper triangle only, and the share of the trace that first tokens hold.

use tch::{Device, Kind, TchError, Tensor};

use super::tiles::{Tiling, pack};
use crate::parallel::Pool;

/// One matrix in the making.
///
/// Kept as strips: block row `i` holds `[rows, width - start]`, what lies on and right of the diagonal block. Each strip
/// takes one product per batch of tokens, added in place; strips are independent, so they are the pieces of parallel work.
#[derive(Debug)]
pub struct Accumulator {
    tiling: Tiling,
    strips: Vec<Tensor>,
    tokens: usize,
    first_energy: f64,
}

impl Accumulator {
    /// A zero matrix.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(width: usize, device: Device) -> Result<Self, TchError> {
        let tiling = Tiling::of(width);
        let strips = (0..tiling.blocks())
            .map(|block| {
                let rows = tiling.rows(block);
                Tensor::f_zeros([rows.len() as i64, (width - rows.start) as i64], (Kind::Float, device))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { tiling, strips, tokens: 0, first_energy: 0.0 })
    }

    /// How the matrix is cut.
    pub fn tiling(&self) -> Tiling {
        self.tiling
    }

    /// Adds `Xᵀ X` of `x: [tokens, width]` (any float type; the products are exact in fp32 for 16-bit ones), of whose rows
    /// `first` are first tokens of a sequence.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn add(&mut self, x: &Tensor, first: &Tensor, pool: Pool) -> Result<(), TchError> {
        let x = x.f_to_kind(Kind::Float)?.f_contiguous()?;
        self.tokens += x.size2()?.0 as usize;
        self.first_energy += x.f_index_select(0, first)?.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        let work: Vec<(usize, Tensor, Tensor)> = self
            .strips
            .iter()
            .enumerate()
            .map(|(block, strip)| (block, strip.shallow_clone(), x.shallow_clone()))
            .collect();
        let tiling = self.tiling;
        pool.map(work, |(block, mut strip, x)| {
            let rows = tiling.rows(block);
            let left = x.f_narrow(1, rows.start as i64, rows.len() as i64)?;
            let right = x.f_narrow(1, rows.start as i64, (tiling.width - rows.start) as i64)?;
            strip.f_addmm_(&left.f_tr()?, &right).map(drop)
        })?;
        Ok(())
    }

    /// How many tokens were added.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The diagonal's sum over all tokens, in fp64.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn energy(&self) -> Result<f64, TchError> {
        self.strips.iter().map(|strip| strip.f_diagonal(0, 0, 1)?.f_sum(Kind::Double)?.f_double_value(&[])).sum()
    }

    /// The part of [`Self::energy`] that first tokens hold.
    pub fn first_energy(&self) -> f64 {
        self.first_energy
    }

    /// The tiles `[blocks - i, tile, tile]` of block row `i` of the mean over tokens, on the CPU.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn tiles(&self, block: usize) -> Result<Tensor, TchError> {
        let mean = self.strips[block].f_div_scalar(self.tokens.max(1) as f64)?.f_to_device(Device::Cpu)?;
        pack(self.tiling, block, &mean)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tiles::unpack;
    use super::*;

    /// 100,000 tokens whose features have means far from zero, so that sums grow: the case in which fp32 loses most.
    #[test]
    fn fp32_sums_agree_with_float64_to_1e_5() {
        tch::manual_seed(1);
        let width = 96;
        let x = Tensor::randn([100_000, width], (Kind::Float, Device::Cpu)) + 2.0;
        let wide = x.to_kind(Kind::Double);
        let exact = wide.tr().matmul(&wide) / 100_000.0;
        let mut sum = Accumulator::new(width as usize, Device::Cpu).unwrap();
        for chunk in x.split(4096, 0) {
            sum.add(&chunk, &Tensor::from_slice(&[0i64]), Pool::new(2)).unwrap();
        }
        let tiles: Vec<Tensor> = (0..sum.tiling().blocks()).map(|block| sum.tiles(block).unwrap()).collect();
        let matrix = unpack(sum.tiling(), &Tensor::cat(&tiles, 0)).unwrap().to_kind(Kind::Double);
        let scale = exact.diagonal(0, 0, 1).sqrt();
        let worst = ((&matrix - &exact).abs() / scale.outer(&scale)).max().double_value(&[]);
        assert!(worst < 1e-5, "{worst:e}");
        assert!(worst > 0.0, "fp32 and fp64 cannot agree to the last bit");
    }
}
