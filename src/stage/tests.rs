//! Stages that start programs, with a scripted one in place of a real one.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mergelab_wire::{Event, Fault};
use serde_json::{Value, json};

use super::{Context, Ending, Failure, Job, Launcher, Product, Program, group_of, run, run_batch};
use crate::digest::{Digest, Key};
use crate::experiment::parse;
use crate::plan::{Artifact, Graph, StageId};
use crate::project::{Config, Project, Python};

const EXPERIMENT: &str = r#"name: x
models: { a: { path: models/a }, b: { path: models/b } }
data: { d: { path: rows.jsonl, text: "{{ t }}" } }
grams:
  auto: { model: a, data: d, exclude: ["*.mlp.*"], dtype: float32 }
  native: { model: a, data: d, engine: native }
commands:
  c:
    run: [tool, "--out={out}", "{inputs.model}", "{inputs.text}", "{{}}"]
    inputs: { model: { from: models.a }, text: notes/text.txt }
    env: { WORD: two words }
    timeout: 1.5
merges:
  avg: { method: average, models: [a, { model: b, weight: [0.5, 0.75] }] }
evals:
  suite:
    models: [a, b]
    backend: hf
    task_dirs: [tasks]
    model_args: { dtype: float32, batch_size: 4 }
    tasks: [add, { task: reverse, num_fewshot: 2, seed: 7, data: data/r.jsonl }]
  gpu: { models: [a, b], backend: vllm, tasks: [gsm8k, mbpp] }
settings: { seed: 3, device: cpu }
"#;

/// What a scripted program does: it may look at how it is started, write files and say something.
type Script<'a> = dyn Fn(&Program<'_>, &mut dyn FnMut(Event)) -> io::Result<Ending> + Sync + 'a;

struct Scripted<'a>(&'a Script<'a>);

impl Launcher for Scripted<'_> {
    fn run(&self, program: &Program<'_>, on_event: &mut dyn FnMut(Event)) -> io::Result<Ending> {
        (self.0)(program, on_event)
    }
}

/// A project on disk with its graph, and a directory for each stage.
struct Bench {
    dir: tempfile::TempDir,
    project: Project,
    graph: Graph,
    python: Option<Python>,
    tensor: Option<PathBuf>,
    lock: File,
}

impl Bench {
    fn new() -> Self {
        Self::of(EXPERIMENT)
    }

    fn of(experiment: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let loaded = parse(Path::new("x.yaml"), experiment).unwrap_or_else(|errors| panic!("{errors}"));
        let python = Python { executable: "/env/bin/python".into(), prefix: "/env".into() };
        Self {
            project: Project { root: dir.path().to_path_buf(), config: Config::default() },
            graph: Graph::new(vec![Arc::new(loaded.experiment)]),
            python: Some(python),
            tensor: Some("/bin/mergelab-tensor".into()),
            lock: tempfile::tempfile().unwrap(),
            dir,
        }
    }

    fn context<'a>(&'a self, launcher: &'a Scripted<'a>) -> Context<'a> {
        Context {
            project: &self.project,
            python: self.python.as_ref(),
            tensor: self.tensor.clone(),
            launcher,
            graph: &self.graph,
            threads: 2,
            memory: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn job(&self, id: StageId) -> Job<'_> {
        let stage = self.graph.stage(id);
        let work = self.path(&format!("work/{}", id.0));
        std::fs::create_dir_all(work.join("out")).unwrap();
        let inputs = stage.needs.iter().map(|need| {
            let name = &self.graph.stage(need.stage).name;
            let roles = BTreeMap::from([("weights".to_owned(), Digest::of(name.as_bytes()))]);
            let (digest, location) = (Digest::of(name.as_bytes()), self.path("artifacts").join(name));
            (
                need.role.clone(),
                Arc::new(Artifact {
                    digest,
                    roles,
                    outputs: Vec::new(),
                    location,
                    family: Some("gpt2".to_owned()),
                    shards: BTreeMap::new(),
                }),
            )
        });
        Job {
            id,
            stage,
            key: Key(Digest::of(stage.name.as_bytes())),
            inputs: inputs.collect::<HashMap<_, _>>(),
            files: Vec::new(),
            commit: None,
            conversion: None,
            out: work.join("out"),
            scratch: work.clone(),
            partial: work.join("partial"),
            log: work.join("log"),
            lock: &self.lock,
            gpus: Vec::new(),
        }
    }

    /// Jobs of all stages under a name.
    fn jobs(&self, name: &str) -> Vec<Job<'_>> {
        self.graph.find(name).unwrap().into_iter().map(|id| self.job(id)).collect()
    }

    /// Runs the one stage of a name.
    fn run(&self, name: &str, script: &Script<'_>) -> Result<Product, Failure> {
        let launcher = Scripted(script);
        run(&self.context(&launcher), &self.jobs(name)[0], &mut |_| ())
    }

    /// Runs a batch of evaluations and gives what became of each, in the order in which it was said.
    fn run_batch(&self, name: &str, script: &Script<'_>) -> Vec<(usize, Result<Product, Failure>)> {
        let launcher = Scripted(script);
        let done = RefCell::new(Vec::new());
        run_batch(&self.context(&launcher), &self.jobs(name), &mut |_| (), &mut |item, result| {
            done.borrow_mut().push((item, result));
        });
        done.into_inner()
    }
}

