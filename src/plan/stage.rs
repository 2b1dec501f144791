//! One unit of work, and what it reads.

use std::path::PathBuf;

use mergelab_wire::Rows;
use serde::{Deserialize, Serialize};

use super::facts::Source;
use super::key::{scripts, tokenizer};
use crate::experiment::{
    Backend, Calibration, Capture, Command, Data, DataSource, Elsewhere, Fisher, Gram, Input, Lora, Merge, Model,
    Suite, Table, Task,
};

/// Index of a stage in its graph; a stage's needs have smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub usize);

/// One unit of work.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Index of its experiment in the graph.
    pub experiment: usize,
    /// `merges.regmean-0.1`, `evals.suite/avg/gsm8k`.
    pub name: String,
    /// What it does.
    pub spec: Spec,
    /// What it reads of other stages.
    pub needs: Vec<Need>,
    /// Where its entry stands in the file: section and name as written.
    pub entry: (&'static str, String),
}

impl Stage {
    /// The need of a role, if it has one.
    pub fn need(&self, role: &str) -> Option<StageId> {
        self.needs.iter().find(|need| need.role == role).map(|need| need.stage)
    }
}

/// An edge of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What the stage calls it: `model`, `data`, `0` (a merge's first model), `grams.0`, …
    pub role: String,
    /// The stage that makes it.
    pub stage: StageId,
}

/// What a stage does.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a graph has as many of them as stages")]
pub enum Spec {
    /// Find a model's files and hash them.
    Model(Model),
    /// Find an adapter's files and hash them.
    Adapter(Model),
    /// Apply an adapter to a model; where both come from is for messages.
    Lora(Lora),
    /// Pick rows of a data set.
    Data(Data),
    /// Run a program.
    Command(Command),
    /// Capture Gram matrices.
    Gram {
        /// How.
        capture: Capture,
        /// How a row becomes text.
        rows: Rows,
        /// Refuse rows that cannot be used.
        strict: bool,
        /// Which of the capture's shards, counted from 0; all rows if absent.
        shard: Option<usize>,
    },
    /// Add the Gram matrices of so many shards.
    AddGrams(usize),
    /// Import Gram matrices.
    ImportGram(Gram),
    /// Estimate Fisher information.
    Fisher {
        /// How.
        fisher: Fisher,
        /// How a row becomes text.
        rows: Rows,
        /// Refuse rows that cannot be used.
        strict: bool,
    },
    /// Merge models.
    Merge(Merge),
    /// Evaluate a model on a task.
    Eval {
        /// The suite's settings; its `models` and `tasks` are not read here.
        suite: Box<Suite>,
        /// The suite's name.
        suite_name: String,
        /// The model's name.
        model: String,
        /// The task.
        task: Box<Task>,
        /// Seed where the task states none.
        seed: u64,
    },
    /// Hold a model's predictions against held-out rows, and against those of other models.
    Loss(Loss),
    /// Render a table.
    Table {
        /// Its name.
        name: String,
        /// Its rows and columns.
        table: Table,
    },
}

/// How well a model predicts held-out rows: an evaluation without a harness.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What it runs on. The capture's `model` and `data` are those of the evaluation, by name; its `skip_first`, `exclude`,
    /// `shards` and `engine` mean nothing here.
    pub on: Calibration,
    /// Names of the models from which the KL divergence is measured; they are read as `source.0`, `source.1`, …
    pub sources: Vec<String>,
}

/// Kind of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A model's files.
    Model,
    /// An adapter's files.
    Adapter,
    /// Rows.
    Data,
    /// A program's output.
    Command,
    /// Gram matrices.
    Gram,
    /// Fisher information.
    Fisher,
    /// A merged model.
    Merge,
    /// Metrics and samples.
    Eval,
    /// A rendered table.
    Table,
}

impl Spec {
    /// The stage's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Model(_) | Self::Lora(_) => Kind::Model,
            Self::Adapter(_) => Kind::Adapter,
            Self::Data(_) => Kind::Data,
            Self::Command(_) => Kind::Command,
            Self::Gram { .. } | Self::AddGrams(_) | Self::ImportGram(_) => Kind::Gram,
            Self::Fisher { .. } => Kind::Fisher,
            Self::Merge(_) => Kind::Merge,
            Self::Eval { .. } | Self::Loss(_) => Kind::Eval,
            Self::Table { .. } => Kind::Table,
        }
    }

    /// Of a model or an adapter whose files stay where they are: where that is.
    pub fn found(&self) -> Option<&Model> {
        match self {
            Self::Model(place) | Self::Adapter(place) => Some(place),
            _ => None,
        }
    }

    /// Of an evaluation: what is evaluated, and on what, by the names that results carry.
    pub fn evaluated(&self) -> Option<(&str, &str)> {
        match self {
            Self::Eval { model, task, .. } => Some((model, &task.name)),
            Self::Loss(Loss { on, .. }) => Some((&on.capture.model, &on.capture.data)),
            _ => None,
        }
    }
}

impl Kind {
    /// Version of the kind's algorithm: raised when the same inputs give another result than before.
    ///
    /// History of `merge`: 4, what lies in no layer takes a list's first value. 3, systems are factored and solved in other
    /// steps. 2, lists over depth give embeddings their first value and count the layers of the whole model, and the mean is
    /// rounded once. Of `eval`: 2, the command in `task.json` is composed here and names no speed. Of `table`: 2, LaTeX spells
    /// signs, what was not measured alike is said, and what tests found is kept.
    pub fn version(self) -> u32 {
        match self {
            Self::Model | Self::Adapter | Self::Data | Self::Command | Self::Gram | Self::Fisher => 1,
            Self::Eval | Self::Table => 2,
            Self::Merge => 4,
        }
    }

