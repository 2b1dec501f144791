//! Evaluations as processes: how many start, what they leave behind, what is said of them, and which tools they need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::project::{Project, Summary, is_alive, wait_until};

/// Four models and a suite of two tasks.
fn project(backend: &str) -> Project {
    let experiment = format!(
        r"name: x
models: {{ a: {{ path: models/a }}, b: {{ path: models/b }}, c: {{ path: models/c }}, d: {{ path: models/d }} }}
evals:
  suite:
    models: [a, b, c, d]
    backend: {backend}
    task_dirs: [tasks]
    tasks: [add, {{ task: reverse, num_fewshot: 2 }}]
settings: {{ device: cpu }}
"
    );
    let project = Project::with(&experiment).with_fakes();
    let project =
        ["a", "b", "c", "d"].iter().fold(project, |project, name| project.model(&format!("models/{name}"), name));
    ["add", "reverse", "sort"].iter().fold(project, |project, task| {
        project.file(&format!("tasks/{task}.yaml"), format!("task: {task}\noutput_type: generate_until\n"))
    })
}

const ALL: [&str; 8] = [
    "evals.suite/a/add",
    "evals.suite/a/reverse",
    "evals.suite/b/add",
    "evals.suite/b/reverse",
    "evals.suite/c/add",
    "evals.suite/c/reverse",
    "evals.suite/d/add",
    "evals.suite/d/reverse",
];

/// The evaluations that ran.
fn evaluated(summary: &Summary) -> Vec<&str> {
    summary.in_state("ran").into_iter().filter(|stage| stage.starts_with("evals.")).collect()
}

/// How many drivers were started since the last time.
fn starts(project: &Project) -> usize {
    let text = fs::read_to_string(project.path("drivers")).unwrap_or_default();
    let _ = fs::remove_file(project.path("drivers"));
    text.lines().count()
}

#[test]
fn a_task_added_to_a_finished_suite_of_four_models_starts_a_process_for_each_with_vllm_and_runs_only_that_task() {
    for (backend, processes) in [("vllm", 4), ("hf", 1)] {
        let project = project(backend);
        let log = project.path("drivers").to_str().unwrap().to_owned();
        let project = project.variable("DRIVER_LOG", &log);
        assert_eq!(evaluated(&project.run(&["--jobs", "1"])), ALL);
        starts(&project);
        project.edit("x.yaml", "tasks: [add,", "tasks: [sort, add,");
        let summary = project.run(&["--jobs", "1"]);
        let sorted = ["a", "b", "c", "d"].map(|model| format!("evals.suite/{model}/sort"));
        assert_eq!(evaluated(&summary), sorted, "{backend}");
        assert_eq!(starts(&project), processes, "{backend}");
        project.run(&[]).ran(&[]);
        assert_eq!(starts(&project), 0);
    }
}

/// The driver and its engine, which has a session of its own and no parent.
fn processes(project: &Project) -> [String; 2] {
    ["driver", "engine"].map(|name| project.wait_for(name))
}

#[test]
fn killing_mergelab_in_an_evaluation_leaves_no_process_and_the_next_run_goes_on_with_what_is_missing() {
    let project = project("hf").variable("HANG_AFTER", "3");
    let run = project.start(&["run", "x.yaml", "--jobs", "1"]);
    let processes = processes(&project);
    wait_until("three tasks are kept", || project.mergelab(&["verify", "--json"]).json()["artifacts"] == 4 + 3);
    assert!(processes.iter().all(|pid| is_alive(pid)), "{processes:?}");
    run.kill();
    wait_until(&format!("{processes:?} are gone"), || !processes.iter().any(|pid| is_alive(pid)));
    let project = project.variable("HANG_AFTER", "none");
    let summary = project.run(&["--jobs", "1"]);
    assert_eq!(evaluated(&summary), ALL[3..]);
    assert_eq!(project.in_store("tmp"), [""; 0]);
    project.mergelab(&["verify"]).exits(0);
}

#[test]
fn an_evaluation_that_shows_no_progress_is_ended_with_its_engine_and_what_it_finished_is_kept() {
    let project = project("hf").variable("HANG_AFTER", "2");
    project.edit("x.yaml", "    backend: hf\n", "    backend: hf\n    stalled_after: 1.5\n");
    let summary = project.run(&["--jobs", "1"]);
    assert_eq!((summary.said.code, evaluated(&summary)), (1, ALL[..2].to_vec()));
    assert_eq!(summary.in_state("failed"), ALL[2..]);
    let message = "evals.suite/b/add: lm_eval showed no sign of progress for N s and was ended; its last lines:\n  an engine runs\n";
    summary.says(message).says("  hint: the log shows how far it came; `stalled_after`").says("  log: [project]");
    let processes = processes(&project);
    assert!(!processes.iter().any(|pid| is_alive(pid)), "{processes:?}");
}

