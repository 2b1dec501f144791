//! A hub on this machine: `fakes/hub.py`, which says in its head how it is told what to hold and what is to go wrong.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::project::{Project, safetensors};

/// A hub that serves as long as this is there. What it holds lies in `hub/` of a project.
pub(crate) struct HubServer {
    server: Child,
    pub(crate) address: String,
    root: PathBuf,
}

impl HubServer {
    /// Of a project, which is told where it is.
    pub(crate) fn of(project: Project) -> (Project, Self) {
        let root = project.path("hub");
        fs::create_dir_all(&root).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/hub.py");
        let mut server = Command::new("python3")
            .arg("-B")
            .arg(script)
            .arg(&root)
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests of the hub need python3");
        let mut address = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        (project.variable("HF_ENDPOINT", &address), Self { server, address, root })
    }

    /// Writes a file of a repository: `models/ORG/NAME/BRANCH/PATH`.
    pub(crate) fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    /// A small model, whose weights are made of some word.
    pub(crate) fn model(&self, repo: &str, word: &str) {
        let at = |file: &str| format!("models/{repo}/main/{file}");
        self.write(&at("config.json"), r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 4}"#);
        self.write(&at("model.safetensors"), safetensors(word));
        self.write(&at("tokenizer.json"), r#"{"version": "1.0"}"#);
        self.write(&at("README.md"), format!("# {word}\n"));
    }

    /// What is to go wrong from now on.
    pub(crate) fn faults(&self, faults: &Value) {
        let path = self.root.join("faults.json");
        fs::write(path.with_extension("new"), faults.to_string()).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// Lets go on what a fault `hold` holds.
    pub(crate) fn release(&self) {
        self.write("release", "");
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.root.join("requests.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Requests so far for contents of large files.
    pub(crate) fn transfers(&self) -> Vec<Value> {
        self.requests().into_iter().filter(|request| request["server"] == "storage").collect()
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