/// The job file that the driver is started with.
fn job_of(program: &Program<'_>) -> Value {
    serde_json::from_slice(&std::fs::read(program.arguments.last().unwrap()).unwrap()).unwrap()
}

/// What the driver does for one item: a result, and word of it.
fn finish(program: &Program<'_>, item: usize, on_event: &mut dyn FnMut(Event)) {
    let dir = PathBuf::from(job_of(program)["out"].as_str().unwrap()).join(item.to_string());
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("metrics.json"), format!("[{{\"metric\": \"acc\", \"value\": 0.{item}}}]")).unwrap();
    on_event(Event::Item { item });
}

#[test]
fn a_driver_that_dies_keeps_what_it_finished_and_the_rest_fails_with_its_last_lines_and_the_log() {
    let bench = Bench::new();
    let done = bench.run_batch("evals.suite", &|program, on_event| {
        std::fs::write(&program.log, "loading\n\nKilled by the weather\n").unwrap();
        finish(program, 1, on_event);
        Ok(Ending::Code(3))
    });
    assert_eq!(done.iter().map(|(item, _)| *item).collect::<Vec<_>>(), [1, 0, 2, 3]);
    assert!(done[0].1.as_ref().unwrap().logged);
    let log = bench.jobs("evals.suite")[0].log.clone();
    for (_, result) in &done[1..] {
        let failure = result.as_ref().unwrap_err();
        let expected = "lm_eval ended with exit code 3; its last lines:\n  loading\n  Killed by the weather";
        assert_eq!((failure.message.as_str(), failure.fault), (expected, Fault::Stage));
        assert_eq!(failure.log.as_ref(), Some(&log));
    }
    let kept = std::fs::read_to_string(bench.jobs("evals.suite")[1].out.join("metrics.json")).unwrap();
    assert_eq!(kept, r#"[{"metric": "acc", "value": 0.1}]"#);
}

#[test]
fn a_task_that_fails_leaves_the_others_alone() {
    let bench = Bench::new();
    let done = bench.run_batch("evals.suite", &|program, on_event| {
        on_event(Event::ItemFailed { item: 0, message: "no test split".into(), fault: Fault::Experiment });
        (1..4).for_each(|item| finish(program, item, on_event));
        Ok(Ending::Code(0))
    });
    assert_eq!(done.len(), 4);
    let failure = done[0].1.as_ref().unwrap_err();
    assert_eq!((failure.message.as_str(), failure.fault), ("no test split", Fault::Experiment));
    assert!(failure.log.is_some());
    assert!(done[1..].iter().all(|(_, result)| result.is_ok()));
}

#[test]
fn a_result_that_tripped_is_kept_with_what_was_known_of_its_run_and_comes_back_when_it_is_accepted() {
    let bench = Bench::new();
    let facts = |device: &str| Event::Facts { facts: json!({ "device": device }).as_object().unwrap().clone() };
    let done = bench.run_batch("evals.suite", &|program, on_event| {
        assert_eq!(job_of(program)["models"][0]["tasks"][0]["kept"], json!(null));
        on_event(facts("the first"));
        let dir = PathBuf::from(job_of(program)["out"].as_str().unwrap()).join("0");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("warnings.json"), "[]").unwrap();
        on_event(Event::ItemFailed { item: 0, message: "9 of 9 are cut".into(), fault: Fault::Stage });
        (1..4).for_each(|item| finish(program, item, on_event));
        Ok(Ending::Code(1))
    });
    let kept = bench.jobs("evals.suite")[0].partial.join("evaluation");
    let failure = done[0].1.as_ref().unwrap_err();
    assert!(failure.hint.as_ref().unwrap().contains(&kept.display().to_string()), "{failure:?}");
    assert!(kept.join("warnings.json").is_file());

    let done = bench.run_batch("evals.suite", &|program, on_event| {
        let tasks = &job_of(program)["models"][0]["tasks"];
        assert_eq!((&tasks[0]["kept"], &tasks[1]["kept"]), (&json!(kept), &json!(null)));
        on_event(facts("the second"));
        std::fs::remove_dir_all(job_of(program)["out"].as_str().unwrap()).unwrap();
        std::fs::create_dir(job_of(program)["out"].as_str().unwrap()).unwrap();
        (0..4).for_each(|item| finish(program, item, on_event));
        Ok(Ending::Code(0))
    });
    let device = |item: usize| done[item].1.as_ref().unwrap().facts["device"].clone();
    assert_eq!((device(0), device(1)), (json!("the first"), json!("the second")));
}

