//! `iso_c`: isotropic merging (Marczak et al., <https://arxiv.org/abs/2502.04959>).
//!
//! The singular values of the summed task vectors of a linear layer become their mean: `W = W₀ + λ σ̄ U Vᵀ`.

use std::sync::Arc;

use mergelab_wire::MergeJob;
use tch::{TchError, Tensor};

use super::error::MergeError;
use super::matrix::{self, MatrixKernel, singular};
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;

/// Iso-C.
#[derive(Debug)]
pub struct IsoC;

impl Method for IsoC {
    fn name(&self) -> &'static str {
        "iso_c"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("lambda", f64::MIN, f64::MAX)], &[])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        matrix::units(context, tensors, |_, _| Arc::new(Isotropic))
    }
}

#[derive(Debug)]
struct Isotropic;

impl MatrixKernel for Isotropic {
    fn merge(&self, vectors: &[Tensor]) -> Result<Tensor, TchError> {
        let mut sum = vectors[0].copy();
        for vector in &vectors[1..] {
            sum = sum.f_add_(vector)?;
        }
        let (u, s, v) = singular(&sum)?;
        u.f_matmul(&v.f_tr()?)?.f_mul(&s.f_mean(tch::Kind::Double)?)
    }
}
