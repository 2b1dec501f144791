//! The index of a directory of tasks on disk: `lm_eval` ships over ten thousand files, read again by every `status`.
//!
//! A header, then lines of fields with tabs between them: `D mtime path` for each directory (nanoseconds, relative path),
//! `F name path` for what a file defines, `T tag task…` for a tag. It holds as long as no directory has changed, which
//! a file that is added, removed or replaced does (one written in place does not; nobody should, in an installed
//! package); the version of `lm_eval` and the directory are in the file's name. A directory younger than two seconds may
//! change again within the resolution of its time stamp, so nothing is written then.
//!
//! Version history: 1, the first.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::index::{Named, directories};

const HEADER: &str = "mergelab tasks 1";

/// Reads an index, if it is there and still that of the directory.
pub(super) fn read(file: &Path, dir: &Path) -> Option<BTreeMap<String, Named>> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return None;
    }
    let mut names = BTreeMap::new();
    for line in lines {
        let mut fields = line.split('\t');
        match (fields.next()?, fields.next()?) {
            ("D", changed) => {
                if changed_at(&dir.join(fields.next()?))? != changed {
                    return None;
                }
            }
            ("F", name) => drop(names.insert(name.to_owned(), Named::File(dir.join(fields.next()?)))),
            ("T", tag) => drop(names.insert(tag.to_owned(), Named::Tag(fields.map(ToOwned::to_owned).collect()))),
            _ => return None,
        }
    }
    Some(names)
}

/// Writes an index; where that cannot be done, or a name does not fit a line, it is made again the next time.
pub(super) fn write(file: &Path, dir: &Path, names: &BTreeMap<String, Named>) -> Option<()> {
    let mut lines = Vec::new();
    for folder in directories(dir) {
        let changed = changed_at(&folder)?;
        let modified = std::fs::metadata(&folder).and_then(|metadata| metadata.modified()).ok()?;
        if SystemTime::now().duration_since(modified).ok()? < Duration::from_secs(2) {
            return None;
        }
        lines.push(vec!["D".to_owned(), changed, folder.strip_prefix(dir).ok()?.to_str()?.to_owned()]);
    }
    for (name, named) in names {
        lines.push(match named {
            Named::File(path) => {
                vec!["F".to_owned(), name.clone(), path.strip_prefix(dir).ok()?.to_str()?.to_owned()]
            }
            Named::Tag(tasks) => ["T".to_owned(), name.clone()].into_iter().chain(tasks.iter().cloned()).collect(),
        });
    }
    if lines.iter().flatten().any(|field| field.contains(['\t', '\n', '\r'])) {
        return None;
    }
    // Others may share the store.
    let usual = std::fs::Permissions::from_mode(0o666);
    let mut fresh = tempfile::Builder::new().permissions(usual).tempfile_in(file.parent()?).ok()?;
    writeln!(fresh, "{HEADER}").ok()?;
    let text: String = lines.into_iter().map(|line| line.join("\t") + "\n").collect();
    fresh.write_all(text.as_bytes()).ok()?;
    fresh.persist(file).ok().map(drop)
}

fn changed_at(dir: &Path) -> Option<String> {
    let metadata = std::fs::metadata(dir).ok()?;
    Some(format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::super::index::index;
    use super::*;

    #[test]
    fn an_index_is_read_back_until_a_file_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let (tasks, file) = (dir.path().join("tasks"), dir.path().join("index"));
        std::fs::create_dir_all(tasks.join("deep")).unwrap();
        std::fs::write(tasks.join("deep/a.yaml"), "task: a\ntag: [x, y]\n").unwrap();
        std::fs::write(tasks.join("b.yaml"), "group: b\ntask: [x]\n").unwrap();
        assert_eq!(read(&file, &tasks), None);
        let names = index(&tasks);
        assert_eq!(write(&file, &tasks, &names), None, "the directories are too young");
        for folder in directories(&tasks) {
            let past = SystemTime::now() - Duration::from_secs(10);
            std::fs::File::open(folder).unwrap().set_modified(past).unwrap();
        }
        write(&file, &tasks, &names).unwrap();
        assert_eq!(names.len(), 4);
        assert_eq!(read(&file, &tasks), Some(names));
        std::fs::write(tasks.join("deep/c.yaml"), "task: c\ntag: x\n").unwrap();
        assert_eq!(read(&file, &tasks), None);
    }
}
