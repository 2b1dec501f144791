//! How long merging takes and how much memory, beside mergekit, a plain script of torch, and what no merge can do without:
//! reading the models and writing the result. Figures are measured in one go, so that they stand for one machine in one
//! state.
//!
//! mergekit is taken from the environment of the Python that `BENCH_PYTHON` names; the script runs in the Python that
//! `BENCH_TORCH` names. What is not there is said to be so. `BENCH_BILLIONS` lists sizes, `BENCH_PARTS` what is measured:
//! `average`, `methods`, `regmean`.

mod memory;
mod methods;
mod models;
mod plain;
mod regmean;
mod tensor;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A measurement is repeated this often, after one run that fills caches and does not count, and no more once it has taken
/// [`PATIENCE`].
const REPEATS: usize = 5;

const PATIENCE: Duration = Duration::from_mins(5);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One run: how long, and how much memory beyond mapped files.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    time: Duration,
    memory: Option<u64>,
}

/// Runs of one measurement.
pub(crate) struct Runs(Vec<Run>);

impl Runs {
    /// Measures again and again.
    pub(crate) fn of(mut measure: impl FnMut() -> Result<Run>) -> Result<Self> {
        let started = Instant::now();
        let first = measure()?;
        let mut runs = Vec::new();
        while runs.len() < REPEATS && started.elapsed() < PATIENCE {
            runs.push(measure()?);
        }
        if runs.is_empty() {
            runs.push(first);
        }
        Ok(Self(runs))
    }

    pub(crate) fn median(&self) -> Duration {
        let mut times: Vec<_> = self.0.iter().map(|run| run.time).collect();
        times.sort();
        times[times.len() / 2]
    }

    fn memory(&self) -> Option<u64> {
        self.0.iter().filter_map(|run| run.memory).max()
    }
}

/// Runs a command, which must succeed.
pub(crate) fn timed(mut command: Command) -> Result<Run> {
    let log = tempfile::NamedTempFile::new()?;
    let output = || log.as_file().try_clone();
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(output()?).stderr(output()?).spawn()?;
    let watch = memory::Watch::of(child.id());
    let status = child.wait()?;
    let time = started.elapsed();
    let memory = Some(watch.peak());
    if !status.success() {
        return Err(format!("{command:?} failed:\n{}", fs::read_to_string(log.path())?).into());
    }
    Ok(Run { time, memory })
}

/// A program beside the one that is measured.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_mergelab")).with_file_name(name);
    if program.is_file() { Ok(program) } else { Err(format!("{} is not built", program.display()).into()) }
}

fn main() -> Result<()> {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    println!("{:44} {:>9} {:>9} {:>22}", "", "seconds", "times", "MiB beyond mapped files");
    let stated = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (sizes, parts) = (stated("BENCH_BILLIONS", "1"), stated("BENCH_PARTS", "average methods regmean"));
    for part in parts.split_whitespace() {
        match part {
            "regmean" => regmean(&scratch.path().join(part))?,
            "average" | "methods" => {
                for size in sizes.split_whitespace() {
                    let home = scratch.path().join(size);
                    let measure = if part == "average" { average } else { methods::all };
                    measure(&home, size.parse()?)?;
                    fs::remove_dir_all(home)?;
                }
            }
            other => return Err(format!("BENCH_PARTS: no part {other:?}").into()),
        }
    }
    Ok(())
}

/// The mean of two models.
fn average(home: &Path, billions: f64) -> Result<()> {
    eprintln!("making two models of {billions}B");
    for (number, name) in ["a", "b"].into_iter().enumerate() {
        models::write(&home.join(name), billions, number as u64 + 1)?;
    }
    let title = |what: &str| format!("{billions}B bf16: {what}");
    let floor = Runs::of(|| plain::read_both_write_one(home))?;
    row(&title("read both, write one, fsync"), &floor, &floor);
    let ours = Runs::of(|| {
        let project = home.join("project");
        let _ = fs::remove_dir_all(project.join(".mergelab/objects"));
        let _ = fs::remove_dir_all(project.join(".mergelab/keys"));
        models::project(&project)?;
        // The models are known to a store before anybody merges them.
        timed(models::mergelab(&project, &["run", "--only", "models.a", "bench.yaml"]))?;
        timed(models::mergelab(&project, &["run", "--only", "models.b", "bench.yaml"]))?;
        timed(models::mergelab(&project, &["run", "bench.yaml"]))
    })?;
    row(&title("mergelab, `average`"), &ours, &floor);
    fs::remove_dir_all(home.join("project"))?;
    match plain::mergekit(home)? {
        Some(command) => {
            let runs = Runs::of(|| {
                let _ = fs::remove_dir_all(home.join("mergekit"));
                timed(command())
            })?;
            row(&title("mergekit, `linear`"), &runs, &floor);
        }
        None => println!("{:44} not installed (BENCH_PYTHON)", title("mergekit, `linear`")),
    }
    Ok(())
}

/// RegMean on two models of two layers.
fn regmean(home: &Path) -> Result<()> {
    let Some(python) = std::env::var_os("BENCH_TORCH") else {
        println!("{:44} no Python with torch (BENCH_TORCH)", "RegMean");
        return Ok(());
    };
    eprintln!("making two models of two layers with Gram matrices");
    fs::create_dir_all(home)?;
    timed(regmean::script(&python, "make", home))?;
    let ours = Runs::of(|| regmean::mergelab(home))?;
    row("RegMean, 2 layers: mergelab", &ours, &ours);
    let theirs = Runs::of(|| timed(regmean::script(&python, "lstsq", home)))?;
    row("RegMean, 2 layers: torch.linalg.lstsq", &theirs, &ours);
    Ok(())
}

fn row(title: &str, runs: &Runs, against: &Runs) {
    let seconds = runs.median().as_secs_f64();
    let times = seconds / against.median().as_secs_f64();
    let memory = runs.memory().map_or_else(|| "-".to_owned(), |bytes| (bytes >> 20).to_string());
    println!("{title:44} {seconds:9.2} {times:9.2} {memory:>22}");
}
