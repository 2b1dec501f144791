//! Values of a method's parameters: one number, a gradient over depth, or either by tensor name.

use mergelab_wire::{MergeJob, fits};
use serde_json::Value;

use super::error::MergeError;
use super::gradient::gradient;
use super::method::Context;
use super::sources::Sources;

/// A method's parameters, checked to be known to it.
#[derive(Debug)]
pub struct Params<'a> {
    job: &'a MergeJob,
    sources: &'a Sources,
}

impl<'a> Params<'a> {
    /// The parameters of the merge at hand.
    pub fn of(context: &Context<'a>) -> Self {
        Self { job: context.job, sources: context.sources }
    }

    /// Refuses parameters of other names, and values of the wrong kind or outside their range.
    ///
    /// # Errors
    /// Names the parameter.
    pub fn check(job: &MergeJob, numbers: &[(&str, f64, f64)], flags: &[&str]) -> Result<(), MergeError> {
        let of_models = job.models.iter().flat_map(|model| &model.params);
        for (name, value) in job.params.iter().chain(of_models) {
            let fits = match numbers.iter().find(|(number, ..)| number == name) {
                Some((_, low, high)) => stated(value).is_some_and(|all| all.iter().all(|v| (*low..=*high).contains(v))),
                None if flags.contains(&name.as_str()) => value.is_boolean(),
                None => return Err(refuse(job, format!("it has no parameter {name:?}"))),
            };
            if !fits {
                return Err(refuse(job, format!("{name} is {value}")));
            }
        }
        Ok(())
    }

    /// A number for one tensor.
    pub fn number(&self, name: &str, tensor: &str, default: f64) -> f64 {
        self.stated(name, (tensor, tensor), default)
    }

    /// A number for one tensor of one model, by its index: what is stated for the model goes first.
    pub fn for_model(&self, model: usize, name: &str, tensor: &str, default: f64) -> f64 {
        let called = &self.sources.models[model].own_name(tensor);
        let default = self.stated(name, (tensor, called), default);
        let own = self.job.models[model].params.get(name);
        own.map_or(default, |value| self.resolve(value, (tensor, called), default))
    }

    /// What the merge states for a tensor; filters see what it is called.
    fn stated(&self, name: &str, names: (&str, &str), default: f64) -> f64 {
        self.job.params.get(name).map_or(default, |value| self.resolve(value, names, default))
    }

    /// A whole number for one tensor.
    pub fn whole(&self, name: &str, tensor: &str, default: usize) -> usize {
        self.number(name, tensor, default as f64) as usize
    }

    fn resolve(&self, value: &Value, (tensor, called): (&str, &str), default: f64) -> f64 {
        let Some(items) = value.as_array().filter(|items| items.iter().any(Value::is_object)) else {
            return self.over_depth(value, tensor).unwrap_or(default);
        };
        let fits = |item: &&Value| fits(item["filter"].as_str(), called);
        items.iter().find(fits).and_then(|item| self.over_depth(&item["value"], tensor)).unwrap_or(default)
    }

    fn over_depth(&self, value: &Value, tensor: &str) -> Option<f64> {
        numbers(value).filter(|list| !list.is_empty()).map(|list| gradient(&list, tensor, self.sources.layers()))
    }

    /// The seed of what is drawn.
    pub fn seed(&self) -> u64 {
        self.job.params.get("seed").and_then(Value::as_u64).unwrap_or(0)
    }

    /// A flag.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.job.params.get(name).and_then(Value::as_bool).unwrap_or(default)
    }
}

/// One number or a list of them.
fn numbers(value: &Value) -> Option<Vec<f64>> {
    match value.as_array() {
        Some(list) => list.iter().map(Value::as_f64).collect(),
        None => value.as_f64().map(|number| vec![number]),
    }
}

/// Every number that a value states, by tensor name or not.
pub(super) fn stated(value: &Value) -> Option<Vec<f64>> {
    match value.as_array().filter(|items| items.iter().any(Value::is_object)) {
        Some(items) => {
            let parts: Option<Vec<Vec<f64>>> = items.iter().map(|item| numbers(item.get("value")?)).collect();
            Some(parts?.concat())
        }
        None => numbers(value),
    }
}

fn refuse(job: &MergeJob, reason: String) -> MergeError {
    let hint = "the parameters of each method and their ranges are in docs/experiment-file.md";
    MergeError::Request { method: job.method.clone(), reason, hint }
}
