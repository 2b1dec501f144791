//! The methods there are.

use super::arcee_fusion::ArceeFusion;
use super::average::Average;
use super::breadcrumbs::Breadcrumbs;
use super::consensus_ta::ConsensusTa;
use super::dare::Dare;
use super::della::Della;
use super::error::MergeError;
use super::fisher::Fisher;
use super::iso_c::IsoC;
use super::karcher::Karcher;
use super::mats::Mats;
use super::method::Method;
use super::model_stock::ModelStock;
use super::multislerp::Multislerp;
use super::nearswap::Nearswap;
use super::nuslerp::Nuslerp;
use super::passthrough::Passthrough;
use super::ram::Ram;
use super::regmean::Regmean;
use super::regmean_plus_plus::RegmeanPlusPlus;
use super::sce::Sce;
use super::slerp::Slerp;
use super::task_arithmetic::TaskArithmetic;
use super::ties::Ties;
use super::tsv::Tsv;
use super::wudi::Wudi;

/// Every method; one line each.
static METHODS: [&dyn Method; 28] = [
    &Average,
    &Regmean,
    &RegmeanPlusPlus,
    &Mats,
    &Fisher,
    &Slerp,
    &Nuslerp,
    &Multislerp,
    &Karcher,
    &TaskArithmetic,
    &Ties,
    &Dare { name: "dare_linear", elect: false },
    &Dare { name: "dare_ties", elect: true },
    &Della { name: "della", elect: true },
    &Della { name: "della_linear", elect: false },
    &Breadcrumbs { name: "breadcrumbs", elect: false },
    &Breadcrumbs { name: "breadcrumbs_ties", elect: true },
    &ModelStock,
    &Sce,
    &Nearswap,
    &Ram { name: "ram", plus: false },
    &Ram { name: "ramplus_tl", plus: true },
    &ArceeFusion,
    &Passthrough,
    &Tsv,
    &IsoC,
    &ConsensusTa,
    &Wudi,
];

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