#[test]
fn an_evaluation_that_is_killed_takes_its_engine_along_and_says_what_to_set() {
    let project = project("vllm").variable("KILL_AFTER", "1");
    let summary = project.run(&["--jobs", "1", "--keep-going", "--only", "evals.suite/a"]);
    assert_eq!((summary.said.code, evaluated(&summary)), (1, ALL[..1].to_vec()));
    let summary =
        summary.says("evals.suite/a/reverse: lm_eval was killed (SIGKILL): out of memory, perhaps; its last lines:");
    summary.says("shorter `max_model_len`, or fewer `max_num_seqs`").says("  log: [project]");
    let processes = processes(&project);
    assert!(!processes.iter().any(|pid| is_alive(pid)), "{processes:?}");
}

#[test]
fn a_dry_run_shows_the_command_of_every_evaluation_that_would_run() {
    let project = project("hf");
    project.edit("x.yaml", "models: [a, b, c, d]", "models: [a, avg]");
    project.edit("x.yaml", "evals:\n", "merges: { avg: { method: average, models: [a, b] } }\nevals:\n");
    project.edit("x.yaml", "num_fewshot: 2", "num_fewshot: 2, limit: 20, data: rows.jsonl, batch_size: 4");
    let project = project.file("rows.jsonl", "{}\n");
    insta::assert_snapshot!(project.mergelab(&["run", "x.yaml", "--dry-run"]).exits(0).stdout);
    let stages = project.mergelab(&["run", "x.yaml", "--dry-run", "--json"]).exits(0).json();
    let with: Vec<_> = stages.as_array().unwrap().iter().filter(|stage| stage.get("command").is_some()).collect();
    assert_eq!(with.len(), 4);
    assert!(with[0]["command"].as_str().unwrap().contains(" --tasks add "), "{}", with[0]);
    project.run(&[]);
    let said = project.mergelab(&["run", "x.yaml", "--dry-run"]).exits(0);
    assert!(!said.stdout.contains("lm_eval run"), "{}", said.stdout);
}

#[test]
fn the_command_stands_in_the_log_and_in_the_manifest() {
    let project = project("hf");
    project.run(&["--only", "evals.suite/a"]);
    let shown = project.mergelab(&["show", "evals.suite/a/reverse", "x.yaml", "--json"]).exits(0).json();
    let command = shown["manifest"]["facts"]["command"].as_str().unwrap();
    let model = project.path("models/a").display().to_string();
    assert!(command.contains(&format!("-m lm_eval run --model hf --model_args pretrained={model},")), "{command}");
    assert!(command.contains("--tasks reverse") && command.contains("--num_fewshot 2"), "{command}");
    let log = project.mergelab(&["show", "evals.suite/a/reverse", "x.yaml", "--log"]).exits(0).raw;
    assert!(log.contains(&format!("$ {command}  # evals.suite/a/reverse\n")), "{log}");
    let text = project.mergelab(&["show", "evals.suite/a/reverse", "x.yaml"]).exits(0).raw;
    assert!(text.contains(&format!("  command {command}\n")), "{text}");
}

/// Gives a distribution of the stand-in another version.
fn replace_version(project: &Project, from: &str, to: &str) {
    let site = project.path("env/lib/python3.11/site-packages");
    fs::rename(site.join(format!("{from}.dist-info")), site.join(format!("{to}.dist-info"))).unwrap();
}

#[test]
fn a_harness_that_is_too_old_is_found_before_anything_runs_with_the_version_that_is_wanted() {
    for (from, to, message) in [
        (
            "lm_eval-0.4.13",
            "lm_eval-0.4.9",
            "needs lm-eval 0.4.13 or later; 0.4.9 is installed in [project]/env/bin/python",
        ),
        ("vllm-0.24.0", "vllm-0.11.0", "needs vllm 0.24 or later; 0.11.0 is installed in"),
        ("transformers-5.14.1", "transformers-4.57.1", "needs transformers 5 or later; 4.57.1 is installed in"),
    ] {
        let project = project("vllm");
        replace_version(&project, from, to);
        let said = project.mergelab(&["run", "x.yaml"]).exits(1).says(&format!("error: evals.suite/a/add {message}"));
        said.says("hint: `make setup` installs it; or name a Python that has it under `[python] path`");
        assert!(!project.has("runs/x"), "nothing runs");
        let summary = project.run(&["--keep-going"]);
        assert_eq!((summary.said.code, summary.in_state("failed")), (1, ALL.to_vec()));
        summary.says("or later is needed").says("hint: `make setup` installs it");
    }
    let project = project("hf");
    replace_version(&project, "vllm-0.24.0", "vllm-0.11.0");
    assert_eq!(evaluated(&project.run(&[])), ALL, "without vLLM nobody asks for its version");
}

