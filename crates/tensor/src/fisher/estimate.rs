//! A Fisher stage from its job to its artifact.

use std::path::Path;

use mergelab_wire::{FisherJob, GramJob};
use safetensors::Dtype;
use serde_json::json;
use tch::{Kind, TchError, Tensor};

use super::error::FisherError;
use super::index::{FisherEntry, FisherIndex};
use super::labels::Example;
use super::passes::{Named, Passes};
use crate::checkpoint::{Checkpoint, NewTensor, Writer};
use crate::dtype::FloatType;
use crate::failure::Failure;
use crate::gram::capture::{Means, forward_type};
use crate::gram::flow::check;
use crate::model::{ConfigError, Decoder, DecoderConfig};
use crate::report::Reporter;
use crate::text::{self, Sequence, TextError, TextSpec};

/// Estimates the Fisher information of a model and writes the artifact into the empty directory `out`.
///
/// # Errors
/// When the model, the data or the request is wrong, or the work fails.
pub fn run(job: &FisherJob, out: &Path, means: Means<'_>) -> Result<(), Failure> {
    let (run, reporter) = (&job.run, means.reporter);
    let config = config(&run.model)?;
    let checkpoint = Checkpoint::open(&run.model)?;
    let dtype = type_of_passes(run, &checkpoint, &config, reporter)?;
    let decoder = Decoder::new(&checkpoint, &config, dtype, means.device);
    let spec = TextSpec { range: None, ..TextSpec::of(run) };
    let sequences = text::sequences(&spec, reporter)?;
    check(&sequences, &config, spec.shown)?;
    let examples = examples(&spec, sequences, reporter)?;
    reporter.fact("family", config.family.as_str());
    reporter.fact("forward_dtype", dtype.name());

    let count = examples.len();
    let passes = Passes::new(&decoder, (spec.shown, out), job.labels, means, examples)?;
    let mut output = Output { directory: out, index: FisherIndex::new(job.labels, count, passes.predicted()) };
    let (layers, total) = (config.layers, 2 * config.layers + 2);
    let rope = passes.rope()?;
    passes.embed()?;
    for layer in 0..layers {
        reporter.progress(layer, total, "layers");
        passes.ascend(layer, &rope)?;
    }
    reporter.progress(layers, total, "layers");
    let (fisher, log_likelihood) = passes.output()?;
    output.index.log_likelihood = log_likelihood / passes.predicted() as f64;
    output.write("output.safetensors", fisher)?;
    for layer in (0..layers).rev() {
        reporter.progress(2 * layers - layer, total, "layers");
        output.write(&format!("layer-{layer:05}.safetensors"), passes.descend(layer, &rope)?)?;
    }
    reporter.progress(total - 1, total, "layers");
    output.write("embedding.safetensors", passes.embedding()?)?;
    reporter.progress(total, total, "layers");
    output.finish(reporter)?;
    Ok(())
}

/// The configuration of a model that must have a native forward pass.
fn config(model: &Path) -> Result<DecoderConfig, Failure> {
    DecoderConfig::read(model).map_err(|error| match error {
        ConfigError::Family { path, family } => FisherError::Family { path, family }.into(),
        other => other.into(),
    })
}

/// The type of the passes: the one that is stated, or the checkpoint's, but fp32 for one in float16: what gradients have of small
/// numbers is below its range.
fn type_of_passes(
    run: &GramJob,
    checkpoint: &Checkpoint,
    config: &DecoderConfig,
    reporter: &Reporter,
) -> Result<FloatType, Failure> {
    match forward_type(run, checkpoint, config)? {
        FloatType::Float16 if run.dtype.is_some() => Err(FisherError::Half.into()),
        FloatType::Float16 => {
            reporter
                .note("the checkpoint is float16, whose range gradients do not fit into: both passes run in float32");
            Ok(FloatType::Float32)
        }
        dtype => Ok(dtype),
    }
}

/// The sequences of which something is predicted; others are counted and noted, or refused with `strict`.
fn examples(spec: &TextSpec<'_>, sequences: Vec<Sequence>, reporter: &Reporter) -> Result<Vec<Example>, Failure> {
    let rows = sequences.len();
    let mut examples = Vec::with_capacity(rows);
    for sequence in sequences {
        let row = sequence.row;
        match Example::new(sequence) {
            Some(example) => examples.push(example),
            None if spec.strict => {
                let what = "the row gives no token that counts and that another one precedes";
                return Err(TextError::Unusable { file: spec.shown.to_path_buf(), row, what }.into());
            }
            None => {}
        }
    }
    let without = rows - examples.len();
    reporter.fact("rows_that_predict_nothing", without);
    if examples.is_empty() {
        return Err(FisherError::NothingPredicted { data: spec.shown.to_path_buf() }.into());
    }
    if without > 0 {
        let shown = spec.shown.display();
        reporter.note(format!(
            "{shown}: {without} row(s) have no token that counts and that another one precedes, skipped"
        ));
    }
    Ok(examples)
}

/// The artifact on its way, from the last layer to the first.
struct Output<'a> {
    directory: &'a Path,
    index: FisherIndex,
}

impl Output<'_> {
    /// Writes one file.
    fn write(&mut self, file: &str, fisher: Named) -> Result<(), FisherError> {
        let spec = |(name, tensor): &(String, Tensor)| NewTensor {
            name: name.clone(),
            dtype: Dtype::F32,
            shape: tensor.size().iter().map(|side| *side as usize).collect(),
        };
        let writer = Writer::single(&self.directory.join(file), fisher.iter().map(spec).collect())?;
        let mut entries = Vec::with_capacity(fisher.len());
        for (name, tensor) in fisher {
            writer.write(&name, 0, &tensor)?;
            let (sum, squares) = sums(&tensor).map_err(FisherError::torch(&name))?;
            // The sum of squares, until all are there.
            self.index.norm += squares;
            entries.push((name, FisherEntry { file: file.to_owned(), sum }));
        }
        writer.finish();
        // The first layer is written last.
        entries.into_iter().rev().for_each(|(name, entry)| drop(self.index.tensors.shift_insert(0, name, entry)));
        Ok(())
    }

    /// Writes the index.
    fn finish(mut self, reporter: &Reporter) -> Result<(), FisherError> {
        self.index.norm = self.index.norm.sqrt();
        let FisherIndex { sequences, tokens, log_likelihood, norm, .. } = self.index;
        let trace: f64 = self.index.tensors.values().map(|entry| entry.sum).sum();
        reporter.fact("sequences", json!(sequences));
        reporter.fact("tokens_predicted", json!(tokens));
        reporter.fact("log_likelihood", json!(log_likelihood));
        reporter.fact("fisher_norm", json!(norm));
        reporter.fact("fisher_trace", json!(trace));
        Ok(self.index.write(self.directory)?)
    }
}

/// The sum over the elements of a tensor, and over their squares, in fp64.
fn sums(tensor: &Tensor) -> Result<(f64, f64), TchError> {
    let wide = tensor.f_to_kind(Kind::Double)?;
    Ok((wide.f_sum(Kind::Double)?.f_double_value(&[])?, wide.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?))
}
