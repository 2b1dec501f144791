//! `tsv`: task singular vectors, TSV-Merging (Gargiulo et al., <https://arxiv.org/abs/2412.00081>).
//!
//! Of each of T task vectors of a linear layer the `⌊rank/T⌋` largest singular values stay, with their vectors. These of all
//! models stand side by side as `U` and `V`; each of the two is replaced by the nearest matrix with orthonormal columns (`P Qᵀ`
//! of its singular value decomposition), so that tasks do not interfere: `W = W₀ + λ U⊥ Σ V⊥ᵀ`.

use std::sync::Arc;

use mergelab_wire::MergeJob;
use tch::{TchError, Tensor};

use super::error::MergeError;
use super::matrix::{self, MatrixKernel, singular};
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;

/// TSV-Merging.
#[derive(Debug)]
pub struct Tsv;

impl Method for Tsv {
    fn name(&self) -> &'static str {
        "tsv"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("lambda", f64::MIN, f64::MAX)], &[])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        matrix::units(context, tensors, |_, _| Arc::new(Orthogonal))
    }
}

#[derive(Debug)]
struct Orthogonal;

impl MatrixKernel for Orthogonal {
    fn merge(&self, vectors: &[Tensor]) -> Result<Tensor, TchError> {
        let sides = vectors[0].size();
        // More models than the layer has singular values keep one each.
        let kept = (sides[0].min(sides[1]) / vectors.len() as i64).max(1);
        let (mut left, mut values, mut right) = (Vec::new(), Vec::new(), Vec::new());
        for vector in vectors {
            let (u, s, v) = singular(vector)?;
            left.push(u.f_narrow(1, 0, kept)?);
            values.push(s.f_narrow(0, 0, kept)?);
            right.push(v.f_narrow(1, 0, kept)?);
        }
        let nearest = |columns: Vec<Tensor>| {
            let (p, _, q) = singular(&Tensor::f_cat(&columns, 1)?)?;
            p.f_matmul(&q.f_tr()?)
        };
        let (left, right) = (nearest(left)?, nearest(right)?);
        left.f_mul(&Tensor::f_cat(&values, 0)?)?.f_matmul(&right.f_tr()?)
    }
}
