//! Whole runs with scripted programs in place of real ones.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mergelab_wire::Event;

use super::{Gpu, Ground, Machine, Options, Outcome, Report, Supervisor, Surveyor, Watcher, run};
use crate::experiment::parse;
use crate::plan::{Facts, Graph, StageId};
use crate::project::{Config, Project};
use crate::stage::{Context, Ending, Launcher, Program};
use crate::store::Store;

struct Scripted<F>(F);

impl<F: Fn(&Program<'_>) -> Ending + Sync> Launcher for Scripted<F> {
    fn run(&self, program: &Program<'_>, _: &mut dyn FnMut(Event)) -> io::Result<Ending> {
        Ok((self.0)(program))
    }
}

/// Nobody watches.
struct Nobody;

impl Watcher for Nobody {
    fn started(&mut self, _: &Graph, _: StageId) {}
    fn event(&mut self, _: &Graph, _: StageId, _: &Event) {}
    fn finished(&mut self, _: &Graph, _: StageId, _: &Outcome, _: f64) {}
    fn note(&mut self, _: &str) {}
}

/// Runs an experiment on a machine with GPUs of some names; gives what became of its stages, by name.
fn run_on(gpus: &[&str], experiment: &str, script: impl Fn(&Program<'_>) -> Ending + Sync) -> Vec<(String, Outcome)> {
    let gpus = gpus.iter().map(|&name| Gpu { name: name.to_owned(), memory: None }).collect();
    let machine = Machine { cores: 2, memory: 1 << 30, gpus, disk: 1 << 30 };
    run_in(&tempfile::tempdir().unwrap(), &machine, experiment, script)
}

/// As [`run_on`], in a directory and on a machine as they are.
fn run_in(
    dir: &tempfile::TempDir,
    machine: &Machine,
    experiment: &str,
    script: impl Fn(&Program<'_>) -> Ending + Sync,
) -> Vec<(String, Outcome)> {
    let loaded = parse(Path::new("x.yaml"), experiment).unwrap_or_else(|errors| panic!("{errors}"));
    let project = Project { root: dir.path().to_path_buf(), config: Config::default() };
    let graph = Graph::new(vec![Arc::new(loaded.experiment)]);
    let store = Store::open(&dir.path().join(".mergelab")).unwrap();
    let surveyor = Surveyor::new(&project, None, &store);
    let supervisor = Supervisor::new().unwrap();
    let launcher = Scripted(script);
    let context = Context {
        project: &project,
        python: None,
        tensor: Some("mergelab-tensor".into()),
        launcher: &launcher,
        graph: &graph,
        threads: 1,
        memory: None,
    };
    let ground = Ground { context, store: &store, surveyor: &surveyor, supervisor: &supervisor, machine };
    let options = Options {
        jobs: 4,
        memory: machine.memory,
        keep_going: true,
        force: Vec::new(),
        wanted: vec![true; graph.stages.len()],
    };
    let (Report { outcomes, .. }, _) = run(ground, &options, Facts::default(), &mut Nobody, &|_| ()).unwrap();
    outcomes.into_iter().map(|(id, outcome)| (graph.stage(id).name.clone(), outcome)).collect()
}

/// What a program is told of GPUs.
fn visible(program: &Program<'_>) -> Option<String> {
    let variable = program.environment.iter().find(|(name, _)| name == "CUDA_VISIBLE_DEVICES")?;
    Some(variable.1.to_str().unwrap().to_owned())
}

/// Writes the result of a command whose last argument is `{out}`.
fn succeed(program: &Program<'_>) -> Ending {
    std::fs::write(Path::new(program.arguments.last().unwrap()).join("result"), "x").unwrap();
    Ending::Code(0)
}

#[test]
fn a_panic_fails_its_stage_as_a_defect_of_ours_and_the_run_goes_on() {
    let experiment = r#"name: x
commands:
  bad: { run: [bad, "{out}"] }
  good: { run: [good, "{out}"] }
  after: { run: [good, "{inputs.bad}", "{out}"], inputs: { bad: { from: commands.bad } } }
"#;
    let outcomes = run_on(&[], experiment, |program| {
        assert!(program.program != "bad", "seven is not even");
        succeed(program)
    });
    let of = |name: &str| &outcomes.iter().find(|(stage, _)| stage == name).unwrap().1;
    let Outcome::Failed(failure) = of("commands.bad") else { panic!("{:?}", of("commands.bad")) };
    assert_eq!(failure.message, "mergelab itself failed: seven is not even");
    assert!(failure.hint.as_ref().unwrap().contains("a defect of mergelab"));
    assert!(matches!(of("commands.good"), Outcome::Ran(_)));
    assert!(matches!(of("commands.after"), Outcome::Blocked(_)));
}

#[test]
fn programs_side_by_side_see_different_gpus() {
    let experiment = r#"name: x
commands:
  a: { run: [tool, a, "{out}"] }
  b: { run: [tool, b, "{out}"] }
  c: { run: [tool, c, "{out}"] }
  d: { run: [tool, d, "{out}"] }
"#;
    let (busy, used) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let outcomes = run_on(&["3", "GPU-b"], experiment, |program| {
        let gpu = visible(program).unwrap();
        {
            let mut busy = busy.lock().unwrap();
            assert!(!busy.contains(&gpu), "{gpu} is given to two at once");
            busy.push(gpu.clone());
        }
        std::thread::sleep(Duration::from_millis(50));
        busy.lock().unwrap().retain(|other| *other != gpu);
        used.lock().unwrap().push(gpu);
        succeed(program)
    });
    assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Ran(_))), "{outcomes:?}");
    let mut used = used.into_inner().unwrap();
    used.sort();
    assert_eq!(used, ["3", "3", "GPU-b", "GPU-b"]);
}

