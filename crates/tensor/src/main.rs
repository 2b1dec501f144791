//! `mergelab-tensor STAGE_FILE`: runs one tensor stage that `mergelab` wrote down.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 3 the experiment is wrong. Before a code that is not 0 an error event is appended
//! to the stage's event file, and the same text is printed.

use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use mergelab_tensor::failure::Failure;
use mergelab_tensor::report::Reporter;
use mergelab_tensor::stage;
use mergelab_wire::{Fault, StageFile, exit};

const USAGE: &str = "usage: mergelab-tensor STAGE_FILE\n       mergelab-tensor --version";

/// Where the first panic of any thread happened, and what it said.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [flag] if flag == "--version" => {
            println!("mergelab-tensor {} (wire {})", env!("CARGO_PKG_VERSION"), mergelab_wire::VERSION);
            ExitCode::from(exit::DONE)
        }
        [flag] if flag == "--help" || flag == "-h" => {
            println!("{USAGE}");
            ExitCode::from(exit::DONE)
        }
        [path] => ExitCode::from(run(Path::new(path))),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(exit::USAGE)
        }
    }
}

fn run(path: &Path) -> u8 {
    // Without a stage file there is no event file to write to; what is printed is all that can be said.
    let stage = match StageFile::read(path) {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("error: {error}\nhint: mergelab and mergelab-tensor must be of one build");
            return exit::FAILED;
        }
    };
    let reporter = match Reporter::open(&stage.events) {
        Ok(reporter) => reporter,
        Err(error) => {
            eprintln!("{}", Failure::from(error));
            return exit::FAILED;
        }
    };
    panic::set_hook(Box::new(|info| {
        let mut first = PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first.get_or_insert_with(|| info.to_string().replace('\n', " "));
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(|| stage::run(&stage, &reporter))).unwrap_or_else(|_| {
        let said = PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        Err(Failure {
            message: format!("internal error: {}", said.unwrap_or_else(|| "a panic without a message".to_owned())),
            hint: Some("this is a defect of mergelab-tensor: please report it with the stage's log".to_owned()),
            fault: Fault::Stage,
        })
    });
    match result {
        Ok(()) => exit::DONE,
        Err(failure) => {
            // The event first, and no panic if the log lies on a full disk.
            reporter.error(&failure);
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}
