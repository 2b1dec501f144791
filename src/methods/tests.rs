use std::path::Path;

use super::*;
use crate::experiment::{Experiment, METHODS, parse};

/// The methods that stand for themselves: what a mergekit file says is its own.
fn methods() -> impl Iterator<Item = &'static Method> {
    METHODS.iter().filter(|method| method.name != "mergekit")
}

fn experiment(method: &Method) -> Experiment {
    parse(Path::new("x.yaml"), &example(method)).unwrap_or_else(|errors| panic!("{}: {errors}", method.name)).experiment
}

#[test]
fn every_method_has_a_page_and_every_parameter_a_meaning() {
    let names: Vec<_> = methods().map(|method| method.name).collect();
    assert!(names.iter().all(|name| page(name).is_some()), "{names:?}");
    assert_eq!(PAGES.len(), names.len());
    for method in methods() {
        for param in method.params {
            assert_ne!(meaning(method, param), "", "{} {}", method.name, param.name);
        }
    }
    for (method, name, _) in PARAMS {
        let has = |known: &&Method| *method == "*" || known.name == *method;
        assert!(methods().filter(has).any(|known| known.param(name).is_some()), "nobody has {method} {name}");
    }
}

#[test]
fn the_example_on_each_page_is_a_merge_by_that_method() {
    for method in methods() {
        let experiment = experiment(method);
        assert_eq!(experiment.merges["merged"].method, method.name);
    }
}

/// `MERGELAB_BLESS=1 cargo test pages` writes them anew.
#[test]
fn the_pages_in_docs_are_these() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/methods");
    let mut index = String::from(INDEX);
    for (name, summary) in list() {
        index += &format!("| [`{name}`]({name}.md) | {summary} |\n");
    }
    let pages = names().map(|name| (format!("{name}.md"), page(name).unwrap()));
    let all: Vec<_> = pages.chain([("README.md".to_owned(), index)]).collect();
    if std::env::var_os("MERGELAB_BLESS").is_some() {
        std::fs::create_dir_all(&docs).unwrap();
        for (name, text) in &all {
            std::fs::write(docs.join(name), text).unwrap();
        }
    }
    for (name, text) in &all {
        let found = std::fs::read_to_string(docs.join(name)).unwrap_or_default();
        assert!(found == *text, "docs/methods/{name} is not what the program says: MERGELAB_BLESS=1 cargo test pages");
    }
    assert_eq!(std::fs::read_dir(docs).unwrap().count(), all.len());
}

const INDEX: &str = "# Merge methods

One page each, as `mergelab methods NAME` prints it: formula, source, parameters, an example. How a merge is written is in
[experiment-file.md](../experiment-file.md#merges). W₀ is the base's tensor, Wᵢ that of model i and wᵢ its weight;
τᵢ = Wᵢ - W₀ is its task vector. All sums are taken in fp64 and rounded once.

| method | |
| --- | --- |
";