#[test]
fn a_program_is_told_of_gpus_only_where_it_takes_some() {
    let experiment = "name: x\ncommands: { a: { run: [tool, '{out}'] } }\n";
    let on_cpu = format!("{experiment}settings: {{ device: cpu }}\n");
    let named = format!("{experiment}settings: {{ device: 'cuda:1' }}\n");
    for (gpus, experiment, expected) in [
        (&[][..], experiment, None),
        (&["0", "1"], &on_cpu, None),
        (&["4", "5"], &named, Some("5")),
        (&["4"], &named, None),
    ] {
        let outcomes = run_on(gpus, experiment, |program| {
            assert_eq!(visible(program).as_deref(), expected);
            succeed(program)
        });
        assert!(matches!(outcomes[0].1, Outcome::Ran(_)), "{outcomes:?}");
    }
}

/// A sweep of `count` merges that keep their recipe, each read by an evaluation.
fn sweep(count: usize) -> String {
    let merges: Vec<_> = (0..count).map(|index| format!("m{index}")).collect();
    let entry = |name: &String| {
        let weight = name.trim_start_matches('m');
        format!("  {name}: {{ method: average, keep: recipe, models: [{{ model: a, weight: 1{weight} }}, b] }}\n")
    };
    format!(
        "name: x\nmodels: {{ a: {{ path: a }}, b: {{ path: a }} }}\nmerges:\n{}evals:\n  suite:\n    models: [{}]\n    backend: command\n    \
         run: [score, \"{{model}}\", \"{{out}}\"]\n",
        merges.iter().map(entry).collect::<Vec<_>>().concat(),
        merges.join(", ")
    )
}

/// A project with the model of a sweep, whose weights have so many bytes.
fn with_model(bytes: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("a")).unwrap();
    for (name, text) in [("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors", &"w".repeat(bytes))] {
        std::fs::write(dir.path().join("a").join(name), text).unwrap();
    }
    dir
}

/// How many weights of merges lie below a directory, those that are being made included.
fn weights_below(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let count = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => weights_below(&entry.path()),
        _ => usize::from(entry.file_name() == "model.safetensors"),
    };
    entries.map(count).sum()
}

#[test]
fn a_sweep_of_twenty_merges_fits_on_a_disk_with_room_for_three() {
    const BYTES: usize = 10_000;
    let dir = with_model(BYTES);
    let machine = Machine { cores: 4, memory: 1 << 40, gpus: Vec::new(), disk: (3 * BYTES + BYTES / 2) as u64 };
    let most = Mutex::new(0);
    let store = dir.path().join(".mergelab");
    let outcomes = run_in(&dir, &machine, &sweep(20), |program| {
        if program.program == "score" {
            std::thread::sleep(Duration::from_millis(5));
            let model = Path::new(&program.arguments[0]);
            assert!(model.join("model.safetensors").exists(), "what it reads is there");
            let out = Path::new(&program.arguments[1]).join("metrics.json");
            std::fs::write(out, r#"[{"metric": "m", "filter": "", "value": 1, "stderr": null, "n_samples": 1, "higher_is_better": true}]"#).unwrap();
            return Ending::Code(0);
        }
        let file = mergelab_wire::StageFile::read(Path::new(&program.arguments[0])).unwrap();
        let mergelab_wire::Job::Merge(job) = &file.job else { panic!("{:?}", file.job) };
        for name in ["config.json", "tokenizer.json"] {
            std::fs::write(file.out.join(name), "{}").unwrap();
        }
        let weights = format!("{:0BYTES$}", job.models[0].weight);
        std::fs::write(file.out.join("model.safetensors"), weights).unwrap();
        let mut most = most.lock().unwrap();
        *most = weights_below(&store).max(*most);
        Ending::Code(0)
    });
    for (name, outcome) in outcomes.iter().filter(|(name, _)| !name.starts_with("models.")) {
        assert!(matches!(outcome, Outcome::Ran(_)), "{name}: {outcome:?}");
    }
    let most = most.into_inner().unwrap();
    assert!((2..=3).contains(&most), "{most} at once");
    assert_eq!(weights_below(&store), 0);
}