#[test]
fn the_driver_is_told_which_figures_tables_ask_for() {
    let columns = "[{ task: add, metric: acc, filter: none }, { task: add, metric: em }]";
    let bench = Bench::of(&format!("{EXPERIMENT}tables: {{ t: {{ rows: [a], columns: {columns} }} }}\n"));
    bench.run_batch("evals.suite", &|program, _| {
        let tasks = &job_of(program)["models"][0]["tasks"];
        let expected = json!([{ "metric": "acc", "filter": "none" }, { "metric": "em", "filter": null }]);
        assert_eq!((&tasks[0]["wanted"], &tasks[1]["wanted"]), (&expected, &json!([])));
        Ok(Ending::Code(1))
    });
}

#[test]
fn an_evaluation_remembers_what_the_driver_said_of_itself_before_it() {
    let bench = Bench::new();
    let done = bench.run_batch("evals.suite", &|program, on_event| {
        let facts = |facts: Value| Event::Facts { facts: facts.as_object().unwrap().clone() };
        on_event(facts(json!({ "device": "cpu", "peak_memory": 7 })));
        finish(program, 0, on_event);
        on_event(facts(json!({ "peak_memory": 9 })));
        (1..4).for_each(|item| finish(program, item, on_event));
        Ok(Ending::Code(0))
    });
    let fact = |item: usize, name: &str| done[item].1.as_ref().unwrap().facts[name].clone();
    assert_eq!((fact(0, "device"), fact(0, "peak_memory")), (json!("cpu"), json!(7)));
    assert_eq!((fact(3, "device"), fact(3, "peak_memory")), (json!("cpu"), json!(9)));
}

#[test]
fn an_evaluation_remembers_its_command_with_real_paths_and_the_driver_writes_it_without() {
    let bench = Bench::new();
    let written = Mutex::new((Value::Null, String::new()));
    let done = bench.run_batch("evals.suite", &|program, on_event| {
        *written.lock().unwrap() = (job_of(program), std::fs::read_to_string(&program.log).unwrap());
        (0..4).for_each(|item| finish(program, item, on_event));
        Ok(Ending::Code(0))
    });
    let (job, log) = written.into_inner().unwrap();
    let task = &job["models"][1]["tasks"][1];
    assert_eq!(
        task["command"],
        "lm_eval run --model hf --model_args pretrained=MODEL,add_bos_token=false,dtype=float32 --tasks TASK_FILE \
         --include_path TASK_DIR --num_fewshot 2 --seed 7 --log_samples --output_path OUT"
    );
    let command = done[3].1.as_ref().unwrap().facts["command"].as_str().unwrap();
    let model = bench.path("artifacts/models.b").display().to_string();
    assert!(command.starts_with("/env/bin/python -m lm_eval run --model hf --model_args pretrained="), "{command}");
    assert!(command.contains(&model) && command.contains("--device cpu --batch_size 4"), "{command}");
    assert_eq!(log.lines().count(), 4);
    assert_eq!(log.lines().nth(3), Some(&*format!("$ {command}  # evals.suite/b/reverse")));
}

#[test]
fn the_driver_understands_the_version_in_which_jobs_are_written() {
    let reader = include_str!("../../lm-eval-harness/harness/job.py");
    assert!(reader.contains(&format!("\nWIRE = {}\n", mergelab_wire::VERSION)));
}

