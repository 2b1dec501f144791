//! The `mergelab` command.

use std::process::ExitCode;

use clap::Parser;
use mergelab::cli::{self, Cli};
use mergelab::exec::child;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Started for every program of every stage, so it is told apart before anything is parsed.
    if arguments.next().is_some_and(|first| first == "child") {
        let program: Vec<_> = arguments.skip(1).collect();
        return exit(child::supervise(&program));
    }
    ExitCode::from(cli::main(Cli::parse()))
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
