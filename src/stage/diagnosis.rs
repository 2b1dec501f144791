//! What to do about an evaluation that failed for want of memory, or whose engine died or hung: read from what was said of
//! it, since the programs that say it agree on nothing but their texts.

use super::Ending;
use crate::experiment::Backend;

/// What went wrong, as far as a text shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The weights leave vLLM no room for keys and values.
    NoCache,
    /// Somebody else holds the memory that vLLM was told to take.
    Taken,
    /// The device has no more memory.
    DeviceFull,
    /// The machine has no more memory.
    MachineFull,
    /// vLLM's engine, a process of its own, is dead.
    EngineDied,
}

/// Texts of vLLM 0.24, torch, Python and the system by their causes. A dead engine comes last: what killed it is often
/// said as well.
const SIGNS: [(&str, Cause); 12] = [
    ("No available memory for the cache blocks", Cause::NoCache),
    ("larger than the available KV cache memory", Cause::NoCache),
    ("less than desired GPU memory utilization", Cause::Taken),
    ("OutOfMemoryError", Cause::DeviceFull),
    ("out of memory on the device", Cause::DeviceFull),
    ("CUDA out of memory", Cause::DeviceFull),
    ("Cannot allocate memory", Cause::MachineFull),
    ("can't allocate memory", Cause::MachineFull),
    ("MemoryError", Cause::MachineFull),
    ("std::bad_alloc", Cause::MachineFull),
    ("EngineDeadError", Cause::EngineDied),
    ("Engine core initialization failed", Cause::EngineDied),
];

fn cause(text: &str) -> Option<Cause> {
    SIGNS.iter().find(|(sign, _)| text.contains(sign)).map(|(_, cause)| *cause)
}

/// What to do about a task that failed with a message. The log is asked only where the message points to it: other tasks
/// print into it as well.
pub(super) fn of_task(backend: Backend, message: &str, log: impl FnOnce() -> String) -> Option<&'static str> {
    match cause(message)? {
        Cause::EngineDied => Some(advice(backend, cause(&log()).unwrap_or(Cause::EngineDied))),
        cause => Some(advice(backend, cause)),
    }
}

/// What to do about a driver that ended, with the end of its log.
pub(super) fn of_driver(backend: Backend, ending: Option<Ending>, log: &str) -> Option<&'static str> {
    match ending {
        Some(Ending::Stalled(_)) => Some(
            "the log shows how far it came; `stalled_after` of the suite is how many seconds it may say nothing (a smaller \
             `batch_size` says something more often)",
        ),
        Some(Ending::Code(137)) => Some(advice(backend, cause(log).unwrap_or(Cause::MachineFull))),
        _ => cause(log).map(|cause| advice(backend, cause)),
    }
}

fn advice(backend: Backend, cause: Cause) -> &'static str {
    let is_vllm = backend == Backend::Vllm;
    match cause {
        Cause::NoCache => {
            "the weights leave no room for keys and values: in model_args set a larger `gpu_memory_utilization`, a shorter \
             `max_model_len`, or a larger `tensor_parallel_size`"
        }
        Cause::Taken => {
            "another program holds memory of that GPU: end it, or set a smaller `gpu_memory_utilization` in model_args"
        }
        Cause::DeviceFull if is_vllm => {
            "in model_args set a smaller `gpu_memory_utilization` (what comes beside weights and cache needs room too), a \
             shorter `max_model_len`, or fewer `max_num_seqs`"
        }
        Cause::DeviceFull => "set a smaller `batch_size`, or a shorter `max_length` in model_args",
        Cause::MachineFull if is_vllm => {
            "the machine has no more memory: run less beside it (`--jobs 1`), or in model_args set a smaller \
             `gpu_memory_utilization`, a shorter `max_model_len`, or fewer `max_num_seqs`"
        }
        Cause::MachineFull => {
            "the machine has no more memory: run less beside it (`--jobs 1`), or set a smaller `batch_size`, a shorter \
             `max_length` or `dtype: bfloat16`"
        }
        Cause::EngineDied => {
            "what ended vLLM's engine stands further up in the log; if it is memory, in model_args set a smaller \
             `gpu_memory_utilization`, a shorter `max_model_len`, or fewer `max_num_seqs`"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_way_to_run_out_of_memory_has_its_own_way_out() {
        for (backend, message, expected) in [
            (
                Backend::Vllm,
                "ValueError: No available memory for the cache blocks. Try increasing …",
                "a larger `gpu_mem",
            ),
            (
                Backend::Vllm,
                "Free memory on device (1/80 GiB) is less than desired GPU memory utilization",
                "end it, or",
            ),
            (Backend::Vllm, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "`max_num_seqs`"),
            (Backend::Hf, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "`batch_size`"),
            (Backend::Hf, "RuntimeError: DefaultCPUAllocator: can't allocate memory", "`--jobs 1`"),
        ] {
            let hint = of_task(backend, message, || panic!("the message says enough"));
            assert!(hint.is_some_and(|hint| hint.contains(expected)), "{message}: {hint:?}");
        }
    }

    #[test]
    fn a_dead_engine_is_explained_by_what_stands_in_the_log() {
        let hint =
            |log: &str| of_task(Backend::Vllm, "EngineDeadError: EngineCore encountered an issue", || log.into());
        assert!(hint("torch.OutOfMemoryError: …").unwrap().starts_with("in model_args set a smaller"));
        assert!(hint("segmentation fault").unwrap().contains("stands further up in the log"));
    }

    #[test]
    fn a_driver_that_was_killed_or_said_nothing_has_a_way_out_and_another_failure_none() {
        let of = |ending| of_driver(Backend::Hf, Some(ending), "Traceback");
        assert!(of(Ending::Code(137)).unwrap().contains("no more memory"));
        assert!(of(Ending::Stalled(Duration::from_secs(1))).unwrap().contains("`stalled_after`"));
        assert_eq!(of(Ending::Code(1)), None);
        assert_eq!(of_task(Backend::Hf, "KeyError: 'answer'", String::new), None);
    }
}