#[test]
fn a_task_that_runs_out_of_memory_says_what_to_set() {
    let bench = Bench::new();
    let failed = |name: &str, message: &str| {
        let done = bench.run_batch(name, &|_, on_event| {
            on_event(Event::ItemFailed { item: 0, message: message.to_owned(), fault: Fault::Stage });
            Ok(Ending::Code(1))
        });
        done[0].1.as_ref().unwrap_err().hint.clone().unwrap_or_default()
    };
    let hint = failed("evals.suite", "add on a: OutOfMemoryError: CUDA out of memory");
    assert!(hint.contains("smaller `batch_size`"), "{hint}");
    let hint = failed("evals.gpu/a", "gsm8k on a: ValueError: No available memory for the cache blocks.");
    assert!(hint.contains("`gpu_memory_utilization`"), "{hint}");
    assert_eq!(failed("evals.suite", "add on a: KeyError: 'answer'"), "");
}

#[test]
fn a_driver_that_is_killed_or_hangs_says_what_to_do_for_all_that_it_leaves() {
    for (ending, message, hint) in [
        (Ending::Code(137), "lm_eval was killed (SIGKILL): out of memory, perhaps", "no more memory"),
        (Ending::Stalled(Duration::from_mins(1)), "lm_eval showed no sign of progress for 60 s", "`stalled_after`"),
    ] {
        let bench = Bench::new();
        let done = bench.run_batch("evals.suite", &|program, on_event| {
            assert_eq!(program.stalled_after, Some(Duration::from_hours(1)));
            finish(program, 0, on_event);
            Ok(ending)
        });
        assert!(done[0].1.is_ok());
        for (_, result) in &done[1..] {
            let failure = result.as_ref().unwrap_err();
            assert!(failure.message.starts_with(message), "{}", failure.message);
            assert!(failure.hint.as_ref().unwrap().contains(hint), "{:?}", failure.hint);
        }
    }
}

#[test]
fn a_driver_that_gives_up_is_quoted_with_the_last_lines_of_its_log() {
    let bench = Bench::new();
    let done = bench.run_batch("evals.suite", &|program, on_event| {
        std::fs::write(&program.log, "Traceback\n").unwrap();
        let (message, hint) = ("lm_eval cannot be imported".to_owned(), Some("`make setup` installs it".to_owned()));
        on_event(Event::Error { message, hint, fault: Fault::Stage });
        Ok(Ending::Code(1))
    });
    for (_, result) in &done {
        let failure = result.as_ref().unwrap_err();
        assert_eq!(failure.message, "lm_eval cannot be imported; its last lines:\n  Traceback");
        assert_eq!(failure.hint.as_deref(), Some("`make setup` installs it"));
    }
}

#[test]
fn a_task_of_which_the_driver_says_nothing_has_failed() {
    let bench = Bench::new();
    let done = bench.run_batch("evals.suite", &|program, on_event| {
        finish(program, 0, on_event);
        Ok(Ending::Code(0))
    });
    assert!(done[0].1.is_ok());
    let messages: Vec<_> = done[1..].iter().map(|(_, result)| result.as_ref().unwrap_err().message.as_str()).collect();
    assert_eq!(messages, ["lm_eval ended without a result for this task"; 3]);
}

#[test]
fn what_a_driver_says_twice_or_of_a_task_that_is_not_there_counts_once_or_not_at_all() {
    let bench = Bench::new();
    let done = bench.run_batch("evals.suite", &|program, on_event| {
        (0..4).for_each(|item| finish(program, item, on_event));
        on_event(Event::ItemFailed { item: 2, message: "after all".into(), fault: Fault::Stage });
        on_event(Event::Item { item: 99 });
        Ok(Ending::Code(0))
    });
    assert_eq!(
        done.iter().map(|(item, result)| (*item, result.is_ok())).collect::<Vec<_>>(),
        [(0, true), (1, true), (2, true), (3, true)]
    );
}

#[test]
fn a_finished_task_without_a_result_has_failed() {
    let bench = Bench::new();
    let done = bench.run_batch("evals.suite", &|_, on_event| {
        on_event(Event::Item { item: 0 });
        Ok(Ending::Code(0))
    });
    let message = &done[0].1.as_ref().unwrap_err().message;
    assert!(message.starts_with("lm_eval left no result in "), "{message}");
}

#[test]
fn an_interrupted_driver_fails_nobody_but_by_the_interrupt() {
    let bench = Bench::new();
    let done = bench.run_batch("evals.suite", &|program, on_event| {
        finish(program, 0, on_event);
        Ok(Ending::Interrupted)
    });
    assert!(done[0].1.is_ok());
    assert!(done[1..].iter().all(|(_, result)| result.as_ref().unwrap_err().interrupted));
}

