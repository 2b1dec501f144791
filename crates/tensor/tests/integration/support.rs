//! Stages, tiny models and the reference programs.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use indexmap::IndexMap;
use mergelab_tensor::checkpoint::{NewTensor, Writer};
use mergelab_tensor::gram::accumulate::{Accumulator, Addend};
use mergelab_tensor::gram::index::{FORMAT, GramEntry, GramIndex};
use mergelab_tensor::parallel::Pool;
use mergelab_wire::{
    Alpha, Engine, Event, EventReader, GramJob, Job, MergeJob, MergeSource, Message, Rows, StageFile, TokenMask, Weight,
};
use safetensors::Dtype;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// What came of a stage.
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stderr: String,
    pub(crate) events: Vec<Event>,
    pub(crate) out: PathBuf,
    _directory: TempDir,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    pub(crate) fn facts(&self) -> serde_json::Map<String, Value> {
        let facts = self.events.iter().find_map(|event| match event {
            Event::Facts { facts } => Some(facts.clone()),
            _ => None,
        });
        facts.expect("a stage sends facts")
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        let note = |event: &Event| match event {
            Event::Note { message } => Some(message.clone()),
            _ => None,
        };
        self.events.iter().filter_map(note).collect()
    }

    /// Names and contents of the files of the result.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(&self.out)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.out.join(name)).unwrap()).unwrap()
    }
}

/// The experiment is at fault, and what is said of it has all these parts.
#[track_caller]
pub(crate) fn refused(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    for part in parts {
        assert!(outcome.stderr.contains(part), "{part:?} is not in\n{}", outcome.stderr);
    }
}

/// Runs the program on a job.
pub(crate) fn run(job: Job, threads: usize) -> Outcome {
    run_on(job, threads, "cpu")
}

pub(crate) fn run_on(job: Job, threads: usize, device: &str) -> Outcome {
    run_by(Command::new(PROGRAM), job, threads, device, None)
}

/// The program that is tested.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mergelab-tensor");

/// Runs a job with a memory budget.
pub(crate) fn run_within(job: Job, threads: usize, memory: Option<u64>) -> Outcome {
    run_by(Command::new(PROGRAM), job, threads, "cpu", memory)
}

/// Runs a job with a memory budget by a command that is given the stage file as its last argument.
pub(crate) fn run_by(mut command: Command, job: Job, threads: usize, device: &str, memory: Option<u64>) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("out")).unwrap();
    fs::create_dir(at("partial")).unwrap();
    let stage = StageFile {
        wire: mergelab_wire::VERSION,
        stage: "test".to_owned(),
        out: at("out"),
        partial: at("partial"),
        events: at("events.jsonl"),
        device: device.to_owned(),
        threads,
        memory,
        job,
    };
    fs::write(at("stage.json"), serde_json::to_vec(&stage).unwrap()).unwrap();
    let output = command.arg(at("stage.json")).output().unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        events: EventReader::new(at("events.jsonl")).poll().unwrap(),
        out: at("out"),
        _directory: directory,
    }
}

pub(crate) fn chat_rows() -> Rows {
    let message = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
    Rows::Messages(vec![message("user", "{{ question }}"), message("assistant", "{{ answer }}")])
}

/// A capture of chat rows with everything at its default.
pub(crate) fn gram_job(model: &Path, data: &Path) -> GramJob {
    GramJob {
        model: model.to_path_buf(),
        data: data.to_path_buf(),
        shown: None,
        rows: chat_rows(),
        range: None,
        strict: false,
        max_length: Some(100),
        add_special_tokens: true,
        tokens: TokenMask::All,
        skip_first: 0,
        chat_template: None,
        exclude: Vec::new(),
        dtype: None,
        engine: Engine::Auto,
    }
}

/// A merge with everything at its default.
pub(crate) fn merge_job(method: &str, models: Vec<MergeSource>) -> MergeJob {
    MergeJob { card: "# A merge\n".to_owned(), origin: json!({ "key": "k" }), ..MergeJob::new(method, models) }
}

pub(crate) fn regmean_job(models: Vec<MergeSource>, alpha: f64) -> MergeJob {
    MergeJob { alpha: Some(Alpha::Number(alpha)), ..merge_job("regmean", models) }
}

pub(crate) fn source(name: &str, path: &Path, grams: Option<&Path>) -> MergeSource {
    MergeSource { grams: grams.map(Path::to_path_buf), ..MergeSource::new(name, path) }
}

/// A model's weight that is one number.
pub(crate) fn number(weight: &Weight) -> f64 {
    let Weight::Number(number) = weight else { panic!("{weight} is no number") };
    *number
}

