//! The merge methods an experiment may name: what they need and their parameters, under mergekit's names where it has
//! them. Which of them this build can run is for the merge stage to say.

use super::keys::Words;

/// Whether a method takes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It has no use for it.
    No,
    /// It may be given.
    May,
    /// It must be given.
    Must,
}

/// One merge method.
#[derive(Debug)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// Another name for it.
    pub alias: Option<&'static str>,
    /// Gram entries.
    pub grams: Need,
    /// Base model.
    pub base: Need,
    /// How many models it takes, at least and at most.
    pub models: (usize, usize),
    /// Its parameters.
    pub params: &'static [Param],
}

/// One parameter of a method.
#[derive(Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default, as it would stand in the file.
    pub default: Option<&'static str>,
    /// Whether a model may state its own, which goes before the merge's.
    pub per_model: bool,
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A number from the first to the second, or a list of them over depth, or such values by tensor name.
    Number(f64, f64),
    /// A whole number from the first to the second.
    Whole(u64, u64),
    /// `true` or `false`.
    Flag,
    /// One of a few words.
    Word(&'static Words<&'static str>),
}

const fn number(name: &'static str, min: f64, max: f64, default: &'static str) -> Param {
    Param { name, kind: Kind::Number(min, max), default: Some(default), per_model: false }
}
const fn per_model(name: &'static str, min: f64, max: f64, default: &'static str) -> Param {
    Param { name, kind: Kind::Number(min, max), default: Some(default), per_model: true }
}
const fn needed(name: &'static str, min: f64, max: f64) -> Param {
    Param { name, kind: Kind::Number(min, max), default: None, per_model: false }
}
const fn whole(name: &'static str, min: u64, max: u64, default: &'static str) -> Param {
    Param { name, kind: Kind::Whole(min, max), default: Some(default), per_model: false }
}
const fn flag(name: &'static str, default: &'static str) -> Param {
    Param { name, kind: Kind::Flag, default: Some(default), per_model: false }
}

const MAX: f64 = f64::MAX;
const LAMBDA: Param = number("lambda", f64::MIN, MAX, "1.0");
const DENSITY: Param = per_model("density", 0.0, 1.0, "1.0");
const GAMMA: Param = per_model("gamma", 0.0, 1.0, "0.01");
const EPSILON: Param = per_model("epsilon", 0.0, 1.0, "0.15");
const SEED: Param = whole("seed", 0, u64::MAX, "0");
const ON: Param = flag("normalize", "true");
const OFF: Param = flag("normalize", "false");
const RESCALE: Param = flag("rescale", "true");
const NO_RESCALE: Param = flag("rescale", "false");
const X0: Param = Param {
    name: "x0",
    kind: Kind::Word(&[("average", "average"), ("base", "base"), ("zeros", "zeros")]),
    default: Some("average"),
    per_model: false,
};

const ONE: (usize, usize) = (1, 1);
const ANY: (usize, usize) = (1, usize::MAX);
const SEVERAL: (usize, usize) = (2, usize::MAX);

macro_rules! method {
    ($name:literal, $grams:ident, $base:ident, $models:expr, [$($param:expr),*]) => {
        Method { name: $name, alias: None, grams: Need::$grams, base: Need::$base, models: $models, params: &[$($param),*] }
    };
}

