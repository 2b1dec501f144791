//! The `lm_eval` command that does what the driver does for one model and task, for people to copy.
//!
//! Its text is the one account of which option of ours is which flag of `lm_eval`: shown by `--dry-run`, written at the
//! head of the log and into the manifest with the paths of this machine, and handed to the driver with placeholders for
//! them, since what it writes must not depend on where it ran.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::experiment::{Backend, Suite, Task, TaskOptions, UnsafeCode};
use crate::plan::model_arguments;

/// What a command names that lies somewhere.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// The program: `lm_eval`, or how else it is started.
    pub(super) program: Vec<String>,
    /// The model's directory.
    pub(super) model: String,
    /// The suite's directories of tasks; `lm_eval` takes one.
    pub(super) task_dirs: Vec<String>,
    /// Device and batch size, which decide the speed only; `None` leaves them and their like out.
    pub(super) device: Option<String>,
}

impl Places {
    /// Placeholders, the same everywhere.
    pub(super) fn nowhere(suite: &Suite) -> Self {
        let several = suite.task_dirs.len() > 1;
        let name = |index| if several { format!("TASK_DIR_{index}") } else { "TASK_DIR".to_owned() };
        Self {
            program: vec!["lm_eval".to_owned()],
            model: "MODEL".to_owned(),
            task_dirs: (1..=suite.task_dirs.len()).map(name).collect(),
            device: None,
        }
    }

    /// Real paths: with a model's directory where it is known, and its name in angle brackets where not.
    pub(super) fn of(
        suite: &Suite,
        resolve: impl Fn(&Path) -> PathBuf,
        lm_eval: Vec<String>,
        model: Result<&Path, &str>,
        device: Option<&str>,
    ) -> Self {
        Self {
            program: lm_eval,
            model: model.map_or_else(|name| format!("<{name}>"), |path| path.display().to_string()),
            task_dirs: suite.task_dirs.iter().map(|dir| resolve(dir).display().to_string()).collect(),
            device: Some(device.unwrap_or("auto").to_owned()),
        }
    }
}

/// How a value of an option stands on the command line: the words after its flag, or `None` to leave the flag out.
type Words = fn(&TaskOptions) -> Option<Vec<String>>;

/// Options of a task by their flags, in the order in which they are shown. Those of the model's class are not here.
const FLAGS: [(&str, Words); 6] = [
    ("--num_fewshot", |options| Some(vec![options.num_fewshot?.to_string()])),
    ("--limit", |options| Some(vec![limit(options.limit?)])),
    ("--gen_kwargs", |options| (!options.gen_kwargs.is_empty()).then(|| vec![pairs(&options.gen_kwargs)])),
    ("--apply_chat_template", |options| match options.apply_chat_template.as_ref()? {
        Value::Bool(wanted) => wanted.then(Vec::new),
        name => Some(vec![text(name)]),
    }),
    ("--fewshot_as_multiturn", |options| Some(vec![options.fewshot_as_multiturn?.to_string()])),
    ("--system_instruction", |options| Some(vec![options.system_instruction.clone()?])),
];

