//! The same graph for each tool: stages that write a number into a file, each after its program and, from the eleventh on,
//! the stage ten before it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{Result, text, timed};

/// How far apart a stage is from the one that it reads.
const STRIDE: usize = 10;

/// Something that brings stages up to date.
pub(crate) trait Tool {
    /// Its version.
    fn version(&self) -> String;
    /// Prints its version.
    fn version_command(&self) -> Command;
    /// Writes its own files for `count` stages into a project that has the program and nothing else.
    fn describe(&self, project: &Path, count: usize) -> Result<()>;
    /// Brings every stage up to date, in the shortest way there is.
    fn settle(&self, project: &Path, count: usize) -> Result<()>;
    /// Brings every stage up to date, one after another.
    fn run(&self, project: &Path) -> Command;
    /// Whether it says that nothing was to do.
    fn is_idle(&self, output: &Output) -> bool;
}

/// Makes a project of `count` stages, none of which has run.
pub(crate) fn lay_out(tool: &dyn Tool, project: &Path, count: usize) -> Result<()> {
    fs::create_dir_all(project)?;
    write_program(project)?;
    tool.describe(project, count)
}

/// Writes the program of every stage: `stage.sh FILE NUMBER`.
pub(crate) fn write_program(dir: &Path) -> Result<()> {
    Ok(fs::write(dir.join("stage.sh"), "echo \"$2\" > \"$1\"\n")?)
}

/// What stages leave behind, made without running them, for tools that can be told that it is so.
fn write_outputs(project: &Path, count: usize) -> Result<()> {
    fs::create_dir_all(project.join("out"))?;
    for index in 0..count {
        fs::write(project.join("out").join(index.to_string()), format!("{index}\n"))?;
    }
    Ok(())
}

/// This program.
pub(crate) struct Mergelab;

impl Tool for Mergelab {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn version_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mergelab"));
        command.arg("--version");
        command
    }

    fn describe(&self, project: &Path, count: usize) -> Result<()> {
        fs::write(project.join("mergelab.toml"), "")?;
        let mut text = "name: bench\ncommands:\n".to_owned();
        for index in 0..count {
            write!(text, "  s{index}:\n    run: [/bin/sh, stage.sh, \"{{out}}/x\", \"{index}\"]\n")?;
            write!(text, "    inputs: {{ program: stage.sh")?;
            if let Some(before) = index.checked_sub(STRIDE) {
                write!(text, ", before: {{ from: commands.s{before} }}")?;
            }
            writeln!(text, " }}")?;
        }
        Ok(fs::write(project.join("bench.yaml"), text)?)
    }

    fn settle(&self, project: &Path, _: usize) -> Result<()> {
        timed(self.run(project))?;
        Ok(())
    }

    fn run(&self, project: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mergelab"));
        command.args(["run", "--jobs", "1", "bench.yaml"]).current_dir(project);
        command
    }

    fn is_idle(&self, output: &Output) -> bool {
        text(output).lines().any(|line| line.starts_with("0 ran, "))
    }
}

/// `dvc`.
pub(crate) struct Dvc(PathBuf);

impl Dvc {
    /// The one that is installed, if one is.
    pub(crate) fn find() -> Option<Self> {
        find("dvc").map(Self)
    }

    fn command(&self, project: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        command.args(arguments).current_dir(project).env("DVC_NO_ANALYTICS", "1");
        command
    }
}

impl Tool for Dvc {
    fn version(&self) -> String {
        version_of(self.version_command())
    }

    fn version_command(&self) -> Command {
        self.command(Path::new("."), &["--version"])
    }

    fn describe(&self, project: &Path, count: usize) -> Result<()> {
        timed(self.command(project, &["init", "--no-scm", "--quiet"]))?;
        fs::create_dir(project.join("out"))?;
        let mut text = "stages:\n".to_owned();
        for index in 0..count {
            write!(text, "  s{index}:\n    cmd: /bin/sh stage.sh out/{index} {index}\n    deps: [stage.sh")?;
            if let Some(before) = index.checked_sub(STRIDE) {
                write!(text, ", out/{before}")?;
            }
            write!(text, "]\n    outs: [out/{index}]\n")?;
        }
        Ok(fs::write(project.join("dvc.yaml"), text)?)
    }

    fn settle(&self, project: &Path, count: usize) -> Result<()> {
        write_outputs(project, count)?;
        timed(self.command(project, &["commit", "--force", "--quiet"]))?;
        Ok(())
    }

    fn run(&self, project: &Path) -> Command {
        self.command(project, &["repro"])
    }

    fn is_idle(&self, output: &Output) -> bool {
        !text(output).contains("Running stage")
    }
}

/// `snakemake`.
pub(crate) struct Snakemake(PathBuf);

impl Snakemake {
    /// The one that is installed, if one is.
    pub(crate) fn find() -> Option<Self> {
        find("snakemake").map(Self)
    }

    fn command(&self, project: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        command.args(arguments).current_dir(project);
        command
    }
}

impl Tool for Snakemake {
    fn version(&self) -> String {
        version_of(self.version_command())
    }

    fn version_command(&self) -> Command {
        self.command(Path::new("."), &["--version"])
    }

    fn describe(&self, project: &Path, count: usize) -> Result<()> {
        let text = format!(
            "def before(wildcards):\n    index = int(wildcards.index) - {STRIDE}\n    \
             return [] if index < 0 else f\"out/{{index}}\"\n\n\
             rule all:\n    input: expand(\"out/{{index}}\", index=range({count}))\n\n\
             rule stage:\n    input: program=\"stage.sh\", before=before\n    output: \"out/{{index}}\"\n    \
             shell: \"/bin/sh {{input.program}} {{output}} {{wildcards.index}}\"\n"
        );
        Ok(fs::write(project.join("Snakefile"), text)?)
    }

    fn settle(&self, project: &Path, count: usize) -> Result<()> {
        write_outputs(project, count)?;
        timed(self.command(project, &["--cores", "1", "--touch"]))?;
        Ok(())
    }

    fn run(&self, project: &Path) -> Command {
        self.command(project, &["--cores", "1"])
    }

    fn is_idle(&self, output: &Output) -> bool {
        text(output).contains("Nothing to be done")
    }
}

/// A program of the environment that `BENCH_PYTHON` belongs to, else of the path.
fn find(name: &str) -> Option<PathBuf> {
    let beside = std::env::var_os("BENCH_PYTHON").and_then(|python| Some(Path::new(&python).parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).map(|dir| dir.join(name)).collect();
    let program = beside.into_iter().chain(on_path).find(|program| program.is_file())?;
    // It is started from another directory.
    std::path::absolute(program).ok()
}

fn version_of(command: Command) -> String {
    timed(command).map_or_else(|error| error.to_string(), |(_, output)| text(&output).trim().to_owned())
}