#[test]
fn a_harness_that_is_newer_than_what_was_tried_is_used_and_noted() {
    let project = project("hf");
    replace_version(&project, "lm_eval-0.4.13", "lm_eval-0.5.2");
    let summary = project.run(&["--jobs", "1"]);
    assert_eq!(evaluated(&summary), ALL);
    let stderr = &summary.said.stderr;
    let note = "lm-eval 0.5.2 is newer than what was tried (0.4.13 and later, below 0.5)";
    assert_eq!(stderr.matches(note).count(), 1, "{stderr}");
    project.run(&[]).ran(&[]).said.says_nothing_of("newer");
}

/// A Python with `lm_eval`; or `None`, said aloud.
pub(super) fn real_python() -> Option<PathBuf> {
    let stated = std::env::var_os("MERGELAB_PYTHON").map(PathBuf::from);
    let active = std::env::var_os("VIRTUAL_ENV").map(|root| Path::new(&root).join("bin/python"));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = stated.or(active).unwrap_or(own);
    let asks = ["-c", "import importlib.util as u; exit(not (u.find_spec('lm_eval') and u.find_spec('torch')))"];
    let found = Command::new(&python).args(asks).status().is_ok_and(|status| status.success());
    if !found {
        println!("skipped: no Python with lm_eval ({})", python.display());
    }
    found.then_some(python)
}

