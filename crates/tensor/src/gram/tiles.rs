//! How a symmetric matrix lies in a file: the upper triangle in square tiles.
//!
//! Layout version 1. A matrix of width `d` is cut into `b = ⌈d / 512⌉` blocks of `tile = ⌈d / b⌉` rows (the last one may
//! be shorter). Tensor `[b(b+1)/2, tile, tile]`, fp32: the tiles `(i, j)` with `i ≤ j`, row by row: (0,0), (0,1), …,
//! (1,1), (1,2), …. Diagonal tiles are whole and symmetric; what reaches past the matrix is zero.
//!
//! ```text
//! d = 5, tile = 2:   (0,0) (0,1) (0,2)     stored in this order: 0 1 2
//!                          (1,1) (1,2)                             3 4
//!                                (2,2)                               5
//! ```

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

/// Widest tile: half of a matrix of 512 is too little to be worth leaving out, and a product this wide runs at full rate.
pub(super) const WIDEST: usize = 512;

/// How a matrix of one width is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Rows and columns of the matrix.
    pub width: usize,
    /// Rows and columns of a tile.
    pub tile: usize,
}

impl Tiling {
    /// The cut for a matrix of this width.
    pub fn of(width: usize) -> Self {
        let blocks = width.div_ceil(WIDEST).max(1);
        Self { width, tile: width.div_ceil(blocks).max(1) }
    }

    /// Blocks along one side.
    pub fn blocks(self) -> usize {
        self.width.div_ceil(self.tile)
    }

    /// Tiles that are stored.
    pub fn tiles(self) -> usize {
        self.blocks() * (self.blocks() + 1) / 2
    }

    /// Rows of block `i`.
    pub fn rows(self, block: usize) -> Range<usize> {
        block * self.tile..((block + 1) * self.tile).min(self.width)
    }

    /// Blocks that reach into `rows`.
    pub fn touching(self, rows: &Range<usize>) -> Range<usize> {
        rows.start / self.tile..rows.end.div_ceil(self.tile)
    }

    /// Place of tile `(block, block)` in the file; `(block, j)` follows at `+ (j - block)`.
    pub fn first(self, block: usize) -> usize {
        block * self.blocks() - block * block.saturating_sub(1) / 2
    }
}

/// The tiles of one block row, `[blocks - i, tile, tile]`, from its strip `[rows, width - start]` right of the diagonal.
///
/// # Errors
/// When libtorch fails.
pub fn pack(tiling: Tiling, block: usize, strip: &Tensor) -> Result<Tensor, TchError> {
    let tile = tiling.tile as i64;
    let count = tiling.blocks() - block;
    let (rows, columns) = strip.size2()?;
    let wide = Tensor::f_zeros([tile, count as i64 * tile], (Kind::Float, Device::Cpu))?;
    wide.f_narrow(0, 0, rows)?.f_narrow(1, 0, columns)?.f_copy_(strip)?;
    // The product that made the diagonal tile rounds its two halves independently; the upper one is kept.
    let diagonal = wide.f_narrow(1, 0, tile)?;
    let upper = diagonal.f_triu(0)?;
    let whole = upper.f_add(&diagonal.f_triu(1)?.f_tr()?)?;
    wide.f_narrow(1, 0, tile)?.f_copy_(&whole)?;
    wide.f_view([tile, count as i64, tile])?.f_transpose(0, 1)?.f_contiguous()
}

/// The full matrix `[width, width]` from its tiles.
#[cfg(test)]
pub(crate) fn unpack(tiling: Tiling, tiles: &Tensor) -> Result<Tensor, TchError> {
    let width = tiling.width as i64;
    let matrix = Tensor::f_empty([width, width], (Kind::Float, Device::Cpu))?;
    let part = |rows: &Range<usize>, columns: &Range<usize>| -> Result<Tensor, TchError> {
        matrix.f_narrow(0, rows.start as i64, rows.len() as i64)?.f_narrow(
            1,
            columns.start as i64,
            columns.len() as i64,
        )
    };
    for i in 0..tiling.blocks() {
        for j in i..tiling.blocks() {
            let (rows, columns) = (tiling.rows(i), tiling.rows(j));
            let tile = tiles.f_select(0, (tiling.first(i) + j - i) as i64)?;
            let tile = tile.f_narrow(0, 0, rows.len() as i64)?.f_narrow(1, 0, columns.len() as i64)?;
            part(&rows, &columns)?.f_copy_(&tile)?;
            if i != j {
                part(&columns, &rows)?.f_copy_(&tile.f_tr()?)?;
            }
        }
    }
    Ok(matrix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(tiling: Tiling) {
        let width = tiling.width as i64;
        let x = Tensor::arange(width * width, (Kind::Float, Device::Cpu)).view([width, width]);
        let matrix = &x + x.tr();
        let packed: Vec<Tensor> = (0..tiling.blocks())
            .map(|block| {
                let rows = tiling.rows(block);
                let strip = matrix.narrow(0, rows.start as i64, rows.len() as i64);
                pack(tiling, block, &strip.narrow(1, rows.start as i64, width - rows.start as i64)).unwrap()
            })
            .collect();
        let tiles = Tensor::cat(&packed, 0);
        assert_eq!(tiles.size()[0], tiling.tiles() as i64);
        assert_eq!(unpack(tiling, &tiles).unwrap(), matrix);
    }

    #[test]
    fn a_matrix_comes_back_from_its_tiles_for_every_remainder() {
        for width in 1..30 {
            for tile in 1..=width {
                round_trip(Tiling { width, tile });
            }
        }
    }

    #[test]
    fn tiles_are_never_wider_than_512_and_leave_little_room_empty() {
        for width in [1, 64, 512, 513, 576, 1536, 4096, 14336] {
            let tiling = Tiling::of(width);
            assert!(tiling.tile <= WIDEST);
            assert!(tiling.blocks() * tiling.tile < width + tiling.blocks(), "{tiling:?}");
        }
        assert_eq!(Tiling::of(4096).tiles(), 36);
    }
}