#[test]
fn without_python_every_evaluation_says_how_to_get_one() {
    let bench = Bench { python: None, ..Bench::new() };
    let done = bench.run_batch("evals.suite", &|_, _| panic!("nothing can be started"));
    assert_eq!(done.len(), 4);
    for (_, result) in &done {
        let failure = result.as_ref().unwrap_err();
        assert_eq!(failure.message, "no Python for evaluations");
        assert!(failure.hint.as_ref().unwrap().contains("`[python] path` in mergelab.toml"));
    }
}

#[test]
fn evaluations_of_a_suite_go_together_and_with_vllm_those_of_a_model() {
    let bench = Bench::new();
    let group = |name: &str| group_of(bench.graph.stage(bench.graph.find(name).unwrap()[0]));
    assert_eq!(group("evals.suite/a/add"), group("evals.suite/b/reverse"));
    assert_eq!(group("evals.gpu/a/gsm8k"), group("evals.gpu/a/mbpp"));
    assert_ne!(group("evals.gpu/a/gsm8k"), group("evals.gpu/b/gsm8k"));
    assert_ne!(group("evals.suite/a/add"), group("evals.gpu/a/gsm8k"));
    assert_eq!(group("merges.avg"), None);
}

#[test]
fn the_driver_is_told_of_each_model_once_with_its_tasks() {
    let bench = Bench::new();
    let seen = Mutex::new(Value::Null);
    bench.run_batch("evals.suite", &|program, _| {
        assert_eq!(program.program, "/env/bin/python");
        assert_eq!(program.directory, bench.dir.path());
        assert_eq!(program.unset, ["PYTHONPATH", "PYTHONHOME"]);
        assert_eq!(program.locks.len(), 4, "the driver holds the lock of each evaluation");
        *seen.lock().unwrap() = job_of(program);
        Ok(Ending::Code(0))
    });
    let job = seen.into_inner().unwrap();
    assert_eq!((&job["backend"], &job["device"], &job["threads"]), (&json!("hf"), &json!("cpu"), &json!(2)));
    assert_eq!((&job["unsafe_code"], &job["task_dirs"]), (&json!("refuse"), &json!([bench.path("tasks")])));
    let models = job["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    for (model, name) in models.iter().zip(["a", "b"]) {
        assert_eq!(model["name"], name);
        assert_eq!(model["path"], json!(bench.path(&format!("artifacts/models.{name}"))));
        assert_eq!(model["model_args"], json!({ "add_bos_token": false, "dtype": "float32" }));
        assert_eq!(model["speed_args"], json!({ "batch_size": 4 }));
    }
    let tasks = |model: usize, field: &str| {
        models[model]["tasks"].as_array().unwrap().iter().map(|task| task[field].clone()).collect::<Vec<_>>()
    };
    assert_eq!((tasks(0, "item"), tasks(1, "item")), (vec![json!(0), json!(1)], vec![json!(2), json!(3)]));
    assert_eq!(tasks(1, "task"), ["add", "reverse"]);
    assert_eq!(tasks(1, "num_fewshot"), [Value::Null, json!(2)]);
    // The experiment's seed where the task has none of its own.
    assert_eq!(tasks(1, "seed"), [3, 7]);
    assert_eq!(tasks(1, "data"), [Value::Null, json!(bench.path("data/r.jsonl"))]);
}

#[test]
fn what_a_merge_says_of_one_model_goes_with_that_model() {
    let merge = "ties: { method: ties, base: b, density: 0.5, models: [{ model: a, weight: [{ filter: mlp, value: 2 }], \
                 density: 0.25 }] }";
    let bench = Bench::of(&EXPERIMENT.replace("merges:\n", &format!("merges:\n  {merge}\n")));
    let product = bench.run("merges.ties", &|program, _| {
        let file = mergelab_wire::StageFile::read(Path::new(&program.arguments[0])).unwrap();
        let mergelab_wire::Job::Merge(job) = file.job else { panic!("not a merge") };
        assert_eq!(job.models[0].weight.of("mlp"), [2.0]);
        assert_eq!(json!(job.models[0].params), json!({ "density": 0.25 }));
        assert_eq!(json!(job.params), json!({ "density": 0.5 }));
        assert!(job.base.unwrap().params.is_empty());
        assert!(job.card.contains("| a | {mlp: [2.0]}, density = 0.25 | "), "{}", job.card);
        Ok(Ending::Code(0))
    });
    assert!(product.is_ok());
}

