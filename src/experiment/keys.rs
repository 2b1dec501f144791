//! Every key of the experiment file: its name, what it takes and what it means.
//!
//! The parser knows a key by these lists, and the JSON Schema is made from them, so the two cannot drift apart.

use mergelab_wire::{Engine, Labels, Normalize, Solver, TokenMask};

use super::layout::{Bold, MeanOf, Notation};
use super::types::{Backend, Keep, UnsafeCode};

/// One key of a mapping.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) about: &'static str,
    pub(super) required: bool,
}

/// What a value may be, as far as one value can tell.
pub(super) enum Shape {
    /// Text; a plain number counts as its spelling.
    Text,
    /// A name as entries have.
    Name,
    /// A path, relative to the project root.
    Path,
    /// `true` or `false`.
    Flag,
    /// A whole number of at least this.
    Whole(u64),
    /// A number between two, both allowed.
    Number(f64, f64),
    /// A size such as `40GiB`.
    Size,
    /// One of a few words.
    Word(fn() -> Vec<&'static str>),
    /// Anything.
    Any,
    /// A list of values of one shape.
    List(&'static Shape),
    /// A mapping from names to values of one shape.
    Map(&'static Shape),
    /// A mapping from entries' names to entries of one shape; it may be empty.
    Section(&'static Shape),
    /// A mapping with these keys.
    Object(&'static [&'static [Key]]),
    /// A merge: its own keys and those of all methods.
    Merge,
    /// A slice of a merge: its own keys and those of all methods.
    Slice,
    /// One of several shapes.
    Either(&'static [Shape]),
}

pub(super) const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, about, required: false }
}

pub(super) const fn required(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, about, required: true }
}

/// A table from words to what they mean.
pub(super) type Words<T> = [(&'static str, T)];

pub(super) const DTYPES: &Words<&str> = &[("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")];
/// Gradients need more range than float16 has.
pub(super) const GRADIENT_DTYPES: &Words<&str> = &[("float32", "float32"), ("bfloat16", "bfloat16")];
pub(super) const LABELS: &Words<Labels> = &[("data", Labels::Data), ("model", Labels::Model { seed: 0 })];
pub(super) const TOKENS: &Words<TokenMask> = &[("all", TokenMask::All), ("assistant", TokenMask::Assistant)];
pub(super) const ENGINES: &Words<Engine> =
    &[("auto", Engine::Auto), ("native", Engine::Native), ("transformers", Engine::Transformers)];
pub(super) const SOLVERS: &Words<Solver> = &[
    ("auto", Solver::Auto),
    ("cholesky", Solver::Cholesky),
    ("lstsq", Solver::Lstsq),
    ("inverse", Solver::Inverse),
    ("pinv", Solver::Pinv),
];
pub(super) const NORMALIZE: &Words<Normalize> = &[("none", Normalize::None), ("trace", Normalize::Trace)];
pub(super) const KEEP: &Words<Keep> = &[("weights", Keep::Weights), ("recipe", Keep::Recipe)];
pub(super) const BACKENDS: &Words<Backend> =
    &[("vllm", Backend::Vllm), ("hf", Backend::Hf), ("loss", Backend::Loss), ("command", Backend::Command)];
pub(super) const NOTATIONS: &Words<Notation> = &[("fixed", Notation::Fixed), ("scientific", Notation::Scientific)];

pub(super) const BOLD: &Words<Bold> = &[("best", Bold::Best), ("not_worse", Bold::NotWorse)];
pub(super) const MEANS: &Words<MeanOf> = &[("scores", MeanOf::Scores), ("normalized", MeanOf::Normalized)];
pub(super) const UNSAFE_CODE: &Words<UnsafeCode> =
    &[("refuse", UnsafeCode::Refuse), ("sandbox", UnsafeCode::Sandbox), ("allow", UnsafeCode::Allow)];

/// The words of a table.
pub(super) fn words<T>(table: &Words<T>) -> Vec<&'static str> {
    table.iter().map(|(word, _)| *word).collect()
}

pub(super) const FILE: &[Key] = &[
    required("name", Shape::Name, "Name of the experiment and of its folder under results/."),
    key("description", Shape::Text, "What the experiment is about."),
    key("models", Shape::Section(&Shape::Object(&[MODEL])), "Models that are not made by a merge."),
    key("data", Shape::Section(&Shape::Object(&[DATA])), "Data sets."),
    key("commands", Shape::Section(&Shape::Object(&[COMMAND])), "Programs as stages."),
    key("grams", Shape::Section(&Shape::Object(&[GRAM, RUN])), "Gram matrices of activations: captured, or imported."),
    key("fishers", Shape::Section(&Shape::Object(&[FISHER, RUN])), "Diagonal Fisher information of models on data."),
    key("merges", Shape::Section(&Shape::Merge), "Merges of models."),
    key("evals", Shape::Section(&Shape::Object(&[SUITE, OPTIONS, LOSS])), "Evaluation suites: models times tasks."),
    key("tables", Shape::Section(&Shape::Object(&[TABLE])), "Results tables."),
    key("settings", Shape::Object(&[SETTINGS]), "Settings of the whole experiment."),
];

const LINK_ABOUT: &str = "Web address that the label leads to.";
const UNIT_ABOUT: &str = "Unit of the values; it stands in the heading.";
const DIGITS_ABOUT: &str = "Digits after the point, at most 17; 2 if absent.";
const FROM_ABOUT: &str = "Output of a command, as `commands.NAME`.";
const REVISION_ABOUT: &str = "Branch, tag or commit; the default branch if absent.";
const SWEEP: Shape = Shape::Map(&Shape::List(&Shape::Either(&[Shape::Text, Shape::Flag])));
const SWEEP_ABOUT: &str = "Values to expand over: the entry becomes NAME-v1-v2 for each combination.";

pub(super) const MODEL: &[Key] = &[
    key("hub", Shape::Text, "Hub repository, as `org/name`."),
    key("revision", Shape::Text, REVISION_ABOUT),
    key("path", Shape::Path, "Directory, relative to the project root; with `from`, a path inside the output."),
    key("from", Shape::Text, FROM_ABOUT),
    key(
        "lora",
        Shape::Either(&[Shape::Path, Shape::Object(&[ADAPTER])]),
        "LoRA adapter that is applied to the model, as PEFT writes it: its directory, or where it comes from.",
    ),
    key("sweep", SWEEP, SWEEP_ABOUT),
];

pub(super) const ADAPTER: &[Key] = &[
    key("hub", Shape::Text, "Hub repository, as `org/name`."),
    key("revision", Shape::Text, REVISION_ABOUT),
    key("path", Shape::Path, "Directory, relative to the project root; with `from`, a path inside the output."),
    key("from", Shape::Text, FROM_ABOUT),
];

pub(super) const DATA: &[Key] = &[
    key(
        "path",
        Shape::Path,
        "File (.jsonl, .json, .csv, each also with .gz or .zst; .parquet); with `from`, a path inside the output.",
    ),
    key("hub", Shape::Text, "Hub data set, as `org/name`."),
    key("from", Shape::Text, FROM_ABOUT),
    key("revision", Shape::Text, REVISION_ABOUT),
    key("config", Shape::Text, "Configuration of a hub data set."),
    key("split", Shape::Text, "Split of a hub data set; `train` if absent."),
    key(
        "rows",
        Shape::Either(&[Shape::Whole(1), Shape::Object(&[SAMPLE])]),
        "The first N rows, or a sample; all if absent.",
    ),
    key("messages", Shape::List(&Shape::Object(&[MESSAGE])), "Chat messages, through the model's chat template."),
    key("text", Shape::Text, "Jinja template over a row's columns, in place of messages."),
    key("strict", Shape::Flag, "Refuse rows that cannot be used, in place of counting them."),
    key("sweep", SWEEP, "Values to expand over: of a key, or of the `sample` or `seed` of `rows`."),
];

pub(super) const SAMPLE: &[Key] = &[
    required("sample", Shape::Whole(1), "How many rows to draw."),
    key("seed", Shape::Whole(0), "Seed of the draw; that of the settings if absent."),
];

pub(super) const MESSAGE: &[Key] = &[
    required("role", Shape::Text, "system, user, assistant, or what the chat template knows."),
    required("content", Shape::Text, "Jinja template over a row's columns."),
];

pub(super) const COMMAND: &[Key] = &[
    required("run", Shape::List(&Shape::Text), "Program and arguments, with `{out}` and `{inputs.NAME}`; no shell."),
    key(
        "inputs",
        Shape::Either(&[
            Shape::List(&Shape::Path),
            Shape::Map(&Shape::Either(&[Shape::Path, Shape::Object(&[INPUT])])),
        ]),
        "What the program reads: a list of paths, or a map from names to paths or outputs.",
    ),
    key(
        "env",
        Shape::Map(&Shape::Either(&[Shape::Text, Shape::Flag])),
        "Environment variables that decide the result.",
    ),
    key("version", Shape::Text, "Raise it when the program changed in a way that inputs do not show."),
    key("timeout", Shape::Number(0.0, f64::MAX), "Limit in seconds."),
    key("sweep", SWEEP, "Values to expand over: of `version` or `timeout`, or of a `{placeholder}` of run."),
];

pub(super) const INPUT: &[Key] = &[
    required("from", Shape::Text, "`commands.NAME`, `models.NAME`, `merges.NAME`, `data.NAME` or `grams.NAME`."),
    key("path", Shape::Path, "Path inside a command's output."),
];

/// How a model runs on data.
pub(super) const RUN: &[Key] = &[
    key("max_length", Shape::Whole(1), "Truncation, in tokens."),
    key("add_special_tokens", Shape::Flag, "Whether the tokenizer adds its special tokens; true if absent."),
    key("tokens", Shape::Word(|| words(TOKENS)), "Which tokens count."),
    key("skip_first", Shape::Whole(0), "Tokens at the start of each sequence that do not count."),
    key("chat_template", Shape::Path, "Template file in place of the model's."),
    key("sweep", SWEEP, SWEEP_ABOUT),
];

pub(super) const GRAM: &[Key] = &[
    key("model", Shape::Name, "Model or merge whose activations are captured."),
    key("data", Shape::Name, "Data set that runs through it."),
    key("exclude", Shape::List(&Shape::Text), "Globs on module names for which no Gram is kept."),
    key("dtype", Shape::Word(|| words(DTYPES)), "Type of the forward pass; the checkpoint's if absent."),
    key("shards", Shape::Whole(1), "In how many parts the rows are captured, each a stage of its own."),
    key("engine", Shape::Word(|| words(ENGINES)), "What runs the forward pass."),
    key("pickle", Shape::Object(&[PICKLE]), "Import matrices from a pickle in place of a capture."),
    key("path", Shape::Path, "Import matrices from a directory: an artifact, or what `mergelab grams export` wrote."),
    key("hub", Shape::Text, "Import matrices from such a directory in a hub repository, as `org/name`."),
    key("revision", Shape::Text, REVISION_ABOUT),
];

pub(super) const FISHER: &[Key] = &[
    required("model", Shape::Name, "Model or merge whose Fisher information is estimated."),
    required("data", Shape::Name, "Data set that it is estimated on."),
    key("dtype", Shape::Word(|| words(GRADIENT_DTYPES)), "Type of the passes; the checkpoint's if absent."),
    key("labels", Shape::Word(|| words(LABELS)), "Whose next tokens the likelihood is of; the data's if absent."),
    key("seed", Shape::Whole(0), "Seed of the labels that the model draws; that of the settings if absent."),
];

pub(super) const PICKLE: &[Key] = &[
    key("hub", Shape::Text, "Hub repository, as `org/name`."),
    key("file", Shape::Text, "File in the repository."),
    key("revision", Shape::Text, REVISION_ABOUT),
    key("path", Shape::Path, "File on disk, in place of a repository."),
];

/// Keys of a merge whatever its method; the method's parameters stand beside them.
pub(super) const MERGE: &[Key] = &[
    required("method", Shape::Word(super::methods::spellings), "How to merge."),
    key(
        "models",
        Shape::List(&Shape::Either(&[Shape::Name, Shape::Object(&[WEIGHTED])])),
        "Models or merges that are merged; a swept name means all of its expansions.",
    ),
    key(
        "slices",
        Shape::List(&Shape::Slice),
        "In place of `models`: the layers of the result, from the first to the last, and what they are merged from.",
    ),
    key(
        "grams",
        Shape::List(&Shape::Name),
        "One Gram entry per model, in the same order; a swept one multiplies the merge.",
    ),
    key(
        "fishers",
        Shape::List(&Shape::Name),
        "One Fisher entry per model, in the same order; a swept one multiplies the merge.",
    ),
    key("base", Shape::Name, "Base model, for methods on task vectors and for rules."),
    key(
        "alpha",
        Shape::Either(&[Shape::Number(0.0, 1.0), Shape::Word(|| words(ALPHAS)), Shape::List(&Shape::Number(0.0, 1.0))]),
        "Scale of the Grams' off-diagonal; a list is a gradient over depth.",
    ),
    key("held_out", Shape::List(&Shape::Name), "Gram entries on held-out data, one per model."),
    key("rules", Shape::List(&Shape::Object(&[RULE])), "By tensor name; the first that matches decides."),
    key(
        "normalize",
        Shape::Either(&[Shape::Word(|| words(NORMALIZE)), Shape::Flag]),
        "With Grams: how they are brought to one scale. Elsewhere: whether weights are scaled to sum to 1.",
    ),
    key("solver", Shape::Word(|| words(SOLVERS)), "How the RegMean system is solved."),
    key("dtype", Shape::Word(|| words(DTYPES)), "Type of the output; the first model's if absent."),
    key("shard_size", Shape::Size, "The most bytes of tensors in a file of the output, such as 5GB, the default."),
    key(
        "tokenizer",
        Shape::Either(&[Shape::Name, Shape::Object(&[TOKENIZER])]),
        "Which model gives config and tokenizer: one of the merge, `base` or `union`. Rows of embeddings go by its tokens.",
    ),
    key("keep", Shape::Word(|| words(KEEP)), "Whether the weights stay once nothing needs them."),
    key("config", Shape::Path, "mergekit configuration, relative to the project root, for `method: mergekit`."),
    key("sweep", SWEEP, SWEEP_ABOUT),
];

pub(super) const ALPHAS: &Words<mergelab_wire::Alpha> =
    &[("auto", mergelab_wire::Alpha::Auto), ("auto-layer", mergelab_wire::Alpha::AutoLayer)];

/// A number, a list of them over depth, or either by tensor name.
macro_rules! numbers {
    ($min:expr, $max:expr) => {
        Shape::Either(&[
            Shape::Number($min, $max),
            Shape::List(&Shape::Either(&[Shape::Number($min, $max), Shape::Object(&[FILTERED])])),
        ])
    };
}

pub(super) const WEIGHTED: &[Key] = &[
    required("model", Shape::Name, "Model or merge."),
    key(
        "weight",
        numbers!(f64::MIN, f64::MAX),
        "Its weight, 1 if absent; a list is a gradient over depth, or goes by tensor name.",
    ),
    key("density", numbers!(0.0, 1.0), "Its own `density`, for methods that have it."),
    key("gamma", numbers!(0.0, 1.0), "Its own `gamma`, for methods that have it."),
    key("epsilon", numbers!(0.0, 1.0), "Its own `epsilon`, for della and della_linear."),
    key("scale", numbers!(f64::MIN, f64::MAX), "Its own `scale`, for passthrough."),
];

pub(super) const TOKENIZER: &[Key] = &[
    required(
        "source",
        Shape::Either(&[Shape::Name, Shape::Object(&[RULE_MODEL])]),
        "Which model gives it: one of the merge, `base`, or `union` for the tokens of all.",
    ),
    key("base", Shape::Name, "The model whose tokens a union begins with, and whose rows go before a mean of several."),
    key(
        "rows",
        Shape::Word(|| words(ROWS_BY)),
        "Which rows of embeddings belong together; those of one token if absent.",
    ),
    key("pad_to_multiple_of", Shape::Whole(1), "What the number of rows is a multiple of."),
    key("tokens", Shape::Map(&Shape::Object(&[TOKEN_ROW])), "Where the rows of single tokens come from."),
];

pub(super) const TOKEN_ROW: &[Key] = &[
    key(
        "source",
        Shape::Either(&[Shape::Name, Shape::Object(&[ROW_SOURCE])]),
        "The row for models that lack the token: that of a model of the merge, or another.",
    ),
    key("force", Shape::Flag, "Also for models that have the token."),
];

pub(super) const ROW_SOURCE: &[Key] = &[
    required("kind", Shape::Word(|| words(ROW_KINDS)), "Zeros, or the row of a token of a model."),
    key("model", Shape::Name, "A model of the merge."),
    key("token", Shape::Text, "Its token."),
    key("token_id", Shape::Whole(0), "The id of its token."),
];

/// What makes rows of embeddings belong together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RowsBy {
    /// Their tokens.
    Tokens,
    /// Their places.
    Ids,
}

pub(super) const ROWS_BY: &Words<RowsBy> = &[("tokens", RowsBy::Tokens), ("ids", RowsBy::Ids)];

/// Kinds of rows, and whether one is of zeros.
pub(super) const ROW_KINDS: &Words<bool> = &[("zero", true), ("model_token", false)];

/// Keys of a slice whatever the method; the method's parameters stand beside them.
pub(super) const SLICE: &[Key] = &[
    required("models", Shape::List(&Shape::Object(&[WEIGHTED, LAYERS])), "What its layers are merged from."),
    key("base", Shape::Name, "Its base, where that is another than the merge's; it stands among the models too."),
];

pub(super) const LAYERS: &[Key] = &[required(
    "layers",
    Shape::List(&Shape::Whole(0)),
    "The layers that the model gives, as the first and one past the last.",
)];

pub(super) const RULE: &[Key] = &[
    required("match", Shape::Text, "Glob on tensor names."),
    key(
        "use",
        Shape::Either(&[Shape::Word(|| RULE_WORDS.to_vec()), Shape::Object(&[RULE_MODEL]), Shape::Text]),
        "What to do with them; `{ model: NAME }` takes that model's tensor.",
    ),
    key("alpha", Shape::Number(0.0, 1.0), "Own α of RegMean."),
];

pub(super) const RULE_WORDS: &[&str] = &["regmean", "average", "base"];

pub(super) const RULE_MODEL: &[Key] = &[required("model", Shape::Name, "A model of the merge.")];

/// Parameters that may differ by tensor name, as in a mergekit file.
pub(super) const FILTERED: &[Key] = &[
    key("filter", Shape::Text, "Part of a tensor's name; without one, the value for all others."),
    required(
        "value",
        Shape::Either(&[Shape::Number(f64::MIN, f64::MAX), Shape::List(&Shape::Number(f64::MIN, f64::MAX))]),
        "The value; a list is a gradient over depth.",
    ),
];

pub(super) const SUITE: &[Key] = &[
    required("models", Shape::List(&Shape::Name), "Models or merges; a swept name means all of its expansions."),
    key("backend", Shape::Word(|| words(BACKENDS)), "What evaluates; vllm if absent."),
    key("model_args", Shape::Map(&Shape::Any), "Arguments of the backend's model, under its own names."),
    key(
        "tasks",
        Shape::List(&Shape::Either(&[Shape::Text, Shape::Object(&[TASK, OPTIONS])])),
        "lm_eval tasks, by name or with options.",
    ),
    key("data", Shape::List(&Shape::Name), "Data sets, for `backend: loss`."),
    key("run", Shape::List(&Shape::Text), "Program and arguments with `{model}` and `{out}`, for `backend: command`."),
    key("inputs", Shape::List(&Shape::Path), "What the program of `backend: command` reads beside the model."),
    key(
        "env",
        Shape::Map(&Shape::Either(&[Shape::Text, Shape::Flag])),
        "Environment variables that decide the result of `backend: command`.",
    ),
    key(
        "version",
        Shape::Text,
        "For `backend: command`: raise it when the program changed in a way nothing else shows.",
    ),
    key("timeout", Shape::Number(0.0, f64::MAX), "For `backend: command`: limit in seconds for one evaluation."),
    key(
        "stalled_after",
        Shape::Number(0.0, f64::MAX),
        "Seconds without a sign of progress after which lm_eval is ended; 3600 if absent.",
    ),
    key("task_dirs", Shape::List(&Shape::Path), "Directories with more task files."),
    key(
        "unsafe_code",
        Shape::Word(|| words(UNSAFE_CODE)),
        "Whether code that a model wrote may run; refuse if absent.",
    ),
];

/// What `backend: loss` asks of its rows; the words are those of a Gram entry.
pub(super) const LOSS: &[Key] = &[
    key("max_length", Shape::Whole(1), "For `backend: loss`: truncation, in tokens."),
    key(
        "add_special_tokens",
        Shape::Flag,
        "For `backend: loss`: whether the tokenizer adds its special tokens; true if absent.",
    ),
    key("tokens", Shape::Word(|| words(TOKENS)), "For `backend: loss`: which tokens count."),
    key("chat_template", Shape::Path, "For `backend: loss`: template file in place of the model's."),
    key(
        "dtype",
        Shape::Word(|| words(DTYPES)),
        "For `backend: loss`: type of the forward pass; the checkpoint's if absent.",
    ),
    key(
        "kl",
        Shape::Either(&[Shape::Flag, Shape::List(&Shape::Name)]),
        "For `backend: loss`: whether the KL divergence from each source of a merge is measured, or from these models.",
    ),
];

pub(super) const TASK: &[Key] = &[
    required("task", Shape::Text, "lm_eval's name of the task."),
    key("name", Shape::Name, "Name in stages and results; needed where a task is evaluated twice."),
    key("data", Shape::Path, "Local file in place of the task's data set."),
];

/// `lm_eval`'s options, of a suite or of one of its tasks.
pub(super) const OPTIONS: &[Key] = &[
    key("num_fewshot", Shape::Whole(0), "Examples in the prompt."),
    key("limit", Shape::Number(0.0, f64::MAX), "First N documents, or a share below 1."),
    key("gen_kwargs", Shape::Map(&Shape::Any), "Generation arguments."),
    key(
        "apply_chat_template",
        Shape::Either(&[Shape::Flag, Shape::Text]),
        "Whether the chat template is applied, or which.",
    ),
    key("chat_template_args", Shape::Map(&Shape::Any), "Variables of the chat template."),
    key("system_instruction", Shape::Text, "System prompt."),
    key("fewshot_as_multiturn", Shape::Flag, "Whether few-shot examples are turns of a conversation."),
    key(
        "batch_size",
        Shape::Either(&[Shape::Whole(1), Shape::Text]),
        "A number, `auto` or `auto:N`; changes no result's key.",
    ),
    key("seed", Shape::Whole(0), "Seed of the harness and of its engine; that of the settings if absent."),
    key(
        "code_timeout",
        Shape::Number(0.0, 3600.0),
        "Seconds that a program which a model wrote may take; as the task says (3) if absent.",
    ),
    key(
        "tripwires",
        Shape::Object(&[TRIPWIRES]),
        "What speaks against a score: the share of the answers up to which it passes, or `accept`; changes no result's key.",
    ),
];

const ALLOWED: Shape = Shape::Either(&[Shape::Number(0.0, 1.0), Shape::Word(|| ACCEPT.to_vec())]);

/// What a tripwire may be set to beside a share.
pub(super) const ACCEPT: &[&str] = &["accept"];

/// What the driver counts over the answers of a task; the shares that pass by themselves are its own
/// (`lm-eval-harness/harness/tripwires.py`).
pub(super) const TRIPWIRES: &[Key] = &[
    key("nan", ALLOWED, "Log-likelihoods that are no finite numbers; none pass if absent."),
    key("truncated", ALLOWED, "Prompts longer than the model's max length allows; none pass if absent."),
    key("template", ALLOWED, "Prompts without the chat template that the model has; none pass if absent."),
    key("empty", ALLOWED, "Empty answers; 0.2 if absent."),
    key("repeating", ALLOWED, "Answers that repeat themselves until they are cut; 0.2 if absent."),
    key("cut", ALLOWED, "Answers cut at the limit of new tokens; 0.5 if absent."),
    key("timeout", ALLOWED, "Programs that ran out of time; 0.5 if absent."),
    key("chance", ALLOWED, "Multiple-choice tasks that score no better than guessing; 0.5 if absent."),
];

/// What stands down or across a table.
const LINES: Shape = Shape::List(&Shape::Either(&[
    Shape::Name,
    Shape::Object(&[ROW]),
    Shape::Object(&[COLUMN]),
    Shape::Object(&[MEAN]),
]));

pub(super) const TABLE: &[Key] = &[
    required("rows", LINES, "Models, in the table's order; or metrics, and then models are the columns."),
    required("columns", LINES, "Metrics of tasks, and means over them, in the table's order; or models."),
    key(
        "across",
        Shape::Either(&[Shape::Text, Shape::Object(&[ACROSS])]),
        "Swept key whose values stand side by side: its entries have one row, and each value has columns.",
    ),
    key("baseline", Shape::Name, "Model that every other row is tested against, document by document."),
    key("bold", Shape::Word(|| words(BOLD)), "Which values of a column are bold; best if absent."),
    key("second", Shape::Flag, "Underline the second best value of a column."),
    key("published", Shape::Path, "CSV with published values."),
    key("comparison", Shape::Flag, "A column beside each with published values: measured minus published."),
    key("into", Shape::Path, "File that holds the table's block."),
];

pub(super) const ROW: &[Key] = &[
    required("model", Shape::Name, "An evaluated model or merge; a swept name means all of its expansions."),
    key("from", Shape::Path, "File of another experiment that the model is of, relative to the project root."),
    key("label", Shape::Text, "Label; the name if absent. On a swept name the values are added to it."),
    key("link", Shape::Text, LINK_ABOUT),
    key(
        "replicates",
        Shape::Text,
        "Swept key, such as seed, over whose values the row shows mean and standard deviation.",
    ),
];

pub(super) const ACROSS: &[Key] = &[
    required("key", Shape::Text, "The swept key."),
    key("label", Shape::Text, "What stands before each value; `KEY =` if absent."),
];

pub(super) const COLUMN: &[Key] = &[
    required("task", Shape::Text, "A task of a suite: its name, a data set of a loss suite, or a command suite."),
    required("metric", Shape::Text, "Metric, under the task's own name for it."),
    key("filter", Shape::Text, "Filter; the task's only one if absent."),
    key("label", Shape::Text, "Heading; the task's name if absent."),
    key("note", Shape::Text, "Remark under the heading."),
    key("scale", Shape::Number(f64::MIN, f64::MAX), "What values are multiplied by; 100 for rates if absent."),
    key("digits", Shape::Whole(0), DIGITS_ABOUT),
    key("notation", Shape::Word(|| words(NOTATIONS)), "How numbers are written; fixed if absent."),
    key("specialist", Shape::Name, "Model whose value is 100 % in a normalized mean."),
    key("unit", Shape::Text, UNIT_ABOUT),
    key("link", Shape::Text, LINK_ABOUT),
];

pub(super) const MEAN: &[Key] = &[
    required("mean", Shape::Word(|| words(MEANS)), "Of what: scores, or scores in per cent of the specialists'."),
    required("label", Shape::Text, "Heading."),
    key("of", Shape::List(&Shape::Text), "Columns, by label or task; all metrics if absent. For scores."),
    key("note", Shape::Text, "Remark under the heading."),
    key("digits", Shape::Whole(0), DIGITS_ABOUT),
    key("unit", Shape::Text, UNIT_ABOUT),
];

pub(super) const SETTINGS: &[Key] = &[
    key("seed", Shape::Whole(0), "Seed of everything that draws."),
    key("device", Shape::Text, "auto, cpu, cuda or cuda:N."),
    key("keep", Shape::Word(|| words(KEEP)), "What merges keep that do not say."),
    key("requires", Shape::Object(&[REQUIRES]), "What the machine must have."),
];

pub(super) const REQUIRES: &[Key] = &[
    key("gpu_memory", Shape::Size, "Memory of one GPU, such as 40GiB."),
    key("memory", Shape::Size, "Main memory."),
    key("disk", Shape::Size, "Free space where the store lies."),
];