    /// As in the section names, in the singular.
    pub fn word(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Adapter => "adapter",
            Self::Data => "data",
            Self::Command => "command",
            Self::Gram => "gram",
            Self::Fisher => "fisher",
            Self::Merge => "merge",
            Self::Eval => "eval",
            Self::Table => "table",
        }
    }
}

/// What a repository on the hub holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holds {
    /// A model; Gram matrices are kept in such ones too.
    Model,
    /// A data set.
    Dataset,
}

/// A repository on the hub, at a revision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    /// What it holds.
    pub holds: Holds,
    /// `ORG/NAME`.
    pub name: String,
    /// A branch, a tag or a commit; `main` where the experiment names none.
    pub revision: String,
}

/// The branch of a data set on which the hub keeps what it converted to Parquet by itself. It follows `main`.
pub const CONVERSION: &str = "refs/convert/parquet";

impl Repository {
    /// Where the hub's conversion of this data set to Parquet is, if it can have one.
    pub fn conversion(&self) -> Option<Self> {
        let can_have = self.holds == Holds::Dataset && self.revision == "main";
        can_have.then(|| Self { revision: CONVERSION.to_owned(), ..self.clone() })
    }
}

/// The repository on the hub that a stage reads, if it reads one, with the keys under its entry that name it.
pub fn repository(stage: &Stage) -> Option<(Repository, &'static [&'static str])> {
    let (holds, name, revision, place): (_, _, _, &[&str]) = match &stage.spec {
        Spec::Model(Model::Hub { repo, revision }) | Spec::ImportGram(Gram::Hub { repo, revision }) => {
            (Holds::Model, repo, revision, &["hub"])
        }
        Spec::Adapter(Model::Hub { repo, revision }) => (Holds::Model, repo, revision, &["lora", "hub"]),
        Spec::Data(Data { source: DataSource::Hub { repo, revision, .. }, .. }) => {
            (Holds::Dataset, repo, revision, &["hub"])
        }
        Spec::ImportGram(Gram::PickleHub { repo, revision, .. }) => (Holds::Model, repo, revision, &["pickle", "hub"]),
        _ => return None,
    };
    let revision = revision.clone().unwrap_or_else(|| "main".to_owned());
    Some((Repository { holds, name: name.clone(), revision }, place))
}

/// What a stage reads that no stage makes, with the keys under its entry that name it.
pub fn sources(stage: &Stage) -> Vec<(Source, Vec<String>)> {
    let one = |source: Source, place: &[&str]| vec![(source, place.iter().map(|&part| part.to_owned()).collect())];
    match &stage.spec {
        Spec::Model(Model::Path(path)) | Spec::ImportGram(Gram::Path(path)) => {
            one(Source::Tree(path.clone()), &["path"])
        }
        Spec::Adapter(Model::Path(path)) => one(Source::Tree(path.clone()), &["lora", "path"]),
        Spec::Data(Data { source: DataSource::Path(path), .. }) => one(Source::File(path.clone()), &["path"]),
        Spec::Command(command) => command
            .inputs
            .iter()
            .filter_map(|(name, input)| match input {
                Input::Path(path) => Some((Source::Any(path.clone()), vec!["inputs".to_owned(), name.clone()])),
                _ => None,
            })
            .collect(),
        Spec::Gram { capture, .. }
        | Spec::Fisher { fisher: Fisher { capture, .. }, .. }
        | Spec::Loss(Loss { on: Calibration { capture, .. }, .. }) => capture
            .chat_template
            .iter()
            .map(|path: &PathBuf| (Source::File(path.clone()), vec!["chat_template".to_owned()]))
            .collect(),
        Spec::ImportGram(Gram::PicklePath(path)) => one(Source::File(path.clone()), &["pickle", "path"]),
        Spec::Merge(merge) => {
            let templates = merge.captures.iter().filter_map(|calibration| calibration.capture.chat_template.as_ref());
            templates.map(|path| (Source::File(path.clone()), vec!["grams".to_owned()])).collect()
        }
        Spec::Eval { suite, task, .. } => match suite.backend {
            Backend::Vllm | Backend::Hf => {
                let place = vec!["tasks".to_owned()];
                let task_files = Source::Task { dirs: suite.task_dirs.clone(), task: task.task.clone() };
                let mut sources = vec![(task_files, place.clone())];
                sources.extend(task.data.iter().map(|path| (Source::File(path.clone()), place.clone())));
                let place = vec!["model_args".to_owned(), "tokenizer".to_owned()];
                sources.extend(tokenizer(suite).map(|path| (Source::Tokenizer(path), place)));
                sources
            }
            Backend::Command => {
                let inputs = suite.inputs.iter().map(|path| (Source::Any(path.clone()), vec!["inputs".to_owned()]));
                let scripts = scripts(suite).map(|(_, path)| (Source::Script(path), vec!["run".to_owned()]));
                inputs.chain(scripts).collect()
            }
            Backend::Loss => Vec::new(),
        },
        Spec::Table { table, .. } => {
            let published =
                table.published.iter().map(|path| (Source::File(path.clone()), vec!["published".to_owned()]));
            let place = if table.turned { "columns" } else { "rows" };
            let others = table
                .others()
                .into_iter()
                .flat_map(Elsewhere::kept)
                .map(|path| (Source::File(path), vec![place.to_owned()]));
            published.chain(others).collect()
        }
        _ => Vec::new(),
    }
}
