//! Embeddings and heads whose rows belong together by token.
//!
//! Where models number their tokens differently, or one has tokens that another lacks, each model's tables are written anew
//! in the rows of the result, into a file that is unlinked once it is mapped; from there on a merge reads models of one
//! vocabulary. A token that a model lacks gets the row of the only model that has it, else that of the base where the base has
//! it, else the mean of those that have it. A row that nobody has gets the mean of the model's other rows, so that its logit
//! is never above theirs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mergelab_wire::{Alignment, MergeJob, MergeSource, RowSource};
use safetensors::Dtype;
use tempfile::TempDir;
use tokenizers::AddedToken;

use super::error::MergeError;
use super::layers::{is_by_token, is_vocabulary};
use super::sources::{Source, Sources};
use super::vocabulary::{Made, Of, Tokens, in_model, lay_out};
use crate::checkpoint::{NewTensor, SafeFile, Writer};
use crate::codec::{encode, is_float};
use crate::dtype::FloatType;
use crate::failure::FileError;
use crate::report::Reporter;

/// What became of the vocabulary.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// Rows of the embeddings.
    pub(super) rows: usize,
    /// The tokenizer's file, where it has more tokens than the model that gives it.
    pub(super) tokenizer: Option<String>,
    /// Those tokens, by id.
    pub(super) added: Vec<(u32, AddedToken)>,
}

/// Tables in the rows of the merge, which are on the disk while this is there.
#[derive(Debug)]
pub(super) struct Aligned {
    vocabulary: Vocabulary,
    /// By the name of a model.
    tables: HashMap<String, Written>,
    _scratch: TempDir,
}

/// A file of tables, with the model's own types of those that are of another type there.
#[derive(Debug)]
struct Written {
    path: PathBuf,
    widened: HashMap<String, Dtype>,
}

impl Aligned {
    /// Has them in the place of the models' own. What is mapped stays readable when the files are gone.
    pub(super) fn apply(&self, sources: &mut Sources) -> Result<(), MergeError> {
        for source in sources.models.iter_mut().chain(&mut sources.base) {
            if let Some(written) = self.tables.get(&source.name) {
                source.checkpoint.replace(SafeFile::open(&written.path)?);
                source.widened.clone_from(&written.widened);
            }
        }
        Ok(())
    }

    /// What became of the vocabulary, once no more models are opened.
    pub(super) fn into_vocabulary(self) -> Vocabulary {
        self.vocabulary
    }
}

/// Where one row of a model's table comes from.
#[derive(Clone, Debug, PartialEq)]
enum Row {
    /// A row of the model's own.
    Own(usize),
    /// A row of another model, or the mean of several.
    Others(Vec<(usize, usize)>),
    /// Zeros.
    Zero,
    /// The mean of the rows of tokens.
    Mean,
}

/// Brings the tables of all models into the rows of the merge.
///
/// # Errors
/// When a model has no tokenizer that can be read, tokenizers cannot be united, or something is by a model's own rows.
pub(super) fn align(job: &MergeJob, out: &Path, reporter: &Reporter) -> Result<Option<Aligned>, MergeError> {
    let Some(how) = &job.alignment else { return Ok(None) };
    let sources = Sources::open(job, true)?;
    let wanted: Vec<&MergeSource> = job.models.iter().chain(&job.base).collect();
    let all: Vec<&Source> = sources.models.iter().chain(&sources.base).collect();
    let read = |source: &&MergeSource| Tokens::read(&source.path).map_err(|error| in_model(&source.name, error));
    let read = wanted.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let giver = wanted.iter().position(|source| source.path == job.tokenizer).unwrap_or(0);
    let Some(tables) = rows_of(all[giver]) else { return Ok(None) };
    let Some(own) = &read[giver] else {
        let reason = format!("{} has none", wanted[giver].name);
        return Err(MergeError::Unite { reason, hint: "name a model that has one: `tokenizer: NAME`" });
    };
    for (source, _) in wanted.iter().zip(&read).filter(|(_, tokens)| tokens.is_none()) {
        reporter.note(format!("{} has no tokenizer, and is taken to have that of {}", source.name, wanted[giver].name));
    }
    let of = |index: usize| Of {
        name: &wanted[index].name,
        tokens: read[index].as_ref().unwrap_or(own),
        rows: rows_of(all[index]).unwrap_or(tables),
    };
    let models: Vec<Of<'_>> = (0..wanted.len()).map(of).collect();
    let others: Vec<Of<'_>> = (0..wanted.len()).filter(|index| *index != giver).map(of).collect();
    let made = lay_out(&job.tokenizer, models[giver], &others, how)?;
    let plan = Plan { job, how, made: &made, models: &models, all: &all };
    let scratch = tempfile::tempdir_in(out).map_err(FileError::of("create a directory in", out))?;
    let mut tables = HashMap::new();
    for (index, source) in all.iter().enumerate() {
        let written = plan.write(index, scratch.path(), reporter)?;
        tables.extend(written.map(|written| (source.name.clone(), written)));
    }
    let vocabulary = Vocabulary { rows: made.tokens.len(), tokenizer: made.json, added: made.added };
    Ok(Some(Aligned { vocabulary, tables, _scratch: scratch }))
}