/// The command of one model and task.
pub(super) fn command(suite: &Suite, task: &Task, seed: u64, places: &Places) -> String {
    let (decides, speed) = model_arguments(suite);
    let backend = match suite.backend {
        Backend::Vllm => "vllm",
        Backend::Hf | Backend::Loss | Backend::Command => "hf",
    };
    let mut arguments = Map::from_iter([("pretrained".to_owned(), places.model.as_str().into())]);
    arguments.extend(decides);
    if suite.backend == Backend::Vllm {
        // The engine draws from a seed of its own, which `--seed` does not set.
        arguments.entry("seed").or_insert_with(|| task.options.seed.unwrap_or(seed).into());
    }
    add_template_variables(suite.backend, task, &mut arguments);
    let mut batch_size = task.options.batch_size.clone();
    if places.device.is_some() {
        let mut speed = speed;
        let of_suite = speed.remove("batch_size");
        batch_size = batch_size.or(of_suite);
        arguments.extend(speed);
    }
    let mut words = Vec::new();
    if suite.unsafe_code == UnsafeCode::Allow {
        // Tasks that score code ask for it beside the flag.
        words.push("HF_ALLOW_CODE_EVAL=1".to_owned());
    }
    words.extend(places.program.iter().map(|word| quoted(word)));
    let mut add = |flag: &str, values: Vec<String>| {
        words.push(flag.to_owned());
        words.extend(values.iter().map(|value| quoted(value)));
    };
    add("run", Vec::new());
    add("--model", vec![backend.to_owned()]);
    add("--model_args", vec![pairs(&arguments)]);
    // A file of a task that reads other data is written down beside the command by the driver, which knows the task.
    let is_nowhere = places.device.is_none();
    add("--tasks", vec![if is_nowhere && task.data.is_some() { "TASK_FILE".to_owned() } else { task.task.clone() }]);
    if let Some(dir) = places.task_dirs.last() {
        add("--include_path", vec![dir.clone()]);
    }
    for (flag, value) in FLAGS {
        if let Some(values) = value(&task.options) {
            add(flag, values);
        }
    }
    add("--seed", vec![task.options.seed.unwrap_or(seed).to_string()]);
    if let Some(device) = &places.device {
        if suite.backend == Backend::Hf && device != "auto" {
            add("--device", vec![device.clone()]);
        }
        if let Some(size) = &batch_size {
            add("--batch_size", vec![text(size)]);
        }
    }
    add("--log_samples", Vec::new());
    add("--output_path", vec!["OUT".to_owned()]);
    if suite.unsafe_code == UnsafeCode::Allow {
        add("--confirm_run_unsafe_code", Vec::new());
    }
    words.join(" ")
}

/// Adds the variables of the chat template: those of the model's arguments, then the task's own. `lm_eval` takes them as an
/// argument of the model, and on vLLM `enable_thinking` as one by itself.
fn add_template_variables(backend: Backend, task: &Task, arguments: &mut Map<String, Value>) {
    let mut variables = match arguments.shift_remove("chat_template_args") {
        Some(Value::Object(variables)) => variables,
        _ => Map::new(),
    };
    variables.extend(task.options.chat_template_args.clone());
    let thinking = if backend == Backend::Vllm { variables.shift_remove("enable_thinking") } else { None };
    arguments.extend(thinking.map(|value| ("enable_thinking".to_owned(), value)));
    if !variables.is_empty() {
        arguments.insert("chat_template_args".to_owned(), variables.into());
    }
}

/// What the driver does and the command is without, for a person.
pub(super) fn differences(suite: &Suite, task: &Task) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(data) = &task.data {
        found.push(format!("{} in place of the task's data set, for which lm_eval has no option", data.display()));
    }
    if suite.task_dirs.len() > 1 {
        found.push("task_dirs before the last, since lm_eval takes one".to_owned());
    }
    if suite.unsafe_code == UnsafeCode::Sandbox {
        found.push("a sandbox: lm_eval refuses code, or runs it as you with --confirm_run_unsafe_code".to_owned());
    }
    found
}

/// A limit below 1 is a share; from there on it is a number of documents.
fn limit(limit: f64) -> String {
    if limit < 1.0 { limit.to_string() } else { format!("{limit:.0}") }
}

/// `name=value,…` where `lm_eval` reads that back as the same values, and JSON, which it takes as well, where not.
fn pairs<'a>(values: impl IntoIterator<Item = (&'a String, &'a Value)>) -> String {
    let values: Vec<_> = values.into_iter().collect();
    if values.iter().all(|(_, value)| is_plain(value)) {
        let pairs: Vec<_> = values.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
        return pairs.join(",");
    }
    let map: Map<String, Value> = values.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Value::from(map).to_string()
}

/// Whether a value survives `name=value`: a text must not look like a number, a flag or a Python literal, nor hold what
/// separates pairs.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Bool(_) | Value::Number(_) | Value::Null => true,
        Value::String(text) => {
            let is_word = |letter: char| letter.is_ascii_alphanumeric() || "_-./:@+<>~ ".contains(letter);
            let is_literal = ["true", "false", "none", "nan", "inf", "infinity"].contains(&&*text.to_lowercase());
            text.starts_with(|first: char| first.is_ascii_alphabetic() || "/.~<".contains(first))
                && text.chars().all(is_word)
                && text.parse::<f64>().is_err()
                && !is_literal
        }
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// A scalar as Python would read it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".to_owned(),
        other => other.to_string(),
    }
}

