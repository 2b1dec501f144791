//! The methods there are.

use super::average::Average;
use super::error::MergeError;
use super::fisher::Fisher;
use super::mats::Mats;
use super::method::Method;
use super::regmean::Regmean;
use super::regmean_plus_plus::RegmeanPlusPlus;
use super::task_arithmetic::TaskArithmetic;
use super::ties::Ties;

/// Every method; one line each.
static METHODS: [&dyn Method; 7] = [&Average, &Regmean, &RegmeanPlusPlus, &TaskArithmetic, &Ties, &Mats, &Fisher];

/// The method of this name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static dyn Method, MergeError> {
    METHODS.into_iter().find(|method| method.name() == name).ok_or_else(|| MergeError::Method(name.to_owned()))
}

/// Names of all methods.
pub fn names() -> Vec<&'static str> {
    METHODS.into_iter().map(Method::name).collect()
}