/// Makes a tiny random model in a directory.
pub(super) fn make_model(python: &Path, place: &Path) {
    let made = Command::new(python)
        .args(["-c", "import sys; from tiny_model import make_model; make_model(sys.argv[1])"])
        .arg(place)
        .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("lm-eval-harness"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status();
    assert!(made.unwrap().success());
}

/// What `lm_eval` makes of a command line that a shell has taken apart: its settings as JSON.
const PARSED_BY_LM_EVAL: &str = r#"
import json, sys
from lm_eval._cli.harness import HarnessCLI
from lm_eval.config.evaluate_config import EvaluatorConfig

words = sys.argv[sys.argv.index("run"):]
config = EvaluatorConfig.from_cli(HarnessCLI()._parser.parse_args(words))
names = "model model_args tasks num_fewshot limit gen_kwargs apply_chat_template fewshot_as_multiturn system_instruction"
names += " seed include_path batch_size device"
print(json.dumps({name: getattr(config, name) for name in names.split()}))
"#;

#[test]
fn the_command_copied_into_a_shell_means_to_lm_eval_what_the_experiment_says() {
    let Some(python) = real_python() else { return };
    let project = Project::with(
        r#"name: x
models: { a: { path: models/a } }
evals:
  plain: { models: [a], backend: hf, tasks: [add] }
  full:
    models: [a]
    backend: vllm
    task_dirs: ["my tasks"]
    model_args:
      dtype: bfloat16
      tokenizer: "1e5"
      add_bos_token: true
      max_model_len: 512
      tensor_parallel_size: 2
      gpu_memory_utilization: 0.5
      chat_template_args: { tone: dry, enable_thinking: true }
    tasks:
      - task: reverse
        num_fewshot: 2
        limit: 0.25
        gen_kwargs: { temperature: 0.5, do_sample: true, until: ["\n\n", "it's", "a,b"] }
        apply_chat_template: true
        chat_template_args: { enable_thinking: false }
        fewshot_as_multiturn: false
        system_instruction: "Don't guess.\nSay \"12\"."
        batch_size: 16
        seed: 7
settings: { seed: 3, device: cpu }
"#,
    )
    .with_fakes()
    .model("models/a", "a")
    .file("tasks/add.yaml", "task: add\noutput_type: generate_until\n")
    .file("my tasks/reverse.yaml", "task: reverse\noutput_type: generate_until\n");
    project.edit("x.yaml", "backend: hf, tasks: [add]", "backend: hf, task_dirs: [tasks], tasks: [add]");
    let stages = project.mergelab(&["run", "x.yaml", "--dry-run", "--json"]).exits(0).json();
    let parsed = |name: &str| -> serde_json::Value {
        let stage = stages.as_array().unwrap().iter().find(|stage| stage["stage"] == name).unwrap();
        let script = format!("set -- {}\nexec \"$PARSER\" -c \"$SCRIPT\" \"$@\"", stage["command"].as_str().unwrap());
        let environment = [("PARSER", python.to_str().unwrap()), ("SCRIPT", PARSED_BY_LM_EVAL)];
        let output = Command::new("bash").args(["-c", &script]).envs(environment).output().unwrap();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let path = |path: &str| project.path(path).display().to_string();
    let plain = json!({
        "model": "hf",
        "model_args": { "pretrained": path("models/a"), "add_bos_token": false, "dtype": "auto" },
        "tasks": ["add"], "num_fewshot": null, "limit": null, "gen_kwargs": {}, "apply_chat_template": false,
        "fewshot_as_multiturn": null, "system_instruction": null, "seed": [3, 3, 3, 3],
        "include_path": path("tasks"), "batch_size": 1, "device": "cpu",
    });
    assert_eq!(parsed("evals.plain/a/add"), plain);
    let full = json!({
        "model": "vllm",
        "model_args": {
            "pretrained": path("models/a"), "dtype": "bfloat16", "tokenizer": "1e5", "add_bos_token": true,
            "max_model_len": 512, "seed": 7, "enable_thinking": false, "chat_template_args": { "tone": "dry" },
            "tensor_parallel_size": 2, "gpu_memory_utilization": 0.5,
        },
        "tasks": ["reverse"], "num_fewshot": 2, "limit": 0.25,
        "gen_kwargs": { "temperature": 0.5, "do_sample": true, "until": ["\n\n", "it's", "a,b"] },
        "apply_chat_template": true, "fewshot_as_multiturn": false,
        "system_instruction": "Don't guess.\nSay \"12\".", "seed": [7, 7, 7, 7],
        "include_path": path("my tasks"), "batch_size": "16", "device": "cuda:0",
    });
    assert_eq!(parsed("evals.full/a/reverse"), full);
}

/// A task with as many questions as make sure that it is under way when it is killed.
fn real_task(name: &str, rows: usize) -> (String, String) {
    let yaml = format!(
        "task: {name}\ndataset_path: json\ndataset_kwargs: {{ data_files: {{ test: {name}.jsonl }} }}\n\
         output_type: generate_until\ntest_split: test\ndoc_to_text: \"{{{{question}}}}\"\ndoc_to_target: \"{{{{answer}}}}\"\n\
         generation_kwargs: {{ until: [\"\\n\"], max_gen_toks: 40, do_sample: false }}\n\
         metric_list: [{{ metric: exact_match, aggregation: mean, higher_is_better: true }}]\n"
    );
    let row = |row| format!("{{\"question\": \"{row}+1=\", \"answer\": \"{}\"}}\n", row + 1);
    (yaml, (0..rows).map(row).collect::<Vec<_>>().concat())
}

#[test]
fn killing_mergelab_in_a_real_evaluation_leaves_no_process_and_the_next_run_goes_on() {
    let Some(python) = real_python() else { return };
    let (short, long) = (real_task("short", 2), real_task("long", 4000));
    let project = Project::with(
        "name: x\nmodels: { a: { path: a } }\nevals:\n  suite: { models: [a], backend: hf, task_dirs: [tasks], apply_chat_template: false, batch_size: 1, tasks: [short, long] }\nsettings: { device: cpu }\n",
    )
    .file("mergelab.toml", format!("[python]\npath = {:?}\n", python.parent().unwrap().parent().unwrap()))
    .file("tasks/short.yaml", short.0)
    .file("short.jsonl", short.1)
    .file("tasks/long.yaml", long.0)
    .file("long.jsonl", long.1);
    make_model(&python, &project.path("a"));

    let run = project.start(&["run", "x.yaml"]);
    // Its patience is that of programs that do next to nothing; importing lm_eval takes longer.
    for _ in 0..6 {
        let is_under_way = || project.has(".mergelab/keys") && keys_of(&project) == 2;
        if is_under_way() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(5));
    }
    wait_until("the first task is kept", || keys_of(&project) == 2);
    let below = format!("{}/", project.path(".mergelab/tmp").display());
    let drivers = || processes_that_name(&below);
    assert_eq!(drivers().len(), 2, "the driver and its supervisor");
    run.kill();
    wait_until("the driver is gone", || drivers().is_empty());
    project.edit("x.yaml", "tasks: [short, long]", "tasks: [short, { task: long, limit: 2 }]");
    let output = project.command(&["run", "x.yaml"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 ran, 2 up to date, 0 failed"), "{said}");
}

/// How many results are kept.
fn keys_of(project: &Project) -> usize {
    let said = project.mergelab(&["verify", "--json"]);
    if said.code == 0 { usize::try_from(said.json()["artifacts"].as_u64().unwrap()).unwrap() } else { 0 }
}

/// Living processes with a text in their arguments.
fn processes_that_name(text: &str) -> Vec<String> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names = |pid: &String| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(text) && is_alive(pid)
    };
    pids.filter(|pid| pid.parse::<u32>().is_ok()).filter(names).collect()
}
