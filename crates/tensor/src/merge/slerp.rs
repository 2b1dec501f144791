//! `slerp`: on the great circle from the base to a model (Shoemake, 1985, <https://doi.org/10.1145/325165.325242>).
//!
//! With θ the angle between the two tensors laid flat, `W = sin((1-t)θ)/sin θ · W₀ + sin(tθ)/sin θ · W₁`; where
//! `|cos θ| > 0.9995`, and for tensors that are zero, the line `(1-t) W₀ + t W₁`. t = 0 is the base.

use std::sync::Arc;

use mergelab_wire::MergeJob;

use super::elementwise::on_tensors;
use super::error::MergeError;
use super::method::{Context, Method, Unit};
use super::pair::{other, required};
use super::params::Params;
use super::rules::AlphaRule;
use super::span::{Along, Combination, Groups, Pairs, Products};
use super::vectors::Vectors;

/// Beyond this cosine the circle is a line.
const LINE: f64 = 0.9995;

/// Lengths up to this are none.
const SHORTEST: f64 = 1e-8;

/// Spherical linear interpolation.
#[derive(Debug)]
pub struct Slerp;

impl Method for Slerp {
    fn name(&self) -> &'static str {
        "slerp"
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        Params::check(job, &[("t", 0.0, 1.0)], &[])?;
        required(job, "t")?;
        other(job).map(|_| ())
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let params = Params::of(context);
        let model = other(context.job)?;
        on_tensors(context, tensors, true, &[model], |name| {
            let vectors = Vectors::with_base(context, name, model)?;
            let groups = Groups::new(Along::Whole, vectors.shape);
            let products = Products::of(&vectors, groups)?;
            let t = params.number("t", name, 0.5);
            let factors = products.groups().map(|pairs| {
                let [base, model] = on_the_circle(pairs, t);
                (base + model, vec![model])
            });
            Ok(Arc::new(Combination::new(groups, factors)))
        })
    }
}

/// The factors of the two.
fn on_the_circle(pairs: Pairs<'_>, t: f64) -> [f64; 2] {
    let length = |index| Some(pairs.norm(index)).filter(|norm| *norm > SHORTEST).unwrap_or(1.0);
    let cosine = (pairs.dot(0, 1) / length(0) / length(1)).clamp(-1.0, 1.0);
    if cosine.abs() > LINE {
        return [1.0 - t, t];
    }
    let angle = cosine.acos();
    [((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin()]
}
