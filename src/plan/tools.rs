//! Python distributions: which ones a stage needs, and in which versions. They are known from the names of an
//! environment's `dist-info` folders, so what is missing or too old is found before a program starts.

use std::collections::BTreeMap;

use mergelab_wire::Engine;

use super::facts::Facts;
use super::key::Open;
use super::stage::{Spec, Stage};
use crate::experiment::Backend;

/// What to do about a distribution that is not there, or too old.
pub const WAY_OUT: &str = "`make setup` installs it; or name a Python that has it under `[python] path` in mergelab.toml \
                           (`make eval-cpu` and `make eval-gpu` make one with vllm)";

/// Versions of a distribution that evaluations work with.
struct Wanted {
    name: &'static str,
    /// The oldest.
    from: &'static str,
    /// The first that was not tried: a note, and no refusal.
    tried_below: &'static str,
}

/// What the driver stands on. Older ones lack what it calls; torch is left to those that need it.
const WANTED: [Wanted; 3] = [
    Wanted { name: "lm_eval", from: "0.4.13", tried_below: "0.5" },
    Wanted { name: "transformers", from: "5", tried_below: "6" },
    Wanted { name: "vllm", from: "0.24", tried_below: "0.25" },
];

/// Distributions that a stage needs, and whose versions decide its result. As long as a model is not looked at,
/// `engine: auto` needs none.
fn needed(stage: &Stage, facts: &Facts) -> &'static [&'static str] {
    match &stage.spec {
        Spec::Eval { suite, .. } => of_backend(suite.backend),
        Spec::Gram { capture, .. } => {
            let model = stage.need("model").and_then(|id| facts.results.get(&id));
            match capture.engine.resolve(model.and_then(|model| model.family.as_deref())) {
                Engine::Transformers => &["torch", "transformers"],
                Engine::Auto | Engine::Native => &[],
            }
        }
        _ => &[],
    }
}

fn of_backend(backend: Backend) -> &'static [&'static str] {
    match backend {
        Backend::Hf => &["lm_eval", "torch", "transformers"],
        Backend::Vllm => &["lm_eval", "torch", "transformers", "vllm"],
        Backend::Loss | Backend::Command => &[],
    }
}

fn wanted(stage: &Stage, name: &str) -> Option<&'static Wanted> {
    WANTED.iter().filter(|_| matches!(stage.spec, Spec::Eval { .. })).find(|wanted| wanted.name == name)
}

/// Versions of the distributions that a stage needs, by name.
///
/// # Errors
/// The first that is not there ([`Open::NoTool`]) or too old ([`Open::OldTool`]).
pub fn tools(stage: &Stage, facts: &Facts) -> Result<BTreeMap<String, String>, Open> {
    let mut tools = BTreeMap::new();
    for &name in needed(stage, facts) {
        let found = facts.tools.get(name).ok_or(Open::NoTool(name))?;
        if let Some(wanted) = wanted(stage, name).filter(|wanted| is_older(found, wanted.from)) {
            return Err(Open::OldTool { name, found: found.clone(), wanted: wanted.from });
        }
        tools.insert(name.to_owned(), found.clone());
    }
    Ok(tools)
}

/// What a person should know of the versions that a backend works with: those that are newer than what was tried.
pub fn untried(backend: Backend, tools: &BTreeMap<String, String>) -> Vec<String> {
    let wanted = WANTED.iter().filter(|wanted| of_backend(backend).contains(&wanted.name));
    let found = wanted.filter_map(|wanted| Some((tools.get(wanted.name)?, wanted)));
    found
        .filter(|(found, wanted)| release(found).is_some() && !is_older(found, wanted.tried_below))
        .map(|(found, Wanted { name, from, tried_below })| {
            let name = name.replace('_', "-");
            format!("{name} {found} is newer than what was tried ({from} and later, below {tried_below})")
        })
        .collect()
}

/// Whether a version comes before another by the numbers of its release; one of which they say nothing (built from a
/// commit, or not a version) does not.
fn is_older(found: &str, than: &str) -> bool {
    match (release(found), release(than)) {
        (Some(found), Some(than)) => found < than,
        _ => false,
    }
}

/// The numbers that a version starts with, without zeros at the end: `0.24.0+cpu` is 0, 24.
fn release(version: &str) -> Option<Vec<u64>> {
    if version.contains("dev") {
        return None;
    }
    let end = version.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(version.len());
    let numbers = version[..end].trim_end_matches('.').split('.').map(str::parse).collect::<Result<Vec<u64>, _>>();
    let mut numbers = numbers.ok()?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_the_numbers_of_their_release() {
        for (found, than, older) in [
            ("0.4.13", "0.4.13", false),
            ("0.4.9", "0.4.13", true),
            ("0.4.13.post1", "0.4.13", false),
            ("0.24.0+cpu", "0.24", false),
            ("0.23.2", "0.24", true),
            ("4.57.1", "5", true),
            ("5.0.0rc1", "5", false),
            ("10.0", "9.1", false),
            ("0.1.dev9+gabc", "0.24", false),
            ("main", "0.24", false),
        ] {
            assert_eq!(is_older(found, than), older, "{found} before {than}");
        }
    }

    #[test]
    fn what_is_newer_than_what_was_tried_is_a_note_of_the_backends_that_use_it() {
        let tools = [("lm_eval", "0.4.13"), ("transformers", "6.0.1"), ("vllm", "0.25.0+cpu"), ("torch", "9")];
        let tools = tools.into_iter().map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
        let hf = ["transformers 6.0.1 is newer than what was tried (5 and later, below 6)"];
        assert_eq!(untried(Backend::Hf, &tools), hf);
        let vllm = "vllm 0.25.0+cpu is newer than what was tried (0.24 and later, below 0.25)";
        assert_eq!(untried(Backend::Vllm, &tools), [hf[0], vllm]);
        assert_eq!(untried(Backend::Command, &tools), [""; 0]);
    }
}
