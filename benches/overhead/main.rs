//! How much time mergelab itself takes, beside other tools: what a run costs in which nothing is to do, and what a stage
//! that runs costs beyond its program. Figures are measured in one go, so that they stand for one machine in one state.
//!
//! DVC and Snakemake are taken from the environment of the Python that `BENCH_PYTHON` names, else from the path.

mod bare;
mod table;
mod tools;

use std::error::Error;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use table::Table;
use tools::{Dvc, Mergelab, Snakemake, Tool};

/// Stages of the experiment in which nothing is to do.
const SETTLED: usize = 1000;

/// Stages that are run one after another.
const RUN: usize = 100;

/// A measurement is repeated this often, and no more once it has taken [`PATIENCE`].
const REPEATS: usize = 11;

const PATIENCE: Duration = Duration::from_secs(25);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Times of one measurement, sorted.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Measures again and again; the first time, which fills caches, does not count where there is another.
    fn of(mut measure: impl FnMut() -> Result<Duration>) -> Result<Self> {
        let started = Instant::now();
        let first = measure()?;
        let mut times = Vec::new();
        while times.len() < REPEATS && started.elapsed() < PATIENCE {
            times.push(measure()?);
        }
        if times.is_empty() {
            times.push(first);
        }
        times.sort();
        Ok(Self(times))
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn median(&self) -> Duration {
        self.0[self.count() / 2]
    }

    fn lowest(&self) -> Duration {
        self.0[0]
    }

    /// Per item of `count`, less what an item takes anyway.
    fn per_item(self, count: usize, less: Duration) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Self(self.0.into_iter().map(|time| (time / count).saturating_sub(less)).collect())
    }
}

fn main() -> Result<()> {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let tools: Vec<Option<Box<dyn Tool>>> =
        vec![Some(Box::new(Mergelab)), boxed(Dvc::find()), boxed(Snakemake::find())];
    let names = ["mergelab", "DVC", "Snakemake"];
    let versions = tools.iter().zip(names).map(|(tool, name)| match tool {
        Some(tool) => format!("{name} {}", tool.version()),
        None => name.to_owned(),
    });
    let mut table = Table::new(versions);

    table.row(format!("{SETTLED} stages, all up to date"), "50 ms", |column| {
        tools[column]
            .as_deref()
            .map(|tool| settled(tool, &scratch.path().join(format!("settled-{column}"))))
            .transpose()
    })?;
    let program = bare::programs(&scratch.path().join("bare"), RUN)?;
    table.row("a stage that runs, over its program".to_owned(), "5 ms", |column| {
        let running = |tool| running(tool, &scratch.path().join(format!("running-{column}")), program.median());
        tools[column].as_deref().map(running).transpose()
    })?;
    table.row("`--version`".to_owned(), "20 ms", |column| {
        tools[column]
            .as_deref()
            .map(|tool| Times::of(|| timed(tool.version_command()).map(|(time, _)| time)))
            .transpose()
    })?;
    let fsyncs = bare::commits(&scratch.path().join("fsyncs"), RUN)?;
    table.print();
    println!(
        "\nFor comparison: starting a stage's program bare, {}; the fsyncs of a stage alone, {}.",
        table::cell(&program),
        table::cell(&fsyncs)
    );
    println!("Each figure: median of so many runs, and the lowest.");
    Ok(())
}

fn boxed(tool: Option<impl Tool + 'static>) -> Option<Box<dyn Tool>> {
    tool.map(|tool| Box::new(tool) as Box<dyn Tool>)
}

/// Runs in which nothing is to do.
fn settled(tool: &dyn Tool, project: &Path) -> Result<Times> {
    tools::lay_out(tool, project, SETTLED)?;
    tool.settle(project, SETTLED)?;
    Times::of(|| {
        let (time, output) = timed(tool.run(project))?;
        if !tool.is_idle(&output) {
            return Err(format!("{} did something where nothing was to do:\n{}", tool.version(), text(&output)).into());
        }
        Ok(time)
    })
}

/// Runs of every stage, one after another, in a project where nothing was run before.
fn running(tool: &dyn Tool, project: &Path, program: Duration) -> Result<Times> {
    let mut projects = (0..).map(|number| project.join(format!("{number}")));
    let times = Times::of(|| {
        // Nothing is deleted before the end: ext4 makes new files slowly for seconds after many were deleted.
        let project = &projects.next().ok_or("numbers do not end")?;
        tools::lay_out(tool, project, RUN)?;
        let (time, output) = timed(tool.run(project))?;
        if tool.is_idle(&output) {
            return Err(format!("{} did nothing:\n{}", tool.version(), text(&output)).into());
        }
        Ok(time)
    })?;
    Ok(times.per_item(RUN, program))
}

/// How long a command takes; it must succeed.
fn timed(mut command: Command) -> Result<(Duration, Output)> {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let time = started.elapsed();
    if output.status.success() {
        Ok((time, output))
    } else {
        Err(format!("{command:?} failed:\n{}", text(&output)).into())
    }
}

/// What a program printed.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
