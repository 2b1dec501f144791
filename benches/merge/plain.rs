//! What there is to compare with.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::{Result, Run};

/// Reads both models, writes the second, and waits until it is on the disk.
pub(crate) fn read_both_write_one(home: &Path) -> Result<Run> {
    let copy = home.join("copy");
    let _ = fs::remove_file(&copy);
    let mut block = vec![0; 1 << 20];
    let started = Instant::now();
    let mut out = File::create(&copy)?;
    for name in ["a", "b"] {
        let mut file = File::open(home.join(name).join("model.safetensors"))?;
        loop {
            let count = file.read(&mut block)?;
            if count == 0 {
                break;
            }
            if name == "b" {
                out.write_all(&block[..count])?;
            }
        }
    }
    out.sync_all()?;
    Ok(Run { time: started.elapsed(), memory: None })
}

/// mergekit on the two models, if it is installed.
pub(crate) fn mergekit(home: &Path) -> Result<Option<impl Fn() -> Command>> {
    let Some(python) = std::env::var_os("BENCH_PYTHON") else { return Ok(None) };
    let program = std::path::absolute(Path::new(&python).with_file_name("mergekit-yaml"))?;
    if !program.is_file() {
        return Ok(None);
    }
    let (config, out) = (home.join("mergekit.yaml"), home.join("mergekit"));
    let model = |name: &str| format!("  - model: {}\n    parameters: {{ weight: 0.5 }}\n", home.join(name).display());
    fs::write(&config, format!("merge_method: linear\ndtype: bfloat16\nmodels:\n{}{}", model("a"), model("b")))?;
    Ok(Some(move || {
        let mut command = Command::new(&program);
        command.arg(&config).arg(&out).arg("--no-copy-tokenizer").env("HF_HUB_OFFLINE", "1");
        command
    }))
}
