//! `engine: transformers`: Grams of a model that has no native forward pass.
//!
//! Two programs, one after the other. `mergelab-tensor` makes the rows into token ids, as for every capture; a Python
//! program runs them through the model, with a hook on every linear layer.

use globset::GlobBuilder;
use mergelab_wire::{Event, GramJob, Job as Work};
use serde_json::json;

use super::launch::TOKENS;
use super::python::Script;
use super::{Context, Failure, Job, Product, shards, tensor};

/// The Python program.
const CAPTURE: Script = Script {
    purpose: "`engine: transformers`",
    files: &[
        ("capture.py", include_str!("../../gram-transformers/capture.py")),
        ("gram.py", include_str!("../../gram-transformers/gram.py")),
        ("layers.py", include_str!("../../gram-transformers/layers.py")),
        ("record.py", include_str!("../../gram-transformers/record.py")),
        ("report.py", include_str!("../../gram-transformers/report.py")),
    ],
};

/// Captures the Grams that a job asks for.
pub(super) fn run(
    context: &Context<'_>,
    job: &Job<'_>,
    work: GramJob,
    on_event: &mut dyn FnMut(Event),
) -> Result<Product, Failure> {
    let exclude =
        work.exclude.iter().map(|glob| regular_expression(glob)).collect::<Result<Vec<_>, _>>().map_err(|error| {
            Failure::experiment(format!("exclude: {error}"))
                .hint("exclude: globs on module names, such as \"*.down_proj\"")
        })?;
    let text = job.scratch.join("text");
    let tokens = text.join("tokens");
    std::fs::create_dir_all(&tokens)
        .map_err(|error| Failure::stage(format!("cannot create {}: {error}", tokens.display())))?;
    let (model, dtype) = (work.model.clone(), work.dtype.clone());
    let mut capture = CAPTURE.program(context, job, vec![job.lock], |events| {
        json!({
            "events": events,
            "out": job.out,
            "model": model,
            "sequences": tokens.join("sequences.jsonl"),
            "exclude": exclude,
            "dtype": dtype,
            "device": job.device(context),
            "threads": context.threads,
        })
    })?;
    capture.unset.extend(TOKENS.map(Into::into));
    let said = tensor::run_in(context, job, (&text, &tokens, "cpu"), Work::Tokens(work), on_event)?;
    if said.facts.get("rows_used").is_some_and(|rows| *rows == 0) {
        // Only of a shard: a whole data set without tokens is an error.
        shards::write_empty(job)?;
        return Ok(said);
    }
    let mut product = tensor::run_reporting("the engine `transformers`", context, &capture, on_event)?;
    // What the second program says of itself stands where both say something: device and memory are those of the capture.
    let facts = std::mem::replace(&mut product.facts, said.facts);
    product.facts.extend(facts);
    Ok(product)
}

/// A glob as a regular expression that Python understands as well, so that a pattern means the same in both engines.
fn regular_expression(glob: &str) -> Result<String, globset::Error> {
    let glob = GlobBuilder::new(glob).literal_separator(false).build()?;
    Ok(glob.regex().trim_start_matches("(?-u)").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_become_regular_expressions_in_which_a_star_matches_dots() {
        for (glob, expected) in [
            ("*.down_proj", r"^.*\.down_proj$"),
            ("*.h.?.{attn,mlp}.*", r"^.*\.h\..\.(?:attn|mlp)\..*$"),
            ("[!a-c]*", r"^[^a-c].*$"),
        ] {
            assert_eq!(regular_expression(glob).unwrap(), expected);
        }
        assert!(regular_expression("{a").is_err());
    }
}