#[test]
fn a_merge_is_a_stage_file_for_the_tensor_program_and_its_figures_come_back() {
    let bench = Bench::new();
    let product = bench.run("merges.avg", &|program, on_event| {
        assert_eq!(program.program, "/bin/mergelab-tensor");
        let file = mergelab_wire::StageFile::read(Path::new(&program.arguments[0])).unwrap();
        assert_eq!((file.stage.as_str(), file.device.as_str(), file.threads), ("merges.avg", "cpu", 2));
        assert_eq!(Some(file.events), program.events);
        let mergelab_wire::Job::Merge(job) = file.job else { panic!("not a merge") };
        let models: Vec<_> = job.models.iter().map(|model| (model.name.as_str(), model.weight.clone())).collect();
        assert_eq!(models, [("a", 1.0.into()), ("b", mergelab_wire::Weight::Gradient(vec![0.5, 0.75]))]);
        assert_eq!(job.models[1].path, bench.path("artifacts/models.b"));
        assert_eq!(job.tokenizer, bench.path("artifacts/models.a"));
        let digest = Digest::of(b"models.b").to_string();
        assert!(job.card.contains(&format!("| b | [0.5, 0.75] | `{digest}` |")), "{}", job.card);
        let facts = json!({ "device": "cpu", "peak_memory": 7 });
        on_event(Event::Facts { facts: facts.as_object().unwrap().clone() });
        Ok(Ending::Code(0))
    });
    let product = product.unwrap();
    assert_eq!(Value::from(product.facts), json!({ "device": "cpu", "peak_memory": 7 }));
    assert!(product.logged);
}

#[test]
fn a_loss_is_a_stage_file_with_its_rows_and_what_it_is_held_against() {
    let bench = Bench::of(
        r#"name: x
models: { a: { path: models/a }, b: { path: models/b } }
data: { d: { path: rows.jsonl, text: "{{ t }}", strict: true } }
merges: { avg: { method: average, models: [a, b] } }
evals:
  held: { models: [avg], backend: loss, data: [d], max_length: 9, add_special_tokens: false, dtype: float32, chat_template: t.jinja }
settings: { device: cpu }
"#,
    );
    let product = bench.run("evals.held/avg/d", &|program, on_event| {
        assert_eq!((program.program.to_str(), program.locks.len()), (Some("/bin/mergelab-tensor"), 1));
        let file = mergelab_wire::StageFile::read(Path::new(&program.arguments[0])).unwrap();
        assert_eq!((file.stage.as_str(), file.device.as_str()), ("evals.held/avg/d", "cpu"));
        let mergelab_wire::Job::Loss(job) = file.job else { panic!("not a loss") };
        let capture = job.capture;
        assert_eq!(capture.model, bench.path("artifacts/merges.avg"));
        assert_eq!(capture.data, bench.path("artifacts/data.d/rows.jsonl"));
        assert_eq!(capture.shown.as_deref(), Some(Path::new("rows.jsonl")));
        assert_eq!((capture.max_length, capture.add_special_tokens, capture.strict), (Some(9), false, true));
        assert_eq!((capture.dtype.as_deref(), capture.skip_first), (Some("float32"), 0));
        assert_eq!(capture.chat_template, Some(bench.path("t.jinja")));
        let sources: Vec<_> = job.sources.into_iter().map(|source| (source.name, source.path)).collect();
        let expected = ["a", "b"].map(|name| (name.to_owned(), bench.path(&format!("artifacts/models.{name}"))));
        assert_eq!(sources, expected);
        on_event(Event::Facts { facts: json!({ "rows": 3 }).as_object().unwrap().clone() });
        Ok(Ending::Code(0))
    });
    assert_eq!(Value::from(product.unwrap().facts), json!({ "rows": 3 }));
}

