//! The nearest matrix of low rank (Eckart and Young, 1936), as two factors.
//!
//! Of `D` `[rows, columns]` the eigenvectors of its products with itself on the shorter side, in fp64, are its singular
//! vectors there; the factor of the other side is `D` along them. That is exact to fp64 where squaring costs half of the
//! digits: of numbers that were fp32 nothing is lost.

use mergelab_wire::LoraSize;
use tch::{Kind, TchError, Tensor};

/// `D` as `left · right`, in fp32.
#[derive(Debug)]
pub(crate) struct Truncated {
    /// `[rows, rank]`.
    pub(crate) left: Tensor,
    /// `[rank, columns]`.
    pub(crate) right: Tensor,
    /// How many singular values were kept.
    pub(crate) rank: usize,
    /// `‖D - left · right‖²`, as the factors are stored.
    pub(crate) lost: f64,
    /// `‖D‖²`.
    pub(crate) all: f64,
}

impl Truncated {
    /// `‖D - left · right‖ / ‖D‖`.
    pub(crate) fn error(&self) -> f64 {
        (self.lost / self.all).sqrt()
    }
}

/// Truncates an fp64 matrix; nothing for one of zeros.
///
/// # Errors
/// When libtorch fails.
pub(crate) fn truncate(matrix: &Tensor, size: LoraSize) -> Result<Option<Truncated>, TchError> {
    let (rows, columns) = matrix.size2()?;
    let all = square(matrix)?;
    if all == 0.0 {
        return Ok(None);
    }
    let is_tall = rows > columns;
    let turned = matrix.f_tr()?;
    let products = if is_tall { turned.f_matmul(matrix)? } else { matrix.f_matmul(&turned)? };
    let (squares, vectors) = products.f_linalg_eigh("L")?;
    drop(products);
    let squares = Vec::<f64>::try_from(squares.f_flip([0])?)?;
    let rank = rank(&squares, size) as i64;
    // Eigenvalues ascend.
    let vectors = vectors.f_narrow(1, rows.min(columns) - rank, rank)?.f_flip([1])?;
    let other = if is_tall { matrix.f_matmul(&vectors)? } else { vectors.f_tr()?.f_matmul(matrix)? };
    drop(turned);
    // The root of each singular value on either side, so that neither factor has much larger numbers than the other.
    let along = i64::from(!is_tall);
    let roots = other.f_norm_scalaropt_dim(2.0, [along].as_slice(), true)?.f_sqrt()?;
    let other = other.f_div(&roots)?.f_to_kind(Kind::Float)?;
    let vectors = if is_tall { vectors.f_mul(&roots)?.f_tr()? } else { vectors.f_mul(&roots.f_tr()?)? };
    let vectors = vectors.f_to_kind(Kind::Float)?;
    let (left, right) = if is_tall { (other, vectors) } else { (vectors, other) };
    let (left, right) = (left.f_contiguous()?, right.f_contiguous()?);
    let near = left.f_to_kind(Kind::Double)?.f_matmul(&right.f_to_kind(Kind::Double)?)?;
    let lost = square(&near.f_sub(matrix)?)?;
    Ok(Some(Truncated { left, right, rank: rank as usize, lost, all }))
}

/// How many of the squared singular values, the largest first, are kept; at least one.
fn rank(squares: &[f64], size: LoraSize) -> usize {
    // What is smaller than the rounding of the largest is none: a matrix of low rank has no more than its rank.
    let least = squares[0] * squares.len() as f64 * f64::EPSILON;
    let full = squares.iter().take_while(|square| **square > least).count().max(1);
    match size {
        LoraSize::Rank(rank) => rank.clamp(1, full),
        LoraSize::Energy(share) => {
            let total: f64 = squares[..full].iter().sum();
            let mut sum = 0.0;
            let enough = squares[..full].iter().position(|square| {
                sum += square;
                sum >= share * total
            });
            enough.map_or(full, |last| last + 1)
        }
    }
}

fn square(matrix: &Tensor) -> Result<f64, TchError> {
    let norm = matrix.f_norm()?.f_double_value(&[])?;
    Ok(norm * norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn random(rows: i64, columns: i64) -> Tensor {
        Tensor::randn([rows, columns], (Kind::Double, Device::Cpu))
    }

    #[test]
    fn the_rank_is_the_one_asked_for_the_one_that_there_is_or_the_least_with_enough_energy() {
        let squares = [8.0, 4.0, 2.0, 1.0, 1.0, 1e-18];
        let kept = |size| rank(&squares, size);
        assert_eq!([1, 3, 9, 0].map(|rank| kept(LoraSize::Rank(rank))), [1, 3, 5, 1]);
        assert_eq!([0.1, 0.5, 0.51, 0.75, 0.9, 1.0].map(|share| kept(LoraSize::Energy(share))), [1, 1, 2, 2, 4, 5]);
    }

    #[test]
    fn a_matrix_of_low_rank_comes_back_wide_and_tall_and_zeros_are_nothing() {
        tch::manual_seed(1);
        for (rows, columns) in [(30, 50), (50, 30), (40, 40)] {
            let matrix = random(rows, 3).matmul(&random(3, columns));
            let found = truncate(&matrix, LoraSize::Rank(8)).unwrap().unwrap();
            assert_eq!((found.rank, found.left.size(), found.right.size()), (3, vec![rows, 3], vec![3, columns]));
            assert!(found.error() < 1e-6, "{}", found.error());
            let gap = (found.left.matmul(&found.right) - matrix).abs().max().double_value(&[]);
            assert!(gap < 1e-5, "{gap:e}");
        }
        assert!(truncate(&Tensor::zeros([4, 3], (Kind::Double, Device::Cpu)), LoraSize::Rank(1)).unwrap().is_none());
    }

    #[test]
    fn what_is_lost_is_what_the_singular_values_that_were_left_out_say() {
        tch::manual_seed(2);
        for (rows, columns) in [(20, 33), (33, 20)] {
            let matrix = random(rows, columns);
            let (_, values, _) = matrix.svd(true, false);
            let squares: Vec<f64> = Vec::<f64>::try_from(values).unwrap().iter().map(|value| value * value).collect();
            let total: f64 = squares.iter().sum();
            for rank in [1, 7, 19] {
                let found = truncate(&matrix, LoraSize::Rank(rank)).unwrap().unwrap();
                let expected = (squares[rank..].iter().sum::<f64>() / total).sqrt();
                assert!((found.error() - expected).abs() < 1e-6, "{} in place of {expected}", found.error());
            }
        }
    }
}
