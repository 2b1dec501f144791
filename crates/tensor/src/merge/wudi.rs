//! `wudi`: the task vector that interferes least with all others (WUDI-Merging, Cheng et al.,
//! <https://arxiv.org/abs/2503.08099>).
//!
//! Each linear layer's merged task vector τ minimises `Σ ‖(τ - τᵢ) τᵢᵀ‖² / ‖τᵢ‖²` by `iterations` steps of Adam (β 0.9 and 0.999) at
//! `learning_rate`, from the sum of all: `W = W₀ + λ τ`. The gradient is `2 Σ (τ - τᵢ) τᵢᵀτᵢ / ‖τᵢ‖²`, so that the layers' inputs
//! enter by the matrices `τᵢᵀτᵢ` alone. A vector that is zero does not count.

use std::sync::Arc;

use mergelab_wire::MergeJob;
use tch::{TchError, Tensor};

use super::error::MergeError;
use super::matrix::{self, MatrixKernel};
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;

/// WUDI-Merging.
#[derive(Debug)]
pub struct Wudi;

impl Method for Wudi {
    fn name(&self) -> &'static str {
        "wudi"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        let lambda = ("lambda", f64::MIN, f64::MAX);
        Params::check(job, &[lambda, ("iterations", 1.0, 100_000.0), ("learning_rate", 0.0, f64::MAX)], &[])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        matrix::units(context, tensors, |params, name| {
            Arc::new(Descent {
                iterations: params.whole("iterations", name, 300),
                learning_rate: params.number("learning_rate", name, 1e-5),
            })
        })
    }
}

#[derive(Debug)]
struct Descent {
    iterations: usize,
    learning_rate: f64,
}

impl MatrixKernel for Descent {
    fn merge(&self, vectors: &[Tensor]) -> Result<Tensor, TchError> {
        /// Adam's, as in its paper.
        const BETA: [f64; 2] = [0.9, 0.999];
        const EPS: f64 = 1e-8;
        let width = vectors[0].size()[1];
        let zeros = |like: &Tensor| like.f_zeros_like();
        let mut merged = zeros(&vectors[0])?;
        let mut constant = zeros(&vectors[0])?;
        let mut matrix = Tensor::f_zeros([width, width], (vectors[0].kind(), vectors[0].device()))?;
        for vector in vectors {
            merged = merged.f_add_(vector)?;
            let square = vector.f_square()?.f_sum(vector.kind())?.f_double_value(&[])?;
            if square > 0.0 {
                let inner = vector.f_tr()?.f_matmul(vector)?.f_mul_scalar(2.0 / square)?;
                constant = constant.f_add_(&vector.f_matmul(&inner)?)?;
                matrix = matrix.f_add_(&inner)?;
            }
        }
        let (mut first, mut second) = (zeros(&merged)?, zeros(&merged)?);
        let mut powers = [1.0, 1.0];
        for _ in 0..self.iterations {
            let gradient = merged.f_matmul(&matrix)?.f_sub_(&constant)?;
            powers = [powers[0] * BETA[0], powers[1] * BETA[1]];
            first = first.f_mul_scalar_(BETA[0])?.f_add_(&gradient.f_mul_scalar(1.0 - BETA[0])?)?;
            second = second.f_mul_scalar_(BETA[1])?.f_add_(&gradient.f_square()?.f_mul_scalar(1.0 - BETA[1])?)?;
            let scale = second.f_div_scalar(1.0 - powers[1])?.f_sqrt_()?.f_add_scalar_(EPS)?;
            let step = first.f_div(&scale)?.f_mul_scalar_(self.learning_rate / (1.0 - powers[0]))?;
            merged = merged.f_sub_(&step)?;
        }
        Ok(merged)
    }
}