/// All methods.
pub const METHODS: &[Method] = &[
    Method { name: "average", alias: Some("linear"), grams: Need::No, base: Need::May, models: ANY, params: &[ON] },
    method!("regmean", Must, May, ANY, []),
    method!("regmean++", Must, May, ANY, []),
    method!("task_arithmetic", No, Must, ANY, [LAMBDA, OFF]),
    method!("ties", No, Must, ANY, [DENSITY, LAMBDA, ON, NO_RESCALE]),
    method!("dare_linear", No, Must, ANY, [DENSITY, LAMBDA, OFF, RESCALE, SEED]),
    method!("dare_ties", No, Must, ANY, [DENSITY, LAMBDA, OFF, RESCALE, SEED]),
    method!("della", No, Must, ANY, [DENSITY, EPSILON, LAMBDA, ON, RESCALE, SEED]),
    method!("della_linear", No, Must, ANY, [DENSITY, EPSILON, LAMBDA, OFF, RESCALE, SEED]),
    method!("breadcrumbs", No, Must, ANY, [DENSITY, GAMMA, LAMBDA, OFF, NO_RESCALE]),
    method!("breadcrumbs_ties", No, Must, ANY, [DENSITY, GAMMA, LAMBDA, OFF, NO_RESCALE]),
    method!("slerp", No, Must, ONE, [needed("t", 0.0, 1.0)]),
    method!("nuslerp", No, May, (2, 2), [flag("nuslerp_flatten", "true"), flag("nuslerp_row_wise", "false")]),
    method!("multislerp", No, May, ANY, [flag("normalize_weights", "true"), number("eps", 0.0, MAX, "1e-8")]),
    method!("karcher", No, No, ANY, [whole("max_iter", 1, 100_000, "10"), number("tol", 0.0, MAX, "1e-5")]),
    method!("model_stock", No, Must, SEVERAL, [flag("filter_wise", "false")]),
    method!("sce", No, Must, ANY, [number("select_topk", 0.0, 1.0, "1.0")]),
    method!("nearswap", No, Must, ONE, [needed("t", 0.0, MAX)]),
    method!("ram", No, Must, ANY, [number("epsilon", 0.0, MAX, "1e-5")]),
    method!(
        "ramplus_tl",
        No,
        Must,
        ANY,
        [number("epsilon", 0.0, MAX, "1e-5"), number("r", 0.0, MAX, "0.1"), number("alpha", 0.0, MAX, "0.2")]
    ),
    method!("arcee_fusion", No, Must, ONE, []),
    method!("passthrough", No, May, ONE, [per_model("scale", f64::MIN, MAX, "1.0")]),
    method!("fisher", No, May, ANY, [number("floor", 0.0, MAX, "0.0"), OFF]),
    method!("mats", Must, May, ANY, [whole("iterations", 1, 100_000, "100"), X0]),
    method!("tsv", No, Must, ANY, [LAMBDA]),
    method!("iso_c", No, Must, ANY, [LAMBDA]),
    method!(
        "consensus_ta",
        No,
        Must,
        SEVERAL,
        [LAMBDA, number("mask_lambda", 0.0, MAX, "0.4"), whole("agree", 1, 1000, "2")]
    ),
    method!(
        "wudi",
        No,
        Must,
        ANY,
        [LAMBDA, whole("iterations", 1, 100_000, "300"), number("learning_rate", 0.0, MAX, "1e-5")]
    ),
    method!("mergekit", No, No, (0, 0), []),
];

/// The method of a name or an alias.
pub fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name || method.alias == Some(name))
}

/// Every name a file may use, aliases among them.
pub(super) fn spellings() -> Vec<&'static str> {
    METHODS.iter().flat_map(|method| std::iter::once(method.name).chain(method.alias)).collect()
}

impl Method {
    /// Whether it captures by itself: its Gram entries say on what and how, and no Gram matrices of theirs are read.
    pub fn captures(&self) -> bool {
        self.name == "regmean++"
    }

    /// Whether it weighs by Fisher information.
    pub fn takes_fishers(&self) -> bool {
        self.name == "fisher"
    }

    /// Whether its weights are those of a mean.
    pub fn takes_a_mean(&self) -> bool {
        matches!(self.name, "average" | "regmean" | "regmean++" | "mats" | "fisher")
    }

    /// Whether it goes by differences from its base, so that the base itself is none of its models.
    pub fn leaves_the_base_out(&self) -> bool {
        self.base == Need::Must || matches!(self.name, "nuslerp" | "multislerp")
    }

    /// Whether its models have weights.
    pub fn weighs(&self) -> bool {
        !matches!(
            self.name,
            "slerp"
                | "karcher"
                | "model_stock"
                | "sce"
                | "nearswap"
                | "ram"
                | "ramplus_tl"
                | "arcee_fusion"
                | "passthrough"
        )
    }

    /// Its parameter of a name that a model may state for itself.
    pub fn param_of_a_model(&self, name: &str) -> Option<&'static Param> {
        self.param(name).filter(|param| param.per_model)
    }

    /// Its parameter of a name.
    pub fn param(&self, name: &str) -> Option<&'static Param> {
        self.params.iter().find(|param| param.name == name)
    }
}
