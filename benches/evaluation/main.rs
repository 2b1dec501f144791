//! What mergelab adds to a bare `lm_eval` of the same work: the same evaluation of a tiny model by both, in turns, so that
//! each pair stands for one machine in one state.
//!
//! The bare command is the one that `mergelab run --dry-run` shows, and both must come to the same figure. `lm_eval` is that of
//! the Python that `BENCH_PYTHON` names, else of the checkout's `.venv`; `BENCH_ROUNDS` says how many pairs are run.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Questions of the task: some seconds of work beside the start of `lm_eval`, so that neither is all of it.
const QUESTIONS: usize = 1000;

const STAGE: &str = "evals.suite/tiny/sums";

const EXPERIMENT: &str = "name: bench
models: { tiny: { path: model } }
evals:
  suite: { models: [tiny], backend: hf, task_dirs: [tasks], apply_chat_template: false, batch_size: 16, tasks: [sums] }
settings: { device: cpu }
";

const TASK: &str = r#"task: sums
dataset_path: json
dataset_kwargs: { data_files: { test: sums.jsonl } }
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: { until: ["\n"], max_gen_toks: 8, do_sample: false }
metric_list: [{ metric: exact_match, aggregation: mean, higher_is_better: true }]
"#;

fn main() -> Result<()> {
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let project = Project::lay_out(scratch.path())?;
    // The first of each fills caches, and must come to the same figure.
    project.mergelab()?;
    project.bare()?;
    let figures = (project.measured()?, project.measured_bare()?);
    if (figures.0 - figures.1).abs() > 0.5 / QUESTIONS as f64 {
        return Err(format!("mergelab comes to {}, and lm_eval to {}", figures.0, figures.1).into());
    }
    let (mut bare, mut ours, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let pair = (project.bare()?, project.mergelab()?);
        bare.push(pair.0.as_secs_f64());
        ours.push(pair.1.as_secs_f64());
        over.push(pair.1.as_secs_f64() - pair.0.as_secs_f64());
    }
    let base = median(&mut bare);
    println!("lm_eval, bare      {base:.2} s (of {rounds}; {:.2})", bare[0]);
    println!("mergelab           {:.2} s (of {rounds}; {:.2})", median(&mut ours), ours[0]);
    let over = median(&mut over);
    println!("mergelab over it   {over:+.2} s, {:+.1} %   must be <= 0.20 s and 2 %", 100.0 * over / base);
    println!(
        "\nEach figure: median of so many runs, and the lowest; the last, the median difference of two runs in a row."
    );
    Ok(())
}

/// The middle one of some figures, which are sorted.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// An experiment with one evaluation.
struct Project {
    root: PathBuf,
    /// The command that does the same, for a shell.
    command: String,
}

impl Project {
    fn lay_out(root: &Path) -> Result<Self> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = std::env::var_os("BENCH_PYTHON").map_or_else(|| checkout.join(".venv/bin/python"), PathBuf::from);
        let python = std::path::absolute(python)?;
        fs::create_dir_all(root.join("tasks"))?;
        fs::write(root.join("mergelab.toml"), format!("[python]\npath = \"{}\"\n", python.display()))?;
        fs::write(root.join("bench.yaml"), EXPERIMENT)?;
        fs::write(root.join("tasks/sums.yaml"), TASK)?;
        let row = |row: usize| format!("{{\"question\": \"{row}+1=\", \"answer\": \"{}\"}}\n", row + 1);
        fs::write(root.join("sums.jsonl"), (0..QUESTIONS).map(row).collect::<Vec<_>>().concat())?;
        let mut model = Command::new(python);
        model.args(["-c", "import sys; from tiny_model import make_model; make_model(sys.argv[1])", "model"]);
        timed(model.current_dir(root).env("PYTHONPATH", checkout.join("lm-eval-harness")))?;
        let shown =
            Self { root: root.to_owned(), command: String::new() }.ask(&["run", "bench.yaml", "-n", "--json"])?;
        let stages = shown.as_array().ok_or("a dry run lists stages")?;
        let stage = stages.iter().find(|stage| stage["stage"] == STAGE).ok_or("no evaluation")?;
        let command = stage["command"].as_str().ok_or("an evaluation without its command")?.to_owned();
        Ok(Self { root: root.to_owned(), command })
    }

    /// What a command of ours prints as JSON.
    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mergelab"));
        let (_, output) = timed(command.args(arguments).current_dir(&self.root))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// How long mergelab takes, with the model known.
    fn mergelab(&self) -> Result<Duration> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mergelab"));
        command.args(["run", "bench.yaml", "--force", STAGE]).current_dir(&self.root);
        Ok(timed(&mut command)?.0)
    }

    /// How long `lm_eval` takes by itself.
    fn bare(&self) -> Result<Duration> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &self.command]).current_dir(&self.root);
        // As mergelab has it: nobody waits for a hub.
        for name in ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            command.env(name, "1");
        }
        Ok(timed(&mut command)?.0)
    }

    fn measured(&self) -> Result<f64> {
        let shown = self.ask(&["show", STAGE, "bench.yaml", "--json"])?;
        shown["metrics"][0]["value"].as_f64().ok_or_else(|| "no figure of mergelab".into())
    }

    /// The figure in the file of results that `lm_eval` left last.
    fn measured_bare(&self) -> Result<f64> {
        let mut pending = vec![self.root.join("OUT")];
        let mut found = Vec::new();
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir)? {
                let path = entry?.path();
                if path.is_dir() {
                    pending.push(path);
                } else if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("results_")) {
                    found.push(path);
                }
            }
        }
        let results: Value = serde_json::from_slice(&fs::read(found.iter().max().ok_or("lm_eval left no results")?)?)?;
        results["results"]["sums"]["exact_match,none"].as_f64().ok_or_else(|| "no figure of lm_eval".into())
    }
}

/// How long a command takes; it must succeed.
fn timed(command: &mut Command) -> Result<(Duration, Output)> {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let time = started.elapsed();
    if output.status.success() {
        return Ok((time, output));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed:\n{text}").into())
}
