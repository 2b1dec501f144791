//! Where tensors live, and the CUDA half of libtorch.
//!
//! The program links the CPU half only, so that one binary serves machines with and without a GPU. Where there is a GPU
//! and `libtorch_cuda.so` lies beside the libtorch in use, it is loaded at run time and registers itself.

use std::fs;
use std::path::{Path, PathBuf};

use mergelab_wire::Fault;
use tch::{Cuda, Device};

use crate::failure::Diagnosis;
use crate::system;

/// A device that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A GPU was asked for and there is none.
    #[error("device {requested} was asked for, but {reason}")]
    Unavailable {
        /// As it was spelled.
        requested: String,
        /// What is missing.
        reason: String,
    },
    /// Not a device.
    #[error("device {0:?} is not known")]
    Unknown(String),
}

impl Diagnosis for DeviceError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unavailable { .. } => Fault::Stage,
            Self::Unknown(_) => Fault::Experiment,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unavailable { .. } => "set `device: auto` (or `cpu`) under `settings:`".to_owned(),
            Self::Unknown(_) => "device is one of auto, cpu, cuda, cuda:N".to_owned(),
        })
    }
}

/// Resolves `auto`, `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// When a GPU is asked for and none can be used, or the name is another.
pub fn choose(requested: &str) -> Result<Device, DeviceError> {
    let index = match requested {
        "cpu" => return Ok(Device::Cpu),
        "auto" => return Ok(if load_cuda().is_ok() { Device::Cuda(0) } else { Device::Cpu }),
        "cuda" => 0,
        other => other
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .ok_or_else(|| DeviceError::Unknown(other.to_owned()))?,
    };
    let unavailable = |reason| DeviceError::Unavailable { requested: requested.to_owned(), reason };
    let count = load_cuda().map_err(unavailable)?;
    if index >= count {
        return Err(unavailable(format!("this machine has {count} GPU(s), numbered from 0")));
    }
    Ok(Device::Cuda(index))
}

/// Loads CUDA; how many GPUs there are, or what is missing.
fn load_cuda() -> Result<usize, String> {
    if !Path::new("/proc/driver/nvidia/version").exists() && !Path::new("/dev/nvidiactl").exists() {
        return Err("this machine has no NVIDIA driver".to_owned());
    }
    let libtorch = libtorch_directory().ok_or("the libtorch in use cannot be found")?;
    let library = libtorch.join("libtorch_cuda.so");
    if !library.exists() {
        return Err(format!("{} is built without CUDA (no libtorch_cuda.so)", libtorch.display()));
    }
    system::load_for_good(&library)?;
    if !Cuda::is_available() {
        return Err("libtorch sees no usable GPU (is the driver too old?)".to_owned());
    }
    Ok(usize::try_from(Cuda::device_count()).unwrap_or(0))
}

/// The `lib` directory of the libtorch that this process runs, from its memory map.
fn libtorch_directory() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    Some(Path::new(&line[line.find('/')?..]).parent()?.to_path_buf())
}

/// The version of the libtorch that this process runs, such as `2.11.0+cpu`.
pub fn libtorch_version() -> Option<String> {
    let root = libtorch_directory()?.parent()?.to_path_buf();
    if let Ok(text) = fs::read_to_string(root.join("version.py")) {
        let line = text.lines().find(|line| line.starts_with("__version__"))?;
        return line.split(['\'', '"']).nth(1).map(str::to_owned);
    }
    fs::read_to_string(root.join("build-version")).ok().map(|text| text.trim().to_owned())
}

/// The most memory this process ever had resident, in bytes.
pub fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Memory that the system could give to programs now, in bytes.
pub fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes: u64 =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The name that goes into a manifest: `cpu` or `cuda:0`.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}
