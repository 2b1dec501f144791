//! What a loss comes to: sums by row, and metrics over all rows.
//!
//! Every metric is a ratio of sums over rows, `R = Σ xᵢ / Σ yᵢ`: bits over bytes, nats over tokens. Rows are the sample, so
//! the standard error is that of a ratio estimator (W. G. Cochran, *Sampling Techniques*, 3rd edition, section 6.4, for a
//! sample that is small beside what it is drawn from):
//!
//! ```text
//! s.e. R = √( n / (n - 1) · Σ (xᵢ - R yᵢ)² ) / Σ yᵢ
//! ```
//!
//! Files of the artifact, of the shapes that evaluations by `lm_eval` have:
//!
//! ```text
//! metrics.json       [{metric, filter, value, stderr, n_samples, n_shot, higher_is_better}], sorted by metric
//! samples.jsonl.gz   {task, doc_id, doc: {row}, …, metrics: {none: {METRIC: VALUE}}, nll, tokens, bytes}, a line a row
//! ```

use std::f64::consts::LN_2;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};
use serde_json::{Map, Value, json};

use crate::failure::FileError;
use crate::gram::chunk::Chunk;

/// Sums over the tokens of a row that count.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Its number in the data file, counted from 1.
    number: usize,
    tokens: u64,
    /// Bytes of text that they stand for.
    bytes: u64,
    /// Of `-log p`, in nats.
    nll: f64,
    /// Of the KL divergence from each source, in nats.
    kl: Vec<f64>,
}

/// One metric over all rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Metric {
    name: String,
    value: f64,
    /// None of a single row.
    stderr: Option<f64>,
}

impl Row {
    /// The rows of all chunks, in the order of chunks, with the losses of their tokens.
    pub(super) fn of_chunks(chunks: &[Chunk], losses: &[Vec<f64>]) -> Vec<Self> {
        let sums = sums(chunks, losses);
        let rows = chunks.iter().flat_map(Chunk::rows);
        rows.zip(sums)
            .map(|((number, tokens, bytes), nll)| Self { number, tokens: tokens as u64, bytes, nll, kl: Vec::new() })
            .collect()
    }

    /// Adds the divergences from one more source.
    pub(super) fn add_kl(rows: &mut [Self], chunks: &[Chunk], divergences: &[Vec<f64>]) {
        for (row, sum) in rows.iter_mut().zip(sums(chunks, divergences)) {
            row.kl.push(sum);
        }
    }
}

/// Sums by row of what there is for each token that counts.
fn sums(chunks: &[Chunk], values: &[Vec<f64>]) -> Vec<f64> {
    let mut sums = Vec::new();
    for (chunk, values) in chunks.iter().zip(values) {
        let mut values = values.iter();
        sums.extend(chunk.rows().map(|(_, tokens, _)| values.by_ref().take(tokens).sum::<f64>()));
    }
    sums
}

/// All rows, in the order of the file.
#[derive(Debug)]
pub(super) struct Figures<'a> {
    rows: Vec<Row>,
    /// Names of the sources.
    sources: Vec<&'a str>,
}

impl<'a> Figures<'a> {
    pub(super) fn new(mut rows: Vec<Row>, sources: Vec<&'a str>) -> Self {
        rows.sort_by_key(|row| row.number);
        Self { rows, sources }
    }

