"""Which tasks there are."""

import difflib
import re
from pathlib import Path

from .environment import version_of
from .errors import Refused


class Catalogue:
    """Finds tasks by name: in the job's own directories first, then among lm_eval's.

    lm_eval's TaskManager parses every YAML file it ships (over ten thousand, many seconds) to learn their names. A task
    that its file spells out at the start of a line is found by a plain text search; only a name that is not (a group, a
    tag, a misspelling) is worth reading them all.
    """

    def __init__(self, directories):
        from lm_eval.tasks import TaskManager

        for directory in directories:
            if not Path(directory).is_dir():
                raise Refused(f"task_dirs: {directory} is not a directory")
        self.directories = list(directories)
        self.manager = TaskManager(include_path=self.directories, include_defaults=False)
        self.shipped = {}
        self.all_read = False

    def find(self, names):
        """Entries of lm_eval's index by name; refuses unknown names, with the nearest ones."""
        missing = {name for name in names if name not in self.manager.task_index}
        self.shipped.update(find_shipped(missing))
        missing -= set(self.shipped)
        if missing:
            self.read_all()
        return {name: self.entry(name) for name in names}

    def read_all(self):
        from lm_eval.tasks import TaskManager

        if not self.all_read:
            self.manager = TaskManager(include_path=self.directories, include_defaults=True)
            self.all_read = True

    def entry(self, name):
        entry = self.manager.task_index.get(name) or self.shipped.get(name)
        if entry is None:
            near = difflib.get_close_matches(name, self.manager.all_tasks, n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(f'`{other}`' for other in near)}?" if near else None
            searched = ", ".join([*map(str, self.directories), f"lm_eval {version_of('lm_eval')}"])
            raise Refused(f"no task `{name}` in {searched}", hint or "add its directory to task_dirs")
        return entry

    def leaves(self, name):
        """Configurations (functions unresolved) of the tasks that a name stands for."""
        from lm_eval.tasks._index import Kind
        from lm_eval.tasks._yaml_loader import load_yaml

        entry = self.entry(name)
        if entry.kind is Kind.TAG:
            return [leaf for member in sorted(entry.tags) for leaf in self.leaves(member)]
        config = load_yaml(entry.yaml_path, resolve_func=False)
        if entry.kind is not Kind.GROUP:
            return [config]
        leaves = []
        members = config.get("task") or []
        for member in members if isinstance(members, list) else [members]:
            if isinstance(member, str):
                leaves += self.leaves(member)
            elif (known := member.get("task") or member.get("group")) in self.manager.task_index:
                leaves += [{**leaf, **member} for leaf in self.leaves(known)]
            else:
                leaves.append(member)
        return leaves


def find_shipped(names):
    """Tasks of lm_eval's own whose file says `task: NAME` at the start of a line, as index entries."""
    import lm_eval.tasks
    from lm_eval.tasks._index import TaskIndex
    from lm_eval.tasks._yaml_loader import load_yaml

    if not names:
        return {}
    line = re.compile(rb"^task:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)
    found = {}
    for path in sorted(Path(lm_eval.tasks.__file__).parent.glob("**/*.yaml"), key=Path.as_posix):
        match = line.search(path.read_bytes())
        name = match and match.group(1).decode(errors="replace")
        if name in names and name not in found:
            entry = TaskIndex.entry_from_path(path)
            if entry is not None and load_yaml(path, resolve_func=False, recursive=False).get("task") == name:
                found[name] = entry
    return found


def runs_code(catalogue, name):
    """Whether a task, or one of a group, runs what a model wrote."""
    return any(leaf.get("unsafe_code") for leaf in catalogue.leaves(name))


def refuse_code(name):
    """The error for a task that runs code where the job does not say how."""
    return Refused(
        f"task `{name}` runs code that the model wrote, and `unsafe_code` is `refuse`",
        "set `unsafe_code: sandbox` on the suite to run that code shut off from this machine, or `allow` to run it on this "
        "machine as you",
    )