/// Rows of a model's embedding.
fn rows_of(source: &Source) -> Option<usize> {
    let name = source.checkpoint.names().find(|name| is_vocabulary(name))?;
    source.checkpoint.info(name).ok()?.shape.first().copied()
}

struct Plan<'a> {
    job: &'a MergeJob,
    how: &'a Alignment,
    made: &'a Made,
    models: &'a [Of<'a>],
    all: &'a [&'a Source],
}

impl Plan<'_> {
    /// Writes those tables of a model whose rows are not in their places already.
    fn write(&self, index: usize, directory: &Path, reporter: &Reporter) -> Result<Option<Written>, MergeError> {
        let source = self.all[index];
        let (mut tables, mut widened) = (Vec::new(), HashMap::new());
        for name in source.checkpoint.names().filter(|name| is_by_token(name)) {
            let info = source.checkpoint.info(name)?;
            let rows = (0..self.made.tokens.len()).map(|row| self.row(index, name, row));
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            let is_there = |(at, row): (usize, &Row)| *row == Row::Own(at);
            if rows.len() == info.shape[0] && rows.iter().enumerate().all(is_there) {
                continue;
            }
            if !is_float(info.dtype) {
                return Err(source.checkpoint.file(name)?.unread(name, info.dtype).into());
            }
            let mut shape = info.shape.clone();
            shape[0] = rows.len();
            let mut dtype = FloatType::for_merged(info.dtype).expect("floats can be merged");
            // A mean is not rounded before the merge is.
            let is_mean =
                |row: &Row| matches!(row, Row::Mean) || matches!(row, Row::Others(several) if several.len() > 1);
            if rows.iter().any(is_mean) {
                dtype = FloatType::Float32;
                widened.insert(name.to_owned(), info.dtype);
            }
            tables.push(Table { name: name.to_owned(), shape, dtype, rows });
        }
        let Some(first) = tables.first() else { return Ok(None) };
        self.check(index)?;
        self.say(index, first, reporter);
        let path = directory.join(format!("{index}.safetensors"));
        let spec = |table: &Table| NewTensor {
            name: table.name.clone(),
            dtype: table.dtype.header(),
            shape: table.shape.clone(),
        };
        let writer = Writer::single(&path, tables.iter().map(spec).collect())?;
        for table in &tables {
            self.fill(index, table, &writer)?;
        }
        writer.finish();
        Ok(Some(Written { path, widened }))
    }

    /// Where a row of one model's table comes from.
    fn row(&self, index: usize, table: &str, row: usize) -> Result<Row, MergeError> {
        let token = self.made.tokens[row].as_deref();
        let stated = token.and_then(|token| Some((token, self.how.tokens.get(token)?)));
        if stated.is_none_or(|(_, stated)| !stated.force)
            && let Some(own) = self.find(index, table, row)
        {
            return Ok(Row::Own(own));
        }
        if let Some((token, source)) = stated.and_then(|(token, stated)| Some((token, stated.source.as_ref()?))) {
            return self.stated(table, token, source);
        }
        let found = (0..self.all.len()).filter_map(|other| Some((other, self.find(other, table, row)?)));
        let found: Vec<(usize, usize)> = found.collect();
        let base = match &self.how.base {
            Some(base) => self.models.iter().position(|of| of.name == base),
            None => self.job.base.as_ref().map(|_| self.all.len() - 1),
        };
        Ok(match found.as_slice() {
            [] => Row::Mean,
            several => match several.iter().find(|(other, _)| Some(*other) == base) {
                Some(of_base) => Row::Others(vec![*of_base]),
                None => Row::Others(found),
            },
        })
    }

    /// The row of a model's own table that is a row of the result: of the same token, or padding at the same place.
    fn find(&self, index: usize, table: &str, row: usize) -> Option<usize> {
        let rows = *self.all[index].checkpoint.info(table).ok()?.shape.first()?;
        match &self.made.tokens[row] {
            Some(token) => self.models[index].tokens.row(token, rows),
            None => (row < rows && !self.models[index].tokens.uses(row)).then_some(row),
        }
    }

    fn stated(&self, table: &str, token: &str, source: &RowSource) -> Result<Row, MergeError> {
        let wrong = |reason: String| MergeError::TokenRow { token: token.to_owned(), reason };
        let (model, what) = match source {
            RowSource::Zero => return Ok(Row::Zero),
            RowSource::Model(model) => (model, Err(token)),
            RowSource::Token { model, token } => (model, Err(token.as_str())),
            RowSource::Id { model, id } => (model, Ok(*id)),
        };
        let index = self.models.iter().position(|of| of.name == model);
        let index = index.ok_or_else(|| wrong(format!("{model} is not a model of this merge")))?;
        let info = self.all[index].checkpoint.info(table);
        let rows = info.map_err(|_| wrong(format!("{model} has no {table}")))?.shape[0];
        let row = match what {
            Ok(id) if id < rows => id,
            Ok(id) => return Err(wrong(format!("{table} of {model} has {rows} rows, and no row {id}"))),
            Err(token) => self.models[index]
                .tokens
                .row(token, rows)
                .ok_or_else(|| wrong(format!("{model} has no row for the token {token:?}")))?,
        };
        Ok(Row::Others(vec![(index, row)]))
    }

    /// What is counted by a model's own rows cannot go with others.
    fn check(&self, index: usize) -> Result<(), MergeError> {
        let source = self.job.models.iter().chain(&self.job.base).nth(index).expect("there are as many");
        let what = if source.fisher.is_some() {
            "the Fisher information"
        } else if source.capture.is_some() {
            "what is captured while merging"
        } else {
            return Ok(());
        };
        Err(MergeError::OwnRows { model: source.name.clone(), what })
    }

    fn say(&self, index: usize, table: &Table, reporter: &Reporter) {
        let lacks = table.rows.iter().zip(&self.made.tokens).filter(|(row, _)| !matches!(row, Row::Own(_)));
        let tokens: Vec<&str> = lacks.filter_map(|(_, token)| token.as_deref()).collect();
        let name = self.models[index].name;
        if tokens.is_empty() {
            reporter.note(format!("rows of {name} are brought into the order of the tokenizer"));
            return;
        }
        let shown: Vec<String> = tokens.iter().take(3).map(|token| format!("{token:?}")).collect();
        let more = if tokens.len() > shown.len() { ", …" } else { "" };
        reporter.note(format!("{name} lacks {} token(s) of the tokenizer: {}{more}", tokens.len(), shown.join(", ")));
    }

    /// Writes one table.
    fn fill(&self, index: usize, table: &Table, writer: &Writer) -> Result<(), MergeError> {
        /// Elements that are made before they are written.
        const CHUNK: usize = 1 << 20;
        let (name, stored) = (&table.name, table.dtype.header());
        let file = self.all[index].checkpoint.file(name)?;
        let is_kept = file.info(name)?.dtype == stored;
        let width = table.width();
        let of_row = width * stored.bitsize() / 8;
        let at_once = (CHUNK / width.max(1)).max(1);
        let mean = if table.rows.contains(&Row::Mean) { self.mean_of_tokens(index, table)? } else { Vec::new() };
        let mut values = vec![0.0f32; width];
        let mut bytes = vec![0u8; at_once * of_row];
        for (number, rows) in table.rows.chunks(at_once).enumerate() {
            for (row, bytes) in rows.iter().zip(bytes.chunks_exact_mut(of_row.max(1))) {
                match row {
                    Row::Own(own) if is_kept => {
                        bytes.copy_from_slice(&file.bytes(name, own * width..(own + 1) * width)?);
                    }
                    Row::Mean => encode(table.dtype, &mean, bytes),
                    row => {
                        self.read(index, name, row, &mut values)?;
                        encode(table.dtype, &values, bytes);
                    }
                }
            }
            writer.write_bytes(name, number * at_once * width, &bytes[..rows.len() * of_row])?;
        }
        Ok(())
    }

    /// The mean of a table's rows that stand for tokens and that some model has.
    fn mean_of_tokens(&self, index: usize, table: &Table) -> Result<Vec<f32>, MergeError> {
        let mut sums = vec![0.0f64; table.width()];
        let mut values = vec![0.0f32; table.width()];
        let mut count = 0usize;
        let of_tokens = table.rows.iter().zip(&self.made.tokens).filter(|(_, token)| token.is_some());
        for (row, _) in of_tokens.filter(|(row, _)| **row != Row::Mean) {
            self.read(index, &table.name, row, &mut values)?;
            sums.iter_mut().zip(&values).for_each(|(sum, value)| *sum += f64::from(*value));
            count += 1;
        }
        Ok(sums.into_iter().map(|sum| (sum / count.max(1) as f64) as f32).collect())
    }

    /// The values of a row that is no [`Row::Mean`].
    fn read(&self, index: usize, table: &str, row: &Row, values: &mut [f32]) -> Result<(), MergeError> {
        let width = values.len();
        let decode = |model: usize, row: usize, values: &mut [f32]| {
            self.all[model].decode(table, row * width..(row + 1) * width, values)
        };
        match row {
            Row::Own(own) => decode(index, *own, values)?,
            Row::Others(others) => {
                let mut sums = vec![0.0f64; width];
                for (model, row) in others {
                    decode(*model, *row, values)?;
                    sums.iter_mut().zip(values.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                for (value, sum) in values.iter_mut().zip(&sums) {
                    *value = (sum / others.len() as f64) as f32;
                }
            }
            Row::Zero | Row::Mean => values.fill(0.0),
        }
        Ok(())
    }
}

/// A table that is written anew.
struct Table {
    name: String,
    shape: Vec<usize>,
    dtype: FloatType,
    rows: Vec<Row>,
}

impl Table {
    /// Elements of a row.
    fn width(&self) -> usize {
        self.shape[1..].iter().product()
    }
}
