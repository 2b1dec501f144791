//! `breadcrumbs` and `breadcrumbs_ties`: without the largest and the smallest (Davari and Belilovsky,
//! <https://arxiv.org/abs/2312.06795>).
//!
//! Of each task vector's tensor, the `⌊gamma·n⌋` largest elements go, and of the rest the `⌊density·n⌋` largest stay; fewer of
//! the largest go where not so many would be left. Density 1 keeps all. Added up, or with TIES' election of signs
//! ([`super::sparse`]).

use mergelab_wire::MergeJob;

use super::error::MergeError;
use super::magnitude::{Trim, masked};
use super::method::{Context, Method, Unit};
use super::params::Params;
use super::rules::AlphaRule;
use super::sparse::{self, Consensus, Dense, Sparse};
use super::ties::trims;
use crate::system::vectorized;

/// Model Breadcrumbs.
#[derive(Debug)]
pub struct Breadcrumbs {
    /// Its name.
    pub name: &'static str,
    /// Whether signs are elected.
    pub elect: bool,
}

impl Method for Breadcrumbs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs_base(&self) -> bool {
        true
    }

    fn check(&self, job: &MergeJob) -> Result<(), MergeError> {
        let numbers = [("density", 0.0, 1.0), ("gamma", 0.0, 1.0), ("lambda", f64::MIN, f64::MAX)];
        Params::check(job, &numbers, &["normalize", "rescale"])
    }

    fn units(&self, context: &Context<'_>, tensors: Vec<(String, Option<AlphaRule>)>) -> Result<Vec<Unit>, MergeError> {
        let consensus = Consensus { elect: self.elect, normalize: false, rescale: false };
        sparse::units(context, tensors, consensus, |params, vectors, name| {
            let count = vectors.elements();
            let of = |share: f64| (share * count as f64) as usize;
            let bounds = |model| {
                let density = params.for_model(model, "density", name, 1.0);
                if density >= 1.0 {
                    return Vec::new();
                }
                let outliers = of(params.for_model(model, "gamma", name, 0.01)).min(count - of(density));
                vec![outliers + of(density), outliers]
            };
            let trims = trims(vectors, &(0..vectors.count()).map(bounds).collect::<Vec<_>>())?;
            let sparse = |trims: Vec<Trim>| match trims.as_slice() {
                [all, without] => Box::new(Between { all: *all, without: *without }) as Box<dyn Sparse>,
                _ => Box::new(Dense),
            };
            Ok(trims.into_iter().map(sparse).collect())
        })
    }
}

#[derive(Debug)]
struct Between {
    all: Trim,
    without: Trim,
}

impl Sparse for Between {
    fn sparsify(&self, start: usize, vector: &mut [f32]) {
        let (all, without) = (self.all.from(start), self.without.from(start));
        vectorized(|| {
            for (place, value) in (0..).zip(vector) {
                let size = value.abs();
                *value = masked(*value, all.mask(size, place) & !without.mask(size, place));
            }
        });
    }
}
