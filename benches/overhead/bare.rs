//! What cannot be saved: starting the stages' programs, and making their results last.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::tools::write_program;
use crate::{Result, Times};

/// Starting the program of `count` stages one after another, per program.
pub(crate) fn programs(dir: &Path, count: usize) -> Result<Times> {
    fs::create_dir_all(dir)?;
    write_program(dir)?;
    let times = Times::of(|| {
        let started = Instant::now();
        for index in 0..count {
            let index = index.to_string();
            let mut command = Command::new("/bin/sh");
            command.args(["stage.sh", &index, &index]).current_dir(dir).stdin(Stdio::null());
            if !command.status()?.success() {
                return Err("/bin/sh failed".into());
            }
        }
        Ok(started.elapsed())
    })?;
    Ok(times.per_item(count, std::time::Duration::ZERO))
}

/// The writes, fsyncs and renames by which the store keeps `count` results of one file each, in its order and nothing
/// else, per result. As in a new store, most results come into a directory that is not there yet.
pub(crate) fn commits(dir: &Path, count: usize) -> Result<Times> {
    let mut dirs = (0..).map(|number| dir.join(format!("{number}")));
    let times = Times::of(|| {
        let dir = &dirs.next().ok_or("numbers do not end")?;
        for name in ["objects", "keys", "tmp"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let manifest = vec![b' '; 1200];
        let started = Instant::now();
        for index in 0..count {
            // Stirred, so that results fall into their directories as digests do.
            let shard = format!("{:02x}", index * index * 37 % 251);
            let (objects, keys) = (dir.join("objects").join(&shard), dir.join("keys").join(&shard));
            let work = dir.join("tmp").join(index.to_string());
            let out = work.join("out");
            fs::create_dir_all(&out)?;
            fs::write(out.join("x"), index.to_string())?;
            sync(&out.join("x"))?;
            sync(&out)?;
            make(&objects)?;
            fs::rename(&out, objects.join(index.to_string()))?;
            sync(&objects)?;
            make(&keys)?;
            let draft = work.join("manifest.json");
            fs::write(&draft, &manifest)?;
            sync(&draft)?;
            fs::rename(&draft, keys.join(format!("{index}.json")))?;
            sync(&keys)?;
            fs::remove_dir(&work)?;
        }
        Ok(started.elapsed())
    })?;
    Ok(times.per_item(count, std::time::Duration::ZERO))
}

fn make(shard: &Path) -> Result<()> {
    if !shard.is_dir() {
        fs::create_dir(shard)?;
        sync(shard.parent().ok_or("a shard lies in a directory")?)?;
    }
    Ok(())
}

fn sync(path: &Path) -> Result<()> {
    Ok(File::open(path)?.sync_all()?)
}