#[test]
fn a_model_without_a_native_forward_pass_is_captured_by_two_programs_one_after_the_other() {
    let bench = Bench::new();
    let (started, notes) = (Mutex::new(0), RefCell::new(Vec::new()));
    let script = |program: &Program<'_>, on_event: &mut dyn FnMut(Event)| {
        let mut started = started.lock().unwrap();
        *started += 1;
        let facts = |facts: Value| Event::Facts { facts: facts.as_object().unwrap().clone() };
        if *started == 1 {
            let file = mergelab_wire::StageFile::read(Path::new(&program.arguments[0])).unwrap();
            let mergelab_wire::Job::Tokens(job) = file.job else { panic!("not for the text") };
            assert_eq!((job.model, file.device.as_str()), (bench.path("artifacts/models.a"), "cpu"));
            std::fs::write(file.out.join("sequences.jsonl"), "").unwrap();
            on_event(facts(json!({ "rows": 3, "peak_memory": 7 })));
        } else {
            assert_eq!(program.program, "/env/bin/python");
            let job = job_of(program);
            assert!(Path::new(job["sequences"].as_str().unwrap()).is_file());
            assert_eq!((&job["exclude"], &job["dtype"]), (&json!([r"^.*\.mlp\..*$"]), &json!("float32")));
            assert_eq!(job["out"], json!(bench.jobs("grams.auto")[0].out));
            let beside = Path::new(&program.arguments[1]).parent().unwrap();
            assert!(["layers.py", "record.py"].iter().all(|name| beside.join(name).is_file()));
            on_event(facts(json!({ "engine": "transformers", "peak_memory": 9 })));
        }
        assert_eq!(program.locks.len(), 1);
        Ok(Ending::Code(0))
    };
    let product = run(&bench.context(&Scripted(&script)), &bench.jobs("grams.auto")[0], &mut |event| {
        if let Event::Note { message } = event {
            notes.borrow_mut().push(message);
        }
    });
    let expected = json!({ "rows": 3, "peak_memory": 9, "engine": "transformers" });
    assert_eq!(Value::from(product.unwrap().facts), expected);
    let note = "no native forward pass for model_type \"gpt2\": captured by `engine: transformers`";
    assert_eq!(notes.into_inner(), [note]);
}

#[test]
fn an_engine_that_is_stated_is_the_one_that_runs() {
    let bench = Bench::new();
    let script = |program: &Program<'_>, _: &mut dyn FnMut(Event)| {
        let file = mergelab_wire::StageFile::read(Path::new(&program.arguments[0])).unwrap();
        assert!(matches!(file.job, mergelab_wire::Job::Gram(_)));
        Ok(Ending::Code(0))
    };
    bench.run("grams.native", &script).unwrap();
    let bench = Bench { python: None, ..Bench::new() };
    let failure = bench.run("grams.auto", &|_, _| panic!("nothing can be started")).unwrap_err();
    assert_eq!((failure.message.as_str(), failure.fault), ("no Python for `engine: transformers`", Fault::Stage));
}

#[test]
fn a_program_sees_the_gpus_that_it_was_given_and_counts_them_from_0() {
    let bench = Bench::of(&EXPERIMENT.replace("device: cpu", "device: cuda:5"));
    let device_of = |gpus: &[&str], expected: Option<&str>| {
        let device = Mutex::new(String::new());
        let script = |program: &Program<'_>, _: &mut dyn FnMut(Event)| {
            let variable = program.environment.iter().find(|(name, _)| name == "CUDA_VISIBLE_DEVICES");
            assert_eq!(variable.map(|(_, value)| value.to_str().unwrap()), expected);
            let file = mergelab_wire::StageFile::read(Path::new(&program.arguments[0])).unwrap();
            *device.lock().unwrap() = file.device;
            Ok(Ending::Code(0))
        };
        let mut job = bench.jobs("merges.avg").remove(0);
        job.gpus = gpus.iter().map(|&gpu| gpu.to_owned()).collect();
        run(&bench.context(&Scripted(&script)), &job, &mut |_| ()).unwrap();
        device.into_inner().unwrap()
    };
    assert_eq!(device_of(&["GPU-a"], Some("GPU-a")), "cuda");
    assert_eq!(device_of(&[], None), "cuda:5");
}

#[test]
fn what_the_tensor_program_finds_wrong_with_the_experiment_is_the_experiments_fault() {
    let failure = Bench::new().run("merges.avg", &|_, on_event| {
        let message = "q_proj.weight: [8, 8] in a, [8, 4] in b".to_owned();
        on_event(Event::Error { message, hint: Some("merge models of one shape".into()), fault: Fault::Experiment });
        Ok(Ending::Code(1))
    });
    let failure = failure.unwrap_err();
    assert_eq!(failure.message, "q_proj.weight: [8, 8] in a, [8, 4] in b");
    assert_eq!((failure.hint.as_deref(), failure.fault), (Some("merge models of one shape"), Fault::Experiment));
    assert!(failure.log.is_some());
}

#[test]
fn a_tensor_program_that_is_killed_is_said_to_have_been_whatever_it_said_before() {
    let failure = Bench::new().run("merges.avg", &|_, on_event| {
        on_event(Event::Error { message: "nearly done".into(), hint: None, fault: Fault::Experiment });
        Ok(Ending::Code(137))
    });
    let failure = failure.unwrap_err();
    assert_eq!(failure.message, "mergelab-tensor was killed (SIGKILL): out of memory, perhaps");
    assert_eq!(failure.fault, Fault::Stage);
}

