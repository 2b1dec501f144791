//! How long big tables take: 100 models by 50 tasks with standard errors, made of what `results/` keeps, as in a fresh clone.
//! Whole commands, after one that does not count.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MODELS: usize = 100;
const TASKS: usize = 50;
const REPEATS: usize = 11;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    println!("| {MODELS} models × {TASKS} tasks | `mergelab render` | must |\n|---|---|---|");
    for (name, keys) in [("with ±", ""), ("tested against a baseline", "    baseline: m0\n")] {
        let project = scratch.path().join(if keys.is_empty() { "plain" } else { "tested" });
        lay_out(&project, keys)?;
        let made = times(&project, true)?;
        println!("| {name}, everything written | {} | 500 ms |", cell(&made));
        let same = times(&project, false)?;
        println!("| {name}, nothing changed | {} | 500 ms |", cell(&same));
    }
    Ok(())
}

/// A project whose table has a row for each model and a column for each task, with its figures.
fn lay_out(project: &Path, keys: &str) -> Result<()> {
    let mut experiment = "name: x\nmodels:\n".to_owned();
    for model in 0..MODELS {
        writeln!(experiment, "  m{model}: {{ hub: org/m{model} }}")?;
    }
    let list = |prefix: &str, count: usize| {
        (0..count).map(|number| format!("{prefix}{number}")).collect::<Vec<_>>().join(", ")
    };
    let (models, tasks) = (list("m", MODELS), list("t", TASKS));
    writeln!(experiment, "evals:\n  suite: {{ models: [{models}], backend: vllm, tasks: [{tasks}] }}")?;
    writeln!(experiment, "tables:\n  main:\n    rows: [{models}]\n    into: README.md\n{keys}    columns:")?;
    for task in 0..TASKS {
        writeln!(experiment, "      - {{ task: t{task}, metric: acc, label: \"Task {task}\" }}")?;
    }
    let mut results = "model,task,metric,filter,n_shot,value,stderr,n_samples,source,key\n".to_owned();
    let mut paired = "task,metric,filter,baseline,model,n,difference,stderr,test,p,baseline_key,key\n".to_owned();
    for model in 0..MODELS {
        for task in 0..TASKS {
            let value = 0.3 + 0.6 * ((model * 37 + task * 101) % 997) as f64 / 997.0;
            writeln!(results, "m{model},t{task},acc,none,5,{value},0.0125,1319,measured,k{model}-{task}")?;
        }
    }
    for task in 0..TASKS {
        for model in 1..MODELS {
            let p = (1 + (model * 13 + task * 7) % 100) as f64 / 100.0;
            writeln!(
                paired,
                "t{task},acc,none,m0,m{model},1319,0.01,0.012,mcnemar-exact,{p},k0-{task},k{model}-{task}"
            )?;
        }
    }
    fs::create_dir_all(project.join("results/x"))?;
    fs::write(project.join("mergelab.toml"), "")?;
    fs::write(project.join("x.yaml"), experiment)?;
    fs::write(project.join("README.md"), "<!-- mergelab:table main -->\n<!-- mergelab:end -->\n")?;
    fs::write(project.join("results/x/results.csv"), results)?;
    Ok(fs::write(project.join("results/x/paired.csv"), paired)?)
}

/// Times of a whole command, sorted; before each, what the last one wrote is taken away where it is to be `written` anew.
fn times(project: &Path, written: bool) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in 0..=REPEATS {
        if written {
            for file in ["table.md", "table.tex", "table.html", "table-main.csv"] {
                let _ = fs::remove_file(project.join("results/x").join(file));
            }
        }
        let started = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_mergelab"))
            .args(["render", "x.yaml"])
            .current_dir(project)
            .stdin(Stdio::null())
            .output()?;
        let time = started.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        let wrote = said.contains("new: results/x/table.md");
        if !output.status.success() || wrote != written {
            return Err(format!("`mergelab render`: {}\n{said}", output.status).into());
        }
        if number > 0 {
            times.push(time);
        }
    }
    times.sort();
    Ok(times)
}

/// The median, how many there are, and the lowest.
fn cell(times: &[Duration]) -> String {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let (median, lowest) = (milliseconds(times[times.len() / 2]), milliseconds(times[0]));
    format!("{median:.0} ms (of {}; {lowest:.0})", times.len())
}
