//! Figures of tensors of two models together, from sums over their elements.

use mergelab_wire::Sums;
use serde::Serialize;

/// Figures of some tensors together, over the elements that are finite in both; nothing where there is no such number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Elements.
    pub elements: u64,
    /// Elements that are not the same number.
    pub differing: u64,
    /// Elements that are infinite or no number.
    pub not_finite: [u64; 2],
    /// `‖A‖` and `‖B‖`.
    pub norms: [Option<f64>; 2],
    /// `‖B - A‖`.
    pub difference: Option<f64>,
    /// `‖B - A‖ / ‖A‖`; nothing where A is zero.
    pub relative: Option<f64>,
    /// The cosine of the angle between A and B; nothing where one is zero.
    pub cosine: Option<f64>,
    /// The largest difference of two elements.
    pub largest: Option<Largest>,
}

/// Where two models differ most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Largest {
    /// The tensor.
    pub tensor: String,
    /// Where in it, from 0 along each side.
    pub index: Vec<usize>,
    /// What stands there.
    pub values: [f64; 2],
    /// Their difference.
    pub difference: f64,
}

/// The sum of two, where both are numbers.
fn plus(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.zip(b).map(|(a, b)| a + b).filter(|sum| sum.is_finite())
}

impl Figures {
    /// Of all elements of some tensors.
    pub(super) fn of<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Sums)>) -> Self {
        let zero = Some(0.0);
        let mut all = Sums { squares: [zero; 2], products: zero, difference: zero, elements: 0, ..Sums::default() };
        let mut largest: Option<Largest> = None;
        for (name, sums) in tensors {
            all.squares = [0, 1].map(|side| plus(all.squares[side], sums.squares[side]));
            all.not_finite = [0, 1].map(|side| all.not_finite[side] + sums.not_finite[side]);
            all.products = plus(all.products, sums.products);
            all.difference = plus(all.difference, sums.difference);
            all.elements += sums.elements;
            all.differing += sums.differing;
            if let Some(entry) = &sums.largest {
                let (values, index) = (entry.values, entry.index.clone());
                let difference = values[1] - values[0];
                if largest.as_ref().is_none_or(|largest| difference.abs() > largest.difference.abs()) {
                    largest = Some(Largest { tensor: name.to_owned(), index, values, difference });
                }
            }
        }
        let norms = all.squares.map(|square| square.map(f64::sqrt));
        let difference = all.difference.map(f64::sqrt);
        let over = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a / b).filter(|ratio| ratio.is_finite());
        // One root is exact for two that are the same, where the product has a place.
        let lengths = all.squares[0].zip(all.squares[1]).map(|(a, b)| match a * b {
            product if product.is_normal() => product.sqrt(),
            _ => a.sqrt() * b.sqrt(),
        });
        Self {
            elements: all.elements,
            differing: all.differing,
            not_finite: all.not_finite,
            norms,
            difference,
            relative: over(difference, norms[0]),
            cosine: over(all.products, lengths).map(|cosine| cosine.clamp(-1.0, 1.0)),
            largest,
        }
    }
}