/// Writes a safetensors file.
pub(crate) fn save(path: &Path, tensors: &[(&str, Tensor)]) {
    let spec = |(name, tensor): &(&str, Tensor)| NewTensor {
        name: (*name).to_owned(),
        dtype: match tensor.kind() {
            Kind::BFloat16 => Dtype::BF16,
            Kind::Int64 => Dtype::I64,
            _ => Dtype::F32,
        },
        shape: tensor.size().iter().map(|side| *side as usize).collect(),
    };
    let writer = Writer::single(path, tensors.iter().map(spec).collect()).unwrap();
    for (name, tensor) in tensors {
        writer.write(name, 0, tensor).unwrap();
    }
    writer.finish();
}

/// A directory that passes for a llama model of one layer with one projection: `o_proj` `[out, width]`.
pub(crate) fn toy_model(directory: &Path, seed: i64, rows: i64, width: i64, vocab: i64) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    tch::manual_seed(seed);
    let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.1;
    save(
        &directory.join("model.safetensors"),
        &[
            ("model.embed_tokens.weight", random([vocab, 4])),
            ("model.layers.0.self_attn.o_proj.weight", random([rows, width])),
            ("model.norm.weight", Tensor::randn([4], (Kind::Float, Device::Cpu))),
        ],
    );
    fs::write(
        directory.join("config.json"),
        format!(r#"{{"model_type": "llama", "vocab_size": {vocab}, "torch_dtype": "float32"}}"#),
    )
    .unwrap();
    directory.to_path_buf()
}

pub(crate) const TOY_LAYER: &str = "model.layers.0.self_attn.o_proj";

/// A Gram artifact for [`toy_model`] from activations `[tokens, width]`.
pub(crate) fn toy_grams(directory: &Path, x: &Tensor) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    let width = x.size()[1] as usize;
    let sum = Accumulator::new(width, x.kind(), Device::Cpu).unwrap();
    let mut sums = [(sum, vec![Addend::new(x, None, &[0]).unwrap()])];
    Accumulator::add(&mut sums, Pool::new(1)).unwrap();
    let [(sum, _)] = sums;
    let (tiling, tokens) = (sum.tiling(), sum.tokens());
    let tiles: Vec<Tensor> = sum.into_blocks().into_iter().map(|block| block.tiles().unwrap()).collect();
    save(&directory.join("layer.safetensors"), &[("o", Tensor::cat(&tiles, 0))]);
    let entry = GramEntry {
        file: "layer.safetensors".to_owned(),
        tensor: "o".to_owned(),
        n: Some(tokens as u64),
        width,
        tile: tiling.tile,
        transposed: false,
    };
    let modules = IndexMap::from([(TOY_LAYER.to_owned(), entry)]);
    GramIndex { format: FORMAT, modules, without: None }.write(directory).unwrap();
    directory.to_path_buf()
}

/// The Python that reference programs run in.
pub(crate) fn python() -> Option<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
    let stated = std::env::var_os("MERGELAB_PYTHON").map(PathBuf::from);
    let active = std::env::var_os("VIRTUAL_ENV").map(|root| Path::new(&root).join("bin/python"));
    let python = stated.or(active).unwrap_or(project);
    let works = Command::new(&python)
        .args(["-c", "import importlib.util as u; exit(not u.find_spec('transformers'))"])
        .status();
    works.is_ok_and(|status| status.success()).then_some(python)
}

/// Runs a reference program of `tests/reference`.
pub(crate) fn reference_program(python: &Path, name: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name);
    let output = Command::new(python).arg(script).args(arguments).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The directory that `tests/reference/models.py` made, or `None` (said aloud) without a Python for it.
pub(crate) fn references() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    MADE.get_or_init(|| made_by("models.py", &[include_str!("../reference/models.py")])).as_deref()
}

/// The directory that a reference program makes, or `None` (said aloud) without a Python for it. Made once per version of
/// the program, which is made of these texts, and kept between runs.
pub(crate) fn made_by(program: &str, texts: &[&str]) -> Option<PathBuf> {
    // Several tests want the same, and one of them makes it.
    static MAKING: Mutex<()> = Mutex::new(());
    let Some(python) = python() else {
        println!("skipped: no Python with transformers (MERGELAB_PYTHON, VIRTUAL_ENV, .venv)");
        return None;
    };
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reference-{:016x}", hasher.finish()));
    if !directory.join("complete").exists() {
        let _ = fs::remove_dir_all(&directory);
        reference_program(&python, program, &[directory.to_str().unwrap()]);
        fs::write(directory.join("complete"), "").unwrap();
    }
    Some(directory)
}

/// The families that `models.py` makes.
pub(crate) const FAMILIES: [&str; 6] = ["llama", "llama31", "llama32-tied", "mistral", "qwen2", "qwen3"];