    /// Bytes that all tokens stand for that count.
    pub(super) fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.bytes).sum()
    }

    /// The metrics, sorted by name; none where the tokens stand for no text.
    pub(super) fn metrics(&self) -> Option<Vec<Metric>> {
        if self.bytes() == 0 {
            return None;
        }
        let over = |name: String, x: &dyn Fn(&Row) -> f64, y: &dyn Fn(&Row) -> u64| {
            let (value, stderr) = ratio(self.rows.iter().map(|row| (x(row), y(row) as f64)));
            Metric { name, value, stderr }
        };
        let tokens = |row: &Row| row.tokens;
        let mut metrics = vec![
            over("bits_per_byte".to_owned(), &|row| row.nll / LN_2, &|row| row.bytes),
            over("nll".to_owned(), &|row| row.nll, &tokens),
        ];
        let kl = |(index, name): (usize, &&str)| over(format!("kl/{name}"), &|row| row.kl[index], &tokens);
        metrics.extend(self.sources.iter().enumerate().map(kl));
        metrics.sort_by(|one, other| one.name.cmp(&other.name));
        Some(metrics)
    }

    /// Writes the two files.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(super) fn write(&self, metrics: &[Metric], out: &Path) -> Result<(), FileError> {
        let entry = |metric: &Metric| {
            json!({
                "metric": metric.name,
                "filter": FILTER,
                "value": metric.value,
                "stderr": metric.stderr,
                "n_samples": self.rows.len(),
                "n_shot": null,
                "higher_is_better": false,
            })
        };
        let path = out.join("metrics.json");
        let list: Vec<Value> = metrics.iter().map(entry).collect();
        let text = serde_json::to_string_pretty(&list).expect("numbers are finite");
        std::fs::write(&path, text + "\n").map_err(FileError::of("write", &path))?;
        let path = out.join("samples.jsonl.gz");
        self.write_samples(&path).map_err(FileError::of("write", &path))
    }

    fn write_samples(&self, path: &Path) -> std::io::Result<()> {
        let file = BufWriter::new(File::create(path)?);
        // Without a time: the same rows give the same bytes.
        let mut packed = GzBuilder::new().mtime(0).write(file, Compression::default());
        for row in &self.rows {
            serde_json::to_writer(&mut packed, &self.sample(row))?;
            packed.write_all(b"\n")?;
        }
        packed.finish()?.flush()
    }

    /// A row as a sample.
    fn sample(&self, row: &Row) -> Value {
        let tokens = row.tokens as f64;
        let mut metrics = Map::new();
        // A row may have nothing but added tokens; the metric over all rows counts them in its bits.
        if row.bytes > 0 {
            metrics.insert("bits_per_byte".to_owned(), json!(row.nll / LN_2 / row.bytes as f64));
        }
        metrics.insert("nll".to_owned(), json!(row.nll / tokens));
        metrics.extend(self.sources.iter().zip(&row.kl).map(|(name, kl)| (format!("kl/{name}"), json!(kl / tokens))));
        json!({
            "task": "loss",
            "doc_id": row.number - 1,
            "doc": { "row": row.number },
            "target": null,
            "arguments": [],
            "responses": [],
            "filtered": {},
            "metrics": { FILTER: metrics },
            "nll": row.nll,
            "tokens": row.tokens,
            "bytes": row.bytes,
        })
    }
}

/// `lm_eval`'s name for an answer that no filter changed.
const FILTER: &str = "none";

/// `Σ x / Σ y`, and its standard error.
fn ratio(rows: impl Iterator<Item = (f64, f64)> + Clone) -> (f64, Option<f64>) {
    let (x, y) = rows.clone().fold((0.0, 0.0), |(x, y), row| (x + row.0, y + row.1));
    let value = x / y;
    let count = rows.clone().count() as f64;
    let squares: f64 = rows.map(|(x, y)| (x - value * y).powi(2)).sum();
    (value, (count > 1.0).then(|| (count / (count - 1.0) * squares).sqrt() / y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_rows_of_equal_length_the_standard_error_is_that_of_a_mean() {
        let values = [2.0, 3.0, 7.0, 4.0];
        let (value, stderr) = ratio(values.iter().map(|x| (10.0 * x, 10.0)));
        assert!((value - 4.0).abs() < 1e-12);
        // Standard deviation √(14 / 3) over √4.
        assert!((stderr.unwrap() - (14.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-12, "{stderr:?}");
        assert_eq!(ratio([(3.0, 2.0)].into_iter()), (1.5, None));
    }

    #[test]
    fn the_error_of_a_ratio_is_that_of_the_rows_about_it_and_not_that_of_their_sizes() {
        let exact = ratio([(1.0, 2.0), (50.0, 100.0), (3.0, 6.0)].into_iter());
        assert_eq!(exact, (0.5, Some(0.0)));
        let (_, stderr) = ratio([(2.0, 2.0), (49.0, 100.0), (3.0, 6.0)].into_iter());
        // Residuals 1, -1, 0.
        assert!((stderr.unwrap() - (1.5f64 * 2.0).sqrt() / 108.0).abs() < 1e-12, "{stderr:?}");
    }

    #[test]
    fn rows_without_any_text_are_in_the_sums_and_have_no_bits_per_byte_of_their_own() {
        let row = |number, tokens, bytes, nll| Row { number, tokens, bytes, nll, kl: vec![0.5] };
        let figures = Figures::new(vec![row(3, 1, 0, 1.0), row(1, 4, 8, 8.0)], vec!["a"]);
        let metrics = figures.metrics().unwrap();
        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["bits_per_byte", "kl/a", "nll"]);
        assert!((metrics[0].value - 9.0 / LN_2 / 8.0).abs() < 1e-12);
        assert!((metrics[1].value - 0.2).abs() < 1e-12);
        assert!((metrics[2].value - 1.8).abs() < 1e-12);
        let first = figures.sample(&figures.rows[0]);
        assert_eq!((&first["doc_id"], &first["metrics"]["none"]["nll"]), (&json!(0), &json!(2.0)));
        assert_eq!(figures.sample(&figures.rows[1])["metrics"]["none"]["bits_per_byte"], Value::Null);
        assert_eq!(Figures::new(vec![row(1, 1, 0, 1.0)], Vec::new()).metrics(), None);
    }
}
