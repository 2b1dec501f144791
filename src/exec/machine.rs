//! What this machine has, and what an experiment asks of it.

use std::path::Path;

use crate::experiment::Experiment;
use crate::plan::Graph;
use crate::stage;

/// What this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processors that we may use.
    pub cores: usize,
    /// Bytes of main memory.
    pub memory: u64,
    /// Bytes of memory of each GPU.
    pub gpus: Vec<u64>,
    /// Free bytes where the store lies.
    pub disk: u64,
}

impl Machine {
    /// Looks at the machine; `store` need not exist yet.
    pub fn look(store: &Path) -> Self {
        let exists = store.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: main_memory().unwrap_or(0),
            gpus: gpus(),
            disk: free_bytes(exists),
        }
    }
}

/// Free bytes on the file system of a path.
pub(super) fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn main_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Memory of each NVIDIA GPU, asked of its driver's own tool where there is a driver.
fn gpus() -> Vec<u64> {
    if !Path::new("/proc/driver/nvidia").exists() {
        return Vec::new();
    }
    let query = ["--query-gpu=memory.total", "--format=csv,noheader,nounits"];
    let Ok(output) = std::process::Command::new("nvidia-smi").args(query).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.trim().parse::<u64>().ok()).map(|mebibytes| mebibytes << 20).collect()
}

/// What an experiment requires and the machine lacks; empty if nothing.
pub fn shortfalls(experiment: &Experiment, machine: &Machine) -> Vec<String> {
    let settings = &experiment.settings;
    let mut found = Vec::new();
    let requires = &settings.requires;
    if let Some(wanted) = requires.gpu_memory {
        match machine.gpus.iter().max() {
            None => found.push(format!("it requires a GPU with {}; this machine has none", size(wanted))),
            Some(&has) if has < wanted => {
                found.push(format!("it requires a GPU with {}; the largest here has {}", size(wanted), size(has)));
            }
            Some(_) => {}
        }
    }
    for (what, wanted, has) in
        [("memory", requires.memory, machine.memory), ("free disk space", requires.disk, machine.disk)]
    {
        if let Some(wanted) = wanted.filter(|&wanted| wanted > has) {
            found.push(format!("it requires {} of {what}; this machine has {}", size(wanted), size(has)));
        }
    }
    let wants_cuda = settings.device.as_deref().is_some_and(|device| device.starts_with("cuda"));
    if wants_cuda && machine.gpus.is_empty() {
        found.push("it is set to run on `cuda`; this machine has no GPU".to_owned());
    }
    found
}

/// What the wanted stages of an experiment ask for that this version cannot do; empty if nothing.
pub fn unsupported(graph: &Graph, experiment: usize, wanted: &[bool]) -> Vec<String> {
    let mut found = Vec::new();
    for (_, stage) in graph.iter().filter(|(id, stage)| stage.experiment == experiment && wanted[id.0]) {
        if let Some(reason) = stage::unsupported(stage) {
            let line = format!("{}.{}: {reason}", stage.entry.0, stage.entry.1);
            if !found.contains(&line) {
                found.push(line);
            }
        }
    }
    found
}

/// Bytes in the unit a person would use.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() < 0.05 || value >= 100.0 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}
