//! Sums of `XᵀX` in fp32, upper triangle only, and the share of the trace that first tokens hold.
//!
//! A matrix in the making is kept as strips: block row `i` holds `[rows, width - start]`, what lies on and right of the
//! diagonal block. Strips are independent, so they are the pieces of parallel work, and each takes the chunks of tokens in
//! their order: what is added to what does not depend on the number of workers.
//!
//! The product is the exact one of the activations as they are, summed in fp32, by whatever does it fastest:
//!
//! | activations | on the CPU | on CUDA |
//! |---|---|---|
//! | bfloat16 | our own kernel ([`Pairs`]) with AVX512-BF16, else as fp32 | `addmm` with an fp32 result |
//! | float16 | widened to fp32 (exact) | `addmm` with an fp32 result |
//! | float32 | `addmm` | `addmm`, TF32 off |

use tch::{Device, Kind, TchError, Tensor};

use super::pairs::{self, Pairs};
use super::tiles::{Tiling, pack};
use crate::parallel::Pool;

/// One matrix in the making.
#[derive(Debug)]
pub struct Accumulator {
    tiling: Tiling,
    strips: Vec<Strip>,
    tokens: usize,
    first_energy: f64,
}

#[derive(Debug)]
enum Strip {
    Plain(Vec<f32>),
    Torch(Tensor),
}

/// What one chunk adds to one matrix.
#[derive(Debug)]
pub struct Addend {
    rows: Rows,
    tokens: usize,
    first_energy: f64,
}

#[derive(Debug)]
enum Rows {
    Pairs(Pairs),
    Torch(Tensor),
}

/// Whether activations of this kind, there, are summed by our own kernel.
fn by_pairs(kind: Kind, device: Device) -> bool {
    kind == Kind::BFloat16 && device == Device::Cpu && pairs::available()
}

impl Addend {
    /// What `x: [tokens, width]` adds, where only the rows `counted` count (all if `None`), of which `first` (positions among
    /// those that count) are the first tokens of sequences.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(x: &Tensor, counted: Option<&[i64]>, first: &[i64]) -> Result<Self, TchError> {
        let (tokens, width) = x.size2()?;
        let (kind, device) = (x.f_kind()?, x.device());
        let on_device = |positions: &[i64]| Tensor::f_from_slice(positions)?.f_to_device(device);
        if by_pairs(kind, device) {
            let (width, mut bits) = (width as usize, vec![0; x.numel()]);
            x.f_contiguous()?.f_view_dtype(Kind::Int16)?.f_copy_data(&mut bits, x.numel())?;
            let row = |position: i64| &bits[position as usize * width..][..width];
            let pairs = match counted {
                None => Pairs::of(width, bits.chunks_exact(width)),
                Some(counted) => Pairs::of(width, counted.iter().map(|&position| row(position))),
            };
            let energy = |&index: &i64| -> f64 {
                let position = counted.map_or(index, |counted| counted[index as usize]);
                row(position).iter().map(|&bits| pairs::value(bits).powi(2)).sum()
            };
            return Ok(Self {
                rows: Rows::Pairs(pairs),
                tokens: counted.map_or(tokens as usize, <[i64]>::len),
                first_energy: first.iter().map(energy).sum(),
            });
        }
        let x = match counted {
            Some(counted) => x.f_index_select(0, &on_device(counted)?)?,
            None => x.f_contiguous()?,
        };
        let x = if device == Device::Cpu { x.f_to_kind(Kind::Float)? } else { x };
        let first = x.f_index_select(0, &on_device(first)?)?.f_to_kind(Kind::Float)?;
        Ok(Self {
            tokens: x.size2()?.0 as usize,
            first_energy: first.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?,
            rows: Rows::Torch(x),
        })
    }
}

