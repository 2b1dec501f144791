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
    /// NVIDIA GPUs that we may use.
    pub gpus: Vec<Gpu>,
    /// Free bytes where the store lies.
    pub disk: u64,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// As `CUDA_VISIBLE_DEVICES` calls it: an index, or an identifier.
    pub name: String,
    /// Bytes of its memory, where that is known.
    pub memory: Option<u64>,
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

/// NVIDIA GPUs, asked of their driver's own tool where there is a driver, less those that our environment hides.
fn gpus() -> Vec<Gpu> {
    if !Path::new("/proc/driver/nvidia").exists() {
        return Vec::new();
    }
    let query = ["--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"];
    let output = std::process::Command::new("nvidia-smi").args(query).output();
    let list = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    visible(&list, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())
}

/// Of the GPUs in a list (`index, uuid, mebibytes` a line) those that `CUDA_VISIBLE_DEVICES` lets through, in its order
/// and by its names. As CUDA does, it reads the variable up to the first index that there is not. An entry that the list
/// lacks but may mean something to CUDA (a part of a GPU, `MIG-…`) is a GPU of unknown memory.
fn visible(list: &str, variable: Option<&str>) -> Vec<Gpu> {
    let listed: Vec<[&str; 3]> = list
        .lines()
        .filter_map(|line| line.split(',').map(str::trim).collect::<Vec<_>>().try_into().ok())
        .filter(|[index, ..]: &[&str; 3]| index.parse::<u32>().is_ok())
        .collect();
    let memory = |mebibytes: &str| mebibytes.parse::<u64>().ok().map(|mebibytes| mebibytes << 20);
    let Some(variable) = variable else {
        return listed.iter().map(|[index, _, size]| Gpu { name: (*index).to_owned(), memory: memory(size) }).collect();
    };
    let mut gpus: Vec<Gpu> = Vec::new();
    for name in variable.split(',').map(str::trim) {
        let is_identifier = name.starts_with("GPU-") || name.starts_with("MIG-");
        let found = listed.iter().find(|[index, id, _]| name == *index || is_identifier && id.starts_with(name));
        let is_unlisted = is_identifier || listed.is_empty() && name.parse::<u32>().is_ok();
        if found.is_none() && !is_unlisted {
            break;
        }
        gpus.push(Gpu { name: name.to_owned(), memory: found.and_then(|[.., size]| memory(size)) });
    }
    gpus
}

/// What an experiment requires and the machine lacks; empty if nothing.
pub fn shortfalls(experiment: &Experiment, machine: &Machine) -> Vec<String> {
    let settings = &experiment.settings;
    let mut found = Vec::new();
    let requires = &settings.requires;
    if let Some(wanted) = requires.gpu_memory {
        let largest = machine.gpus.iter().map(|gpu| gpu.memory.unwrap_or(u64::MAX)).max();
        match largest {
            None => found.push(format!("it requires a GPU with {}; this machine has none", size(wanted))),
            Some(has) if has < wanted => {
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
pub fn size(bytes: u64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "0, GPU-aa11, 81559\n1, GPU-bb22, 40960\n2, GPU-cc33, [N/A]\n";

    fn names(variable: Option<&str>) -> Vec<String> {
        visible(LIST, variable).into_iter().map(|gpu| gpu.name).collect()
    }

    #[test]
    fn gpus_are_those_that_the_environment_lets_through_by_its_names() {
        assert_eq!(names(None), ["0", "1", "2"]);
        assert_eq!(names(Some("2,0")), ["2", "0"]);
        assert_eq!(names(Some("GPU-bb, 1")), ["GPU-bb", "1"]);
        assert_eq!(names(Some("MIG-dd44")), ["MIG-dd44"]);
        assert_eq!(names(Some("1,7,0")), ["1"]);
        assert_eq!(names(Some("-1")), [""; 0]);
        assert_eq!(names(Some("")), [""; 0]);
    }

    #[test]
    fn the_memory_of_a_gpu_is_known_where_its_driver_says_it() {
        let memory: Vec<_> = visible(LIST, Some("1,2,MIG-x")).into_iter().map(|gpu| gpu.memory).collect();
        assert_eq!(memory, [Some(40960 << 20), None, None]);
        assert_eq!(visible("", Some("3")), [Gpu { name: "3".to_owned(), memory: None }]);
        assert_eq!(visible("no devices were found", None), []);
    }
}
