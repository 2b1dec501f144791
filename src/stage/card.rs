//! The model card of a merge: what was merged and how, with the front matter that the hub reads.

use std::fmt::Write as _;
use std::path::Path;

use mergelab_wire::SliceSource;

use super::{Context, Job};
use crate::experiment::{Data, DataSource, Experiment, Merge, Model, Pick};
use crate::plan::Artifact;

/// The text of `README.md`.
pub(super) fn text(context: &Context<'_>, merge: &Merge, job: &Job<'_>) -> String {
    let experiment = &context.graph.experiments[job.stage.experiment];
    let name = job.stage.name.trim_start_matches("merges.");
    let input = |role: &str| job.inputs.get(role).map(|input| &**input);
    let mut card = front_matter(experiment, merge, &input, "");
    card += &body(experiment, merge, (name, env!("CARGO_PKG_VERSION")), &input);
    let _ = writeln!(card, "\nThe stage is `{}`, its key `{}`.", job.stage.name, job.key);
    card
}

/// What stands on a merge's card for people: what was merged and how. `input` gives what the stage reads by role.
pub(crate) fn body<'a>(
    experiment: &Experiment,
    merge: &Merge,
    (name, version): (&str, &str),
    input: &dyn Fn(&str) -> Option<&'a Artifact>,
) -> String {
    let mut card = format!("# {}: {name}\n\n", experiment.name);
    if let Some(description) = &experiment.description {
        let _ = writeln!(card, "{description}\n");
    }
    let _ = write!(card, "Merged with mergelab {version}, method `{}`", merge.method);
    if let Some(mergelab_wire::Alpha::Number(alpha)) = merge.alpha {
        let _ = write!(card, ", α = {alpha}");
    }
    for (name, value) in &merge.params {
        let _ = write!(card, ", {name} = {value}");
    }
    card.push_str(".\n\n| model | from | weight | SHA-256 of the weights |\n| --- | --- | --- | --- |\n");
    let mut row = |role: &str, name: &str, weight: &str| {
        let digest = input(role).and_then(|model| model.roles.get("weights")).map(ToString::to_string);
        let from = source(experiment, name);
        let _ = writeln!(card, "| {name} | {from} | {weight} | `{}` |", digest.unwrap_or_default());
    };
    for (index, model) in merge.models.iter().enumerate() {
        let mut weight = model.weight.to_string();
        weight.extend(model.params.iter().map(|(name, value)| format!(", {name} = {value}")));
        row(&index.to_string(), &model.model, &weight);
    }
    if let Some(base) = &merge.base {
        row("base", base, "base");
    }
    card += &slices(merge);
    card
}

/// What the layers of the result are merged from, where they are not those of all models in their order.
fn slices(merge: &Merge) -> String {
    if merge.slices.is_empty() {
        return String::new();
    }
    let mut table = String::from("\n| layers | merged from |\n| --- | --- |\n");
    for slice in &merge.slices {
        let source = |source: &SliceSource| {
            format!("layers {} to {} of {}", source.first, source.first + slice.layers, source.name)
        };
        let models = slice.models.iter().map(source);
        let base = slice.base.as_ref().map(|base| format!("{} (base)", source(base)));
        let _ = writeln!(table, "| {} | {} |", slice.layers, models.chain(base).collect::<Vec<_>>().join(", "));
    }
    table
}

/// Where a model comes from, for people elsewhere: its name on the hub, or the last component of its path.
pub(crate) fn source(experiment: &Experiment, name: &str) -> String {
    experiment.models.get(name).map_or_else(|| format!("merges.{name}"), place)
}

fn place(model: &Model) -> String {
    match model {
        Model::Hub { repo, revision } => repo.clone() + &at(revision.as_deref()),
        Model::Path(path) => file_name(path),
        Model::From(output) => format!("commands.{}", output.command),
        Model::Lora(lora) => format!("{} with the LoRA adapter {}", place(&lora.base), place(&lora.adapter)),
    }
}

/// Where rows come from, for people elsewhere.
pub(crate) fn source_of_rows(data: &Data) -> String {
    match &data.source {
        DataSource::Hub { repo, revision, config, split } => {
            let config = config.as_ref().map(|config| format!(", configuration {config}")).unwrap_or_default();
            format!("{repo}{}{config}, split {split}", at(revision.as_deref()))
        }
        DataSource::Path(path) => file_name(path),
        DataSource::From(output) => format!("commands.{}", output.command),
    }
}

/// Which rows of a data set are taken.
pub(crate) fn picked(rows: Pick) -> String {
    match rows {
        Pick::All => "all".to_owned(),
        Pick::First(count) => format!("the first {count}"),
        Pick::Sample { sample, seed } => format!("{sample} drawn with seed {seed}"),
    }
}

/// The last part of a path: where things lie on one machine is nobody else's business.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A revision behind the name of a repository, where there is one.
pub(super) fn at(revision: Option<&str>) -> String {
    revision.map(|revision| format!(" at {revision}")).unwrap_or_default()
}