impl Accumulator {
    /// A zero matrix for activations of this kind.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(width: usize, kind: Kind, device: Device) -> Result<Self, TchError> {
        let tiling = Tiling::of(width);
        let plain = by_pairs(kind, device);
        let strips = (0..tiling.blocks()).map(|block| {
            let rows = tiling.rows(block);
            let (height, span) = (rows.len(), width - rows.start);
            if plain {
                return Ok(Strip::Plain(vec![0.0; height * span]));
            }
            Tensor::f_zeros([height as i64, span as i64], (Kind::Float, device)).map(Strip::Torch)
        });
        Ok(Self { tiling, strips: strips.collect::<Result<_, _>>()?, tokens: 0, first_energy: 0.0 })
    }

    /// How the matrix is cut.
    pub fn tiling(&self) -> Tiling {
        self.tiling
    }

    /// Adds to every matrix its chunks, in their order; all strips of all matrices side by side.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn add(sums: &mut [(Self, Vec<Addend>)], pool: Pool) -> Result<(), TchError> {
        struct Piece<'a> {
            tiling: Tiling,
            block: usize,
            strip: &'a mut Strip,
            rows: Vec<RowsOf<'a>>,
        }
        let mut work = Vec::new();
        for (sum, addends) in sums {
            sum.tokens += addends.iter().map(|addend| addend.tokens).sum::<usize>();
            sum.first_energy += addends.iter().map(|addend| addend.first_energy).sum::<f64>();
            for (block, strip) in sum.strips.iter_mut().enumerate() {
                let rows = addends.iter().map(RowsOf::new).collect();
                work.push(Piece { tiling: sum.tiling, block, strip, rows });
            }
        }
        // The longest strips first, so that workers end together.
        work.sort_by_key(|piece| {
            let rows = piece.tiling.rows(piece.block);
            std::cmp::Reverse(rows.len() * (piece.tiling.width - rows.start))
        });
        pool.map(work, |Piece { tiling, block, strip, rows }| {
            rows.iter().try_for_each(|x| strip.add(tiling, block, x))
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
        let blocks = self.strips.iter().enumerate();
        blocks.map(|(block, strip)| strip.energy(self.tiling.width - self.tiling.rows(block).start)).sum()
    }

    /// The part of [`Self::energy`] that first tokens hold.
    pub fn first_energy(&self) -> f64 {
        self.first_energy
    }

    /// The finished matrix in its block rows, which workers may take one by one.
    pub fn into_blocks(self) -> Vec<Block> {
        let (tiling, tokens) = (self.tiling, self.tokens);
        self.strips.into_iter().enumerate().map(|(row, strip)| Block { tiling, row, strip, tokens }).collect()
    }
}

/// One block row of a finished matrix.
#[derive(Debug)]
pub struct Block {
    tiling: Tiling,
    row: usize,
    strip: Strip,
    tokens: usize,
}

impl Block {
    /// Where its tiles begin among those of the matrix, in elements.
    pub fn start(&self) -> usize {
        self.tiling.first(self.row) * self.tiling.tile * self.tiling.tile
    }

    /// Its tiles `[blocks - row, tile, tile]` of the mean over tokens, on the CPU.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn tiles(self) -> Result<Tensor, TchError> {
        let span = (self.tiling.width - self.tiling.rows(self.row).start) as i64;
        let strip = match self.strip {
            Strip::Plain(sums) => Tensor::f_from_slice(&sums)?.f_view([-1, span])?,
            Strip::Torch(sums) => sums.f_to_device(Device::Cpu)?,
        };
        pack(self.tiling, self.row, &strip.f_div_scalar(self.tokens.max(1) as f64)?)
    }
}

/// A chunk's rows as one worker sees them.
enum RowsOf<'a> {
    Pairs(&'a Pairs),
    Torch(Tensor),
}

impl<'a> RowsOf<'a> {
    fn new(addend: &'a Addend) -> Self {
        match &addend.rows {
            Rows::Pairs(pairs) => Self::Pairs(pairs),
            Rows::Torch(x) => Self::Torch(x.shallow_clone()),
        }
    }
}

impl Strip {
    fn add(&mut self, tiling: Tiling, block: usize, rows: &RowsOf<'_>) -> Result<(), TchError> {
        let range = tiling.rows(block);
        match (self, rows) {
            (Self::Plain(sums), RowsOf::Pairs(x)) => x.add_to(sums, range),
            (Self::Torch(sums), RowsOf::Torch(x)) => {
                let left = x.f_narrow(1, range.start as i64, range.len() as i64)?.f_tr()?;
                let right = x.f_narrow(1, range.start as i64, (tiling.width - range.start) as i64)?;
                let added = if x.f_kind()? == Kind::Float {
                    sums.f_addmm_(&left, &right)
                } else {
                    sums.f_addmm_dtype_out(sums, &left, &right, Kind::Float)
                };
                // What comes back is another handle on the strip.
                added.map(drop)?;
            }
            _ => unreachable!("kind and device are the same for a whole capture"),
        }
        Ok(())
    }

