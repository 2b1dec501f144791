//! One stage from its file to its result.

use std::path::Path;

use mergelab_wire::{Job, StageFile};
use tch::Device;

use crate::failure::Failure;
use crate::gram::capture::Means;
use crate::parallel::Pool;
use crate::report::Reporter;
use crate::system::share_freed_memory;
use crate::{device, diff, fisher, gram, loss, merge, text};

/// Runs a stage; facts are recorded and sent also when it fails.
///
/// # Errors
/// What the stage's own module says.
pub fn run(stage: &StageFile, reporter: &Reporter) -> Result<(), Failure> {
    let result = work(stage, reporter);
    if let Some(bytes) = device::peak_memory() {
        reporter.fact("peak_memory", bytes);
    }
    if let Some(version) = device::libtorch_version() {
        reporter.fact("libtorch", version);
    }
    reporter.send_facts();
    result
}

fn work(stage: &StageFile, reporter: &Reporter) -> Result<(), Failure> {
    let out: &Path = &stage.out;
    // As much is read and written as is computed: a GPU has nothing to do here.
    let on_cpu = || {
        reporter.fact("device", device::name(Device::Cpu));
        Pool::new(stage.threads)
    };
    let host = || {
        let pool = on_cpu();
        merge::Machine { device: Device::Cpu, pool, host: pool, memory: stage.memory }
    };
    if matches!(stage.job, Job::Merge(_) | Job::ApplyLora(_) | Job::ExtractLora(_)) {
        share_freed_memory();
    }
    match &stage.job {
        Job::AddGrams(job) => return Ok(gram::add::run(job, out, on_cpu(), reporter)?),
        Job::ImportGrams(job) => return Ok(gram::import::run(job, out, on_cpu(), reporter)?),
        Job::ExportGrams(job) => return Ok(gram::export::run(job, out, on_cpu(), reporter)?),
        Job::ApplyLora(job) => return merge::adapted::run(job, out, host(), reporter),
        Job::ExtractLora(job) => return merge::extracted::run(job, out, host(), reporter),
        Job::Diff(job) => return diff::run(job, out, on_cpu(), reporter),
        _ => {}
    }
    let device = device::choose(&stage.device)?;
    reporter.fact("device", device::name(device));
    // On a GPU one thread issues all work, in order.
    let pool = Pool::new(if device.is_cuda() { 1 } else { stage.threads });
    match &stage.job {
        Job::Gram(job) => gram::capture::run(job, out, Means { device, pool, memory: stage.memory, reporter }),
        Job::AddGrams(_)
        | Job::ImportGrams(_)
        | Job::ExportGrams(_)
        | Job::ApplyLora(_)
        | Job::ExtractLora(_)
        | Job::Diff(_) => unreachable!("done above"),
        Job::Tokens(job) => text::tokens::run(job, out, reporter),
        Job::Fisher(job) => fisher::estimate::run(job, out, Means { device, pool, memory: stage.memory, reporter }),
        Job::Loss(job) => loss::run(job, out, Means { device, pool, memory: stage.memory, reporter }),
        Job::Merge(job) => {
            let machine = merge::Machine { device, pool, host: Pool::new(stage.threads), memory: stage.memory };
            merge::run(job, out, machine, reporter)
        }
    }
}