/// What the hub reads of a merge's card; `more` are further lines of it.
pub(crate) fn front_matter<'a>(
    experiment: &Experiment,
    merge: &Merge,
    input: &dyn Fn(&str) -> Option<&'a Artifact>,
    more: &str,
) -> String {
    let places = (0..merge.models.len()).map(|index| Some(&*input(&index.to_string())?.location));
    lines(&repositories(experiment, merge), common_license(places).as_deref(), more)
}

fn lines(base_models: &[String], license: Option<&str>, more: &str) -> String {
    let mut text = String::from("---\nlibrary_name: transformers\ntags:\n- merge\n- mergelab\n");
    if !base_models.is_empty() {
        text.push_str("base_model:\n");
        for repository in base_models {
            let _ = writeln!(text, "- {repository}");
        }
        text.push_str("base_model_relation: merge\n");
    }
    if let Some(license) = license {
        let _ = writeln!(text, "license: {license}");
    }
    text + more + "---\n"
}

/// Names on the hub of the models that a merge rests on, those of merged merges among them.
fn repositories(experiment: &Experiment, merge: &Merge) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut pending: Vec<&str> = merge.base.iter().map(String::as_str).collect();
    pending.extend(merge.models.iter().rev().map(|model| model.model.as_str()));
    while let Some(name) = pending.pop() {
        if let Some(model) = experiment.models.get(name) {
            for repository in model.repositories() {
                if !found.iter().any(|known| known == repository) {
                    found.push(repository.to_owned());
                }
            }
        } else if let Some(inner) = experiment.merges.get(name) {
            pending.extend(inner.base.iter().map(String::as_str));
            pending.extend(inner.models.iter().rev().map(|model| model.model.as_str()));
        }
    }
    found
}

/// The license that every model's own card names, if they all name one and the same.
fn common_license<'a>(models: impl Iterator<Item = Option<&'a Path>>) -> Option<String> {
    let mut licenses = models.map(|model| license(&std::fs::read_to_string(model?.join("README.md")).ok()?));
    let first = licenses.next()??;
    licenses.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

/// `license:` in the front matter of a card.
pub(crate) fn license(card: &str) -> Option<String> {
    let front = card.strip_prefix("---\n")?.split("\n---").next()?;
    let license = front.lines().find_map(|line| line.strip_prefix("license:"))?.trim();
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    (!license.is_empty() && is_name(license)).then(|| license.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_names_of_all_that_a_merge_rests_on_are_its_base_models() {
        let text = "name: x\nmodels:\n  a: { hub: org/a }\n  b: { hub: org/b }\n  c: { path: c }\n  d: { hub: org/d }\n\
                    merges:\n  inner: { method: average, models: [b, c] }\n  \
                    outer: { method: ties, models: [a, inner, b], base: d }\n";
        let loaded = crate::experiment::parse(Path::new("x.yaml"), text).unwrap_or_else(|errors| panic!("{errors}"));
        let outer = loaded.experiment.merges.get("outer").unwrap();
        assert_eq!(repositories(&loaded.experiment, outer), ["org/a", "org/b", "org/d"]);
    }

    #[test]
    fn the_hubs_own_library_reads_the_front_matter() {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
        let has_library = |python: &Path| {
            let found = "import importlib.util as u; exit(not u.find_spec('huggingface_hub'))";
            std::process::Command::new(python).args(["-c", found]).status().is_ok_and(|status| status.success())
        };
        if !has_library(&python) {
            println!("skipped: no .venv with huggingface_hub");
            return;
        }
        let program = "import json, sys; from huggingface_hub import ModelCard; \
                       print(json.dumps(ModelCard(sys.argv[1]).data.to_dict(), sort_keys=True))";
        let read = |card: String| -> serde_json::Value {
            let output = std::process::Command::new(&python).args(["-c", program, &card]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice(&output.stdout).unwrap()
        };
        let whole = lines(&["org/a".to_owned(), "org/b-1.5".to_owned()], Some("apache-2.0"), "");
        let expected = serde_json::json!({
            "base_model": ["org/a", "org/b-1.5"], "base_model_relation": "merge", "library_name": "transformers",
            "license": "apache-2.0", "tags": ["merge", "mergelab"],
        });
        assert_eq!(read(whole + "# x: m\n"), expected);
        let expected = serde_json::json!({ "library_name": "transformers", "tags": ["merge", "mergelab"] });
        assert_eq!(read(lines(&[], None, "") + "# x: m\n"), expected);
    }

    #[test]
    fn a_license_counts_if_every_model_names_it() {
        let home = tempfile::tempdir().unwrap();
        let model = |name: &str, card: &str| {
            let directory = home.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join("README.md"), card).unwrap();
            directory
        };
        let free = model("a", "---\ntags: [x]\nlicense: apache-2.0\n---\n# A\n");
        let also = model("b", "---\nlicense: apache-2.0\n---\n");
        let other = model("c", "---\nlicense: mit\n---\n");
        let none = model("d", "# license: mit\n");
        let common = |models: &[&Path]| common_license(models.iter().copied().map(Some));
        assert_eq!(common(&[&free, &also]), Some("apache-2.0".to_owned()));
        assert_eq!((common(&[&free, &other]), common(&[&free, &none])), (None, None));
        assert_eq!(common_license([Some(&*free), None].into_iter()), None);
    }
}