/// A word as a shell reads it back, on one line.
fn quoted(word: &str) -> String {
    let is_safe = |letter: char| letter.is_ascii_alphanumeric() || "_-./:=,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(is_safe) {
        return word.to_owned();
    }
    if word.contains(['\n', '\r', '\t']) {
        let escaped = word.replace('\\', r"\\").replace('\'', r"\'").replace('\n', r"\n");
        return format!("$'{}'", escaped.replace('\r', r"\r").replace('\t', r"\t"));
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The command of the only task of a suite, with some lines added to it.
    fn of(lines: &str, task: &str) -> String {
        let text = format!(
            "name: x\nmodels: {{ a: {{ path: a }} }}\nevals:\n  s:\n    models: [a]\n    backend: hf\n{lines}    tasks: [{task}]\n"
        );
        let loaded = crate::experiment::parse(Path::new("x.yaml"), &text).unwrap_or_else(|errors| panic!("{errors}"));
        let suite = &loaded.experiment.evals["s"];
        command(suite, &suite.tasks[0], 3, &Places::nowhere(suite))
    }

    /// What a setting adds to the command without any.
    fn added(lines: &str, task: &str) -> String {
        let (plain, with) = (of("", "t"), of(lines, task));
        let (plain, with): (Vec<&str>, Vec<&str>) = (plain.split(' ').collect(), with.split(' ').collect());
        let start = plain.iter().zip(&with).take_while(|(one, other)| one == other).count();
        let end = plain[start..].iter().rev().zip(with[start..].iter().rev()).take_while(|(a, b)| a == b).count();
        with[start..with.len() - end].join(" ")
    }

    #[test]
    fn without_settings_it_names_the_model_the_task_and_what_has_a_default_that_changed() {
        insta::assert_snapshot!(of("", "gsm8k"), @"lm_eval run --model hf --model_args pretrained=MODEL,add_bos_token=false,dtype=auto --tasks gsm8k --seed 3 --log_samples --output_path OUT");
    }

    #[test]
    fn every_setting_of_a_task_is_its_flag() {
        for (option, expected) in [
            ("num_fewshot: 5", "--num_fewshot 5"),
            ("num_fewshot: 0", "--num_fewshot 0"),
            ("limit: 200", "--limit 200"),
            ("limit: 0.25", "--limit 0.25"),
            ("gen_kwargs: { temperature: 0.5, do_sample: true }", "--gen_kwargs temperature=0.5,do_sample=true"),
            ("gen_kwargs: { until: [\"\\n\"] }", r#"--gen_kwargs '{"until":["\n"]}'"#),
            ("gen_kwargs: { stop: \"a,b\" }", r#"--gen_kwargs '{"stop":"a,b"}'"#),
            ("gen_kwargs: { stop: \"1\" }", r#"--gen_kwargs '{"stop":"1"}'"#),
            ("apply_chat_template: true", "--apply_chat_template"),
            ("apply_chat_template: false", ""),
            ("apply_chat_template: tool_use", "--apply_chat_template tool_use"),
            ("fewshot_as_multiturn: false", "--fewshot_as_multiturn false"),
            ("system_instruction: \"Don't guess.\"", r"--system_instruction 'Don'\''t guess.'"),
            ("system_instruction: \"One.\\nTwo.\"", r"--system_instruction $'One.\nTwo.'"),
            ("seed: 7", "7"),
            ("data: rows.jsonl", "TASK_FILE"),
            // It decides the speed only.
            ("batch_size: 4", ""),
        ] {
            assert_eq!(added("", &format!("{{ task: t, {option} }}")), expected, "{option}");
        }
    }

    #[test]
    fn every_setting_of_a_suite_is_its_flag() {
        for (lines, expected) in [
            ("    task_dirs: [tasks]\n", "--include_path TASK_DIR"),
            ("    task_dirs: [one, two]\n", "--include_path TASK_DIR_2"),
            ("    model_args: { max_length: 512 }\n", "pretrained=MODEL,add_bos_token=false,dtype=auto,max_length=512"),
            ("    model_args: { dtype: float16 }\n", "pretrained=MODEL,add_bos_token=false,dtype=float16"),
            ("    model_args: { add_bos_token: true }\n", "pretrained=MODEL,add_bos_token=true,dtype=auto"),
            ("    model_args: { batch_size: 4, device: cpu }\n", ""),
        ] {
            assert_eq!(added(lines, "t"), expected, "{lines}");
        }
    }

    #[test]
    fn variables_of_the_chat_template_are_arguments_of_the_model() {
        let of = |backend: &str| {
            let text = format!(
                "name: x\nmodels: {{ a: {{ path: a }} }}\nevals:\n  s:\n    models: [a]\n    backend: {backend}\n    \
                 model_args: {{ chat_template_args: {{ tone: dry, date: now }} }}\n    \
                 tasks: [{{ task: t, apply_chat_template: true, chat_template_args: {{ enable_thinking: false, tone: wry }} }}]\n"
            );
            let loaded =
                crate::experiment::parse(Path::new("x.yaml"), &text).unwrap_or_else(|errors| panic!("{errors}"));
            let suite = &loaded.experiment.evals["s"];
            let command = command(suite, &suite.tasks[0], 0, &Places::nowhere(suite));
            command.split('\'').nth(1).unwrap().to_owned()
        };
        insta::assert_snapshot!(of("hf"), @r#"{"pretrained":"MODEL","add_bos_token":false,"dtype":"auto","chat_template_args":{"tone":"wry","date":"now","enable_thinking":false}}"#);
        insta::assert_snapshot!(of("vllm"), @r#"{"pretrained":"MODEL","add_bos_token":false,"dtype":"auto","seed":0,"enable_thinking":false,"chat_template_args":{"tone":"wry","date":"now"}}"#);
    }

    #[test]
    fn code_of_a_model_runs_where_that_is_allowed_and_nowhere_else() {
        let allowed = of("    unsafe_code: allow\n", "t");
        assert!(allowed.starts_with("HF_ALLOW_CODE_EVAL=1 lm_eval run "), "{allowed}");
        assert!(allowed.ends_with(" --confirm_run_unsafe_code"), "{allowed}");
        for rule in ["refuse", "sandbox"] {
            assert_eq!(of(&format!("    unsafe_code: {rule}\n"), "t"), of("", "t"), "{rule}");
        }
    }

    #[test]
    fn with_real_paths_it_has_device_and_batch_size_too() {
        let text = "name: x\nmodels: { a: { path: a } }\nevals:\n  s:\n    models: [a]\n    task_dirs: [my tasks]\n    \
                    model_args: { tensor_parallel_size: 2, batch_size: 16 }\n    tasks: [t]\n  h: { models: [a], backend: hf, tasks: [u], batch_size: auto }\n";
        let loaded = crate::experiment::parse(Path::new("x.yaml"), text).unwrap_or_else(|errors| panic!("{errors}"));
        let of = |suite: &str, model: Result<&Path, &str>| {
            let suite = &loaded.experiment.evals[suite];
            let resolve = |dir: &Path| Path::new("/project").join(dir);
            let places = Places::of(suite, resolve, vec!["/env/bin/lm_eval".to_owned()], model, Some("cpu"));
            command(suite, &suite.tasks[0], 0, &places)
        };
        insta::assert_snapshot!(of("s", Ok(Path::new("/models/a"))), @"/env/bin/lm_eval run --model vllm --model_args pretrained=/models/a,add_bos_token=false,dtype=auto,seed=0,tensor_parallel_size=2 --tasks t --include_path '/project/my tasks' --seed 0 --batch_size 16 --log_samples --output_path OUT");
        insta::assert_snapshot!(of("h", Err("merges.avg")), @"/env/bin/lm_eval run --model hf --model_args 'pretrained=<merges.avg>,add_bos_token=false,dtype=auto' --tasks u --seed 0 --device cpu --batch_size auto --log_samples --output_path OUT");
    }

    #[test]
    fn what_it_does_not_do_is_said() {
        let text = "name: x\nmodels: { a: { path: a } }\nevals:\n  s: { models: [a], task_dirs: [one, two], unsafe_code: sandbox, tasks: [{ task: t, data: d.jsonl }] }\n";
        let suite = &crate::experiment::parse(Path::new("x.yaml"), text).unwrap().experiment.evals["s"];
        assert_eq!(
            differences(suite, &suite.tasks[0]),
            [
                "d.jsonl in place of the task's data set, for which lm_eval has no option",
                "task_dirs before the last, since lm_eval takes one",
                "a sandbox: lm_eval refuses code, or runs it as you with --confirm_run_unsafe_code",
            ]
        );
    }
}