#[test]
fn a_tensor_program_that_is_not_there_or_does_not_start_is_named() {
    let bench = Bench { tensor: None, ..Bench::new() };
    let failure = bench.run("merges.avg", &|_, _| panic!("nothing can be started")).unwrap_err();
    assert!(failure.message.starts_with("mergelab-tensor is not beside mergelab"), "{}", failure.message);
    assert_eq!(failure.hint.as_deref(), Some("build it with `make build`"));
    let failure = Bench::new().run("merges.avg", &|_, _| Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
    assert_eq!(failure.message, "cannot start mergelab-tensor: permission denied");
}

#[test]
fn a_command_gets_paths_for_its_placeholders_and_the_environment_it_declares() {
    let bench = Bench::new();
    let out = bench.jobs("commands.c")[0].out.clone();
    let product = bench.run("commands.c", &|program, _| {
        assert_eq!(program.program, "tool");
        let expected = [
            format!("--out={}", out.display()),
            bench.path("artifacts/models.a").display().to_string(),
            bench.path("notes/text.txt").display().to_string(),
            "{}".to_owned(),
        ];
        assert_eq!(program.arguments, expected.map(std::ffi::OsString::from));
        assert_eq!(program.directory, bench.dir.path());
        assert!(program.environment.contains(&("WORD".into(), "two words".into())));
        let path = program.environment.iter().find(|(name, _)| name == "PATH").unwrap().1.to_str().unwrap();
        assert!(path.starts_with("/env/bin:"), "`python` means the project's: {path}");
        assert_eq!(program.timeout, Some(std::time::Duration::from_millis(1500)));
        Ok(Ending::Code(0))
    });
    assert!(product.unwrap().logged);
}

#[test]
fn a_command_that_fails_is_told_by_how_it_ended() {
    let bench = Bench::new();
    let message = |ending: Ending| {
        let failure = bench.run("commands.c", &|program, _| {
            std::fs::write(&program.log, "10%\r50%\r100%\nlast word\n").unwrap();
            Ok(ending)
        });
        failure.unwrap_err().message
    };
    // A progress bar is what stands at the end of its line.
    let last = "; its last lines:\n  100%\n  last word";
    assert_eq!(message(Ending::Code(2)), format!("tool ended with exit code 2{last}"));
    assert_eq!(message(Ending::Code(127)), format!("tool could not be started{last}"));
    assert_eq!(message(Ending::Code(139)), format!("tool was ended by signal 11{last}"));
    assert_eq!(message(Ending::TimedOut), format!("tool took longer than its timeout{last}"));
    assert_eq!(message(Ending::Interrupted), "interrupted");
}

#[test]
fn of_a_long_log_the_last_fifteen_lines_are_shown() {
    let bench = Bench::new();
    let failure = bench.run("commands.c", &|program, _| {
        let lines: Vec<_> = (0..100_000).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&program.log, lines.concat()).unwrap();
        Ok(Ending::Code(1))
    });
    let message = failure.unwrap_err().message;
    let lines: Vec<_> = message.lines().skip(1).collect();
    assert_eq!((lines.len(), lines[0], lines[14]), (15, "  line 99985", "  line 99999"));
}

#[test]
fn fisher_information_is_the_tensor_programs_and_goes_to_the_merge_of_its_model() {
    let bench = Bench::of(
        r#"name: x
models: { a: { path: models/a } }
data: { d: { path: rows.jsonl, text: "{{ t }}" } }
fishers: { f: { model: a, data: d, max_length: 7, labels: model, seed: 5 } }
merges: { m: { method: fisher, models: [a], fishers: [f] } }
"#,
    );
    let job_of = |program: &Program<'_>| mergelab_wire::StageFile::read(Path::new(&program.arguments[0])).unwrap().job;
    let artifacts = bench.path("artifacts");
    bench
        .run("fishers.f", &|program, _| {
            let mergelab_wire::Job::Fisher(job) = job_of(program) else { panic!("not for Fisher information") };
            assert_eq!(job.labels, mergelab_wire::Labels::Model { seed: 5 });
            assert_eq!((job.run.max_length, job.run.model), (Some(7), artifacts.join("models.a")));
            assert_eq!(job.run.data, artifacts.join("data.d/rows.jsonl"));
            Ok(Ending::Code(0))
        })
        .unwrap();
    bench
        .run("merges.m", &|program, _| {
            let mergelab_wire::Job::Merge(job) = job_of(program) else { panic!("not a merge") };
            assert_eq!(job.models[0].fisher.as_deref(), Some(&*artifacts.join("fishers.f")));
            Ok(Ending::Code(0))
        })
        .unwrap();
}