    /// Sum of the diagonal, which starts at the first element; rows are `span` long.
    fn energy(&self, span: usize) -> Result<f64, TchError> {
        match self {
            Self::Plain(sums) => Ok(sums.iter().step_by(span + 1).map(|&sum| f64::from(sum)).sum()),
            Self::Torch(sums) => sums.f_diagonal(0, 0, 1)?.f_sum(Kind::Double)?.f_double_value(&[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tiles::unpack;
    use super::*;

    /// `XᵀX / n` of `x`, by the accumulator, in chunks of 512 tokens.
    fn mean(x: &Tensor) -> Tensor {
        let width = x.size()[1] as usize;
        let sum = Accumulator::new(width, x.kind(), Device::Cpu).unwrap();
        let addends = x.split(512, 0).iter().map(|chunk| Addend::new(chunk, None, &[0]).unwrap()).collect();
        let mut sums = [(sum, addends)];
        Accumulator::add(&mut sums, Pool::new(2)).unwrap();
        let [(sum, _)] = sums;
        assert_eq!(sum.tokens() as i64, x.size()[0]);
        let tiling = sum.tiling();
        let tiles: Vec<Tensor> = sum.into_blocks().into_iter().map(|block| block.tiles().unwrap()).collect();
        unpack(tiling, &Tensor::cat(&tiles, 0)).unwrap().to_kind(Kind::Double)
    }

    /// The farthest element from `XᵀX / n` in fp64, over `√(gᵢᵢ gⱼⱼ)`.
    fn worst(x: &Tensor) -> f64 {
        let wide = x.to_kind(Kind::Double);
        let exact = wide.tr().matmul(&wide) / x.size()[0] as f64;
        let scale = exact.diagonal(0, 0, 1).sqrt();
        ((mean(x) - &exact).abs() / scale.outer(&scale)).max().double_value(&[])
    }

    /// 100,000 tokens whose features have means far from zero, so that sums grow: the case in which fp32 loses most.
    #[test]
    fn fp32_sums_agree_with_float64_to_1e_5_whatever_the_activations_are_stored_as() {
        tch::manual_seed(1);
        let x = Tensor::randn([100_000, 96], (Kind::Float, Device::Cpu)) + 2.0;
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let worst = worst(&x.to_kind(kind));
            assert!(worst < 1e-5, "{kind:?}: {worst:e}");
            assert!(worst > 0.0, "fp32 and fp64 cannot agree to the last bit");
        }
    }

    #[test]
    fn tokens_that_do_not_count_leave_no_trace_and_first_tokens_are_known() {
        tch::manual_seed(2);
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = Tensor::randn([9, 5], (Kind::Float, Device::Cpu)).to_kind(kind);
            let counted = [0, 2, 3, 7];
            let add = |x: &Tensor, counted: Option<&[i64]>| {
                let mut sums = [(
                    Accumulator::new(5, kind, Device::Cpu).unwrap(),
                    vec![Addend::new(x, counted, &[0, 2]).unwrap()],
                )];
                Accumulator::add(&mut sums, Pool::new(1)).unwrap();
                let [(sum, _)] = sums;
                let (tokens, first, energy) = (sum.tokens(), sum.first_energy(), sum.energy().unwrap());
                (tokens, first, energy, sum.into_blocks().remove(0).tiles().unwrap())
            };
            let kept = x.index_select(0, &Tensor::from_slice(&counted));
            let (masked, plain) = (add(&x, Some(&counted)), add(&kept, None));
            assert_eq!(masked, plain);
            let first = kept.index_select(0, &Tensor::from_slice(&[0i64, 2])).to_kind(Kind::Double);
            assert!((masked.1 - first.square().sum(Kind::Double).double_value(&[])).abs() < 1e-6);
        }
    }
}
