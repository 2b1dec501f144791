//! A temporary project, the program run in it, and what it said.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The program under test.
pub(crate) const MERGELAB: &str = env!("CARGO_BIN_EXE_mergelab");

/// A hub that is not there.
pub(crate) const NOWHERE: &str = "http://127.0.0.1:9";

/// How long anything that is waited for may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A project in a directory of its own, which goes when it is dropped.
pub(crate) struct Project {
    dir: tempfile::TempDir,
    program: PathBuf,
    variables: Vec<(String, String)>,
}

impl Project {
    /// An empty project: a `mergelab.toml` that says nothing.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("mergelab-test-").tempdir().unwrap();
        let project = Self { dir, program: MERGELAB.into(), variables: Vec::new() };
        project.file("mergelab.toml", "")
    }

    /// A project with an experiment file `x.yaml`.
    pub(crate) fn with(experiment: &str) -> Self {
        Self::new().file("x.yaml", experiment)
    }

    /// With a file.
    pub(crate) fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        self.write(name, contents);
        self
    }

    /// With a model directory whose weights are made of some word.
    pub(crate) fn model(self, name: &str, word: &str) -> Self {
        self.file(&format!("{name}/config.json"), r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 4}"#)
            .file(&format!("{name}/model.safetensors"), safetensors(word))
            .file(&format!("{name}/tokenizer.json"), r#"{"version": "1.0"}"#)
            .file(&format!("{name}/README.md"), format!("# {word}\n"))
    }

    /// With the two stand-ins: the program of tensor stages, and a Python that has `lm_eval`.
    pub(crate) fn with_fakes(mut self) -> Self {
        // The tensor program is looked for beside `mergelab` first, where a real one may lie: so both move.
        let bin = self.path("bin");
        fs::create_dir(&bin).unwrap();
        self.program = bin.join("mergelab");
        fs::hard_link(MERGELAB, &self.program).or_else(|_| fs::copy(MERGELAB, &self.program).map(drop)).unwrap();
        self.script("bin/mergelab-tensor", include_str!("fakes/mergelab-tensor.sh"));
        self.script("env/bin/python", include_str!("fakes/python.sh"));
        for tool in ["lm_eval-0.4.13", "torch-2.11.0", "transformers-5.14.1", "vllm-0.24.0"] {
            fs::create_dir_all(self.path(&format!("env/lib/python3.11/site-packages/{tool}.dist-info"))).unwrap();
        }
        self.file("mergelab.toml", "[python]\npath = \"env\"\n")
    }

    /// With a variable in the environment of what is run.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes an executable file.
    pub(crate) fn script(&self, name: &str, text: &str) {
        self.write(name, text);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Writes a file, in place: a program that has it open sees the change.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    /// Replaces some text in a file; it must be there.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has no {from:?}:\n{text}");
        self.write(name, text.replace(from, to));
    }

    /// The text of a file.
    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A path in the project.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// The project's directory.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Whether something is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// The program, with an environment in which nothing of this machine shows.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.root()).stdin(Stdio::null());
        for name in [
            "VIRTUAL_ENV",
            "LIBTORCH",
            "MERGELAB_TENSOR",
            "MERGELAB_CHILD",
            "NO_COLOR",
            "CLICOLOR_FORCE",
            "OMP_WAIT_POLICY",
        ] {
            command.env_remove(name);
        }
        for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            command.env_remove(name);
        }
        // Nobody listens there: no test reaches a real hub, nor what this machine has of it.
        command.env("HF_ENDPOINT", NOWHERE);
        command.env("HF_HUB_CACHE", self.path("cache")).env("HF_TOKEN_PATH", self.path("token"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program.
    pub(crate) fn mergelab(&self, arguments: &[&str]) -> Said {
        self.said(self.command(arguments))
    }

    /// Runs a command that was made here.
    pub(crate) fn said(&self, mut command: Command) -> Said {
        Said::of(self, finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// Runs `x.yaml`.
    pub(crate) fn run(&self, flags: &[&str]) -> Summary {
        self.run_file("x.yaml", flags)
    }

    /// Runs an experiment file and reads the summary.
    pub(crate) fn run_file(&self, file: &str, flags: &[&str]) -> Summary {
        let said = self.mergelab(&[&["run", file, "--json"], flags].concat());
        Summary::of(said)
    }

    /// Starts the program and lets it run.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child: Some(child) }
    }

    /// Waits until a file is there and has something in it, and gives that without the line's end.
    pub(crate) fn wait_for(&self, name: &str) -> String {
        let path = self.path(name);
        let mut text = String::new();
        wait_until(&format!("{name} is written"), || {
            text = fs::read_to_string(&path).unwrap_or_default();
            text.ends_with('\n')
        });
        text.trim_end().to_owned()
    }

    /// The only file of an artifact, through its link under `runs/`.
    pub(crate) fn output(&self, experiment: &str, stage: &str, file: &str) -> PathBuf {
        fs::canonicalize(self.path(&format!("runs/{experiment}/{stage}"))).unwrap().join(file)
    }

    /// Keys of the stages of `x.yaml`, as `status --json` gives them.
    pub(crate) fn keys(&self) -> Vec<(String, Value)> {
        let status = self.mergelab(&["status", "x.yaml", "--json"]).exits(0).json();
        let stages = status.as_array().unwrap().iter();
        stages.map(|stage| (stage["stage"].as_str().unwrap().to_owned(), stage["key"].clone())).collect()
    }

    /// Names of the entries of a directory of the store.
    pub(crate) fn in_store(&self, dir: &str) -> Vec<String> {
        let path = self.path(".mergelab").join(dir);
        let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Takes away all that was made and is no result.
    pub(crate) fn lose_store(&self) {
        for made in [".mergelab", "runs"] {
            fs::remove_dir_all(self.path(made)).unwrap();
        }
    }

    /// Loses the store, and sees that the results and README of `x.yaml` are made again byte for byte from what `results/`
    /// keeps.
    pub(crate) fn results_stand_without_the_store(&self) {
        let made = || (self.contents("results"), self.read("README.md"));
        let before = made();
        self.lose_store();
        self.mergelab(&["render", "x.yaml", "--check"]).exits(0);
        fs::remove_file(self.path("results/x/table.md")).unwrap();
        self.mergelab(&["render", "x.yaml"]).exits(0);
        assert_eq!(made(), before);
    }

    /// Every regular file under a directory with its contents, for comparisons.
    pub(crate) fn contents(&self, dir: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut pending = vec![self.path(dir)];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    found.push((path.strip_prefix(self.root()).unwrap().to_path_buf(), fs::read(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }

    /// Text without what differs from run to run: this project's place, digests, times.
    fn filter(&self, text: &str) -> String {
        let root = fs::canonicalize(self.root()).unwrap();
        let text =
            text.replace(&*root.to_string_lossy(), "[project]").replace(&*self.root().to_string_lossy(), "[project]");
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        let text = if host.is_empty() { text } else { text.replace(&format!(" on {host}"), " on [host]") };
        mask_times(&mask_digests(&text))
    }
}

/// A file in the safetensors format with one tensor of bytes, `[n]` for a word of `n` bytes.
pub(crate) fn safetensors(word: &str) -> Vec<u8> {
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#, word.len());
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(word.as_bytes());
    bytes
}

/// Every run of 64 hexadecimal digits becomes `[digest]`.
fn mask_digests(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|letter: char| letter.is_ascii_hexdigit()) {
        let length = rest[at..].find(|letter: char| !letter.is_ascii_hexdigit()).unwrap_or(rest.len() - at);
        masked += &rest[..at];
        masked += if length == 64 { "[digest]" } else { &rest[at..at + length] };
        rest = &rest[at + length..];
    }
    masked + rest
}

/// `(0.1 s)` and `in 0.1 s` become `(N s)` and `in N s`, `2026-01-31T12:00:00.000Z` becomes `[time]`.
fn mask_times(text: &str) -> String {
    let mut masked = String::new();
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            masked.push('\n');
        }
        let words = line.split(' ').collect::<Vec<_>>();
        for (index, word) in words.iter().enumerate() {
            if index > 0 {
                masked.push(' ');
            }
            let is_unit = words.get(index + 1).is_some_and(|next| matches!(*next, "s" | "s)"));
            let number = word.trim_start_matches('(');
            if is_unit && number.parse::<f64>().is_ok() {
                let _ = write!(masked, "{}N", if word.starts_with('(') { "(" } else { "" });
            } else if is_time(word.trim_matches([':', '"', ','])) {
                masked += &word.replace(word.trim_matches([':', '"', ',']), "[time]");
            } else {
                masked += word;
            }
        }
    }
    masked
}

fn is_time(word: &str) -> bool {
    word.len() == 24 && word.ends_with('Z') && word.as_bytes()[10] == b'T' && word.starts_with("20")
}

/// What the program said, and how it ended. The texts are without what differs from run to run.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Standard output as it was.
    pub(crate) raw: String,
}

impl Said {
    pub(crate) fn of(project: &Project, output: Output) -> Self {
        let code = output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"));
        let [raw, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        Self { code, stdout: project.filter(&raw), stderr: project.filter(&stderr), raw }
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Checks that standard error has some text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in standard error:\n{}", self.stderr);
        self
    }

    /// Checks that standard error lacks some text.
    #[track_caller]
    pub(crate) fn says_nothing_of(self, text: &str) -> Self {
        assert!(!self.stderr.contains(text), "{text:?} in standard error:\n{}", self.stderr);
        self
    }

    /// Checks the whole of standard output.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert_eq!(self.stdout, text);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.raw).unwrap_or_else(|error| panic!("{error}:\n{}", self.raw))
    }

    /// Everything that was said, for snapshots.
    pub(crate) fn all(&self) -> String {
        format!("exit code: {}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// A run with its summary.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) said: Said,
    pub(crate) value: Value,
}

impl Summary {
    #[track_caller]
    pub(crate) fn of(said: Said) -> Self {
        let last = said.raw.lines().last().unwrap_or_else(|| panic!("no summary:\n{}", said.stderr));
        let value: Value = serde_json::from_str(last).unwrap();
        assert_eq!(value["event"], "summary", "{last}");
        Self { said, value }
    }

    /// Names of the stages in one state, in the order of the graph.
    pub(crate) fn in_state(&self, state: &str) -> Vec<&str> {
        let stages = self.value["stages"].as_array().unwrap().iter();
        stages.filter(|stage| stage["state"] == state).map(|stage| stage["stage"].as_str().unwrap()).collect()
    }

    /// Checks which stages ran, that the rest was up to date, and that all is well.
    #[track_caller]
    pub(crate) fn ran(self, stages: &[&str]) -> Self {
        assert_eq!(self.said.code, 0, "{}", self.said.stderr);
        assert_eq!(self.in_state("ran"), stages, "{}", self.said.stderr);
        assert_eq!(self.in_state("failed"), [""; 0]);
        assert_eq!(self.in_state("blocked"), [""; 0]);
        self
    }

    /// Checks which stages failed and which were not tried, and the exit code.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, failed: &[&str], blocked: &[&str]) -> Self {
        assert_eq!(self.said.code, code, "{}", self.said.stderr);
        assert_eq!(self.in_state("failed"), failed, "{}", self.said.stderr);
        assert_eq!(self.in_state("blocked"), blocked, "{}", self.said.stderr);
        self
    }

    /// Checks that standard error has some text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        Self { said: self.said.says(text), ..self }
    }
}

/// A program that runs; killed if a test forgets it.
pub(crate) struct Running {
    child: Option<Child>,
}

impl Running {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Kills it and reaps it.
    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self, project: &Project) -> Said {
        Said::of(project, finish(self.child.take().unwrap()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for the end of a program; one that hangs is killed, so that its test fails and the others go on.
fn finish(child: Child) -> Output {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    output
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process lives (a zombie does not).
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().next()).is_some_and(|state| state != "Z")
}

/// Flips one bit of a file and sets its time stamps back, so that stat shows nothing but a new time of change.
pub(crate) fn flip_a_bit(path: &Path) {
    let before = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, before.permissions()).unwrap();
    let file = fs::File::open(path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    let after = fs::metadata(path).unwrap();
    assert_eq!((after.modified().unwrap(), after.len()), (before.modified().unwrap(), before.len()));
}
