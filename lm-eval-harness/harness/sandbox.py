"""bubblewrap: a command line under which a program sees no network, no home and no process but its own.

What it sees is read-only: the system's libraries and programs, this Python environment, and folders that are named. It
may write to /tmp and /dev/shm, which are its own, limited in size and gone with it. Started by a user, bubblewrap makes a
user namespace; started by root it needs none, and the program leaves root before it runs what a model wrote
(`program.confine`).
"""

import os
import shutil
import sys
from pathlib import Path

from .errors import NoSandbox
from .programs import FAILED, PASSED, NotStarted, Programs

# Bytes that a program may write.
DISK = 64 << 20

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

# What programs of the system look up to start, and no more of the machine's settings.
SETTINGS = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")


def check():
    """Runs a program that passes and one that fails, as those of a model will be, and gives what runs them.

    Raises [`NoSandbox`], with what to do.
    """
    if not sys.platform.startswith("linux"):
        raise NoSandbox("`unsafe_code: sandbox` needs Linux")
    if shutil.which("bwrap") is None:
        raise NoSandbox(
            "`unsafe_code: sandbox` needs bubblewrap, and there is no `bwrap` on the path; install it (Debian and "
            "Ubuntu: `apt-get install bubblewrap`, Fedora: `dnf install bubblewrap`)"
        )
    programs = Programs(wrap=wrap, alone=True)
    try:
        found = programs.run(["assert 1 + 1 == 2", "assert 1 + 1 == 3"], 30.0)
    except NotStarted as error:
        raise NoSandbox(f"bubblewrap does not work on this machine: {error}; {way_out()}") from error
    if found != [PASSED, FAILED]:
        raise NoSandbox(f"bubblewrap does not work on this machine: a right and a wrong program have {' and '.join(found)}")
    return programs


def way_out():
    """What may keep bubblewrap from working here."""
    reasons = [
        "it must be version 0.7 or later",
        "in a container it needs the right to make namespaces (for example `--security-opt seccomp=unconfined` "
        "and `--cap-add SYS_ADMIN`)",
    ]
    if os.geteuid() != 0:
        settings = {
            "user.max_user_namespaces": "0",
            "kernel.unprivileged_userns_clone": "0",
            "kernel.apparmor_restrict_unprivileged_userns": "1",
        }
        for name, closed in settings.items():
            path = Path("/proc/sys", *name.split("."))
            if path.is_file() and path.read_text(encoding="ascii").strip() == closed:
                reasons.insert(0, f"`sysctl {name}` is {closed}, which keeps users from making namespaces")
    return "; ".join(reasons)


def wrap(command, readable=(), disk=DISK):
    """The command that runs another in a sandbox. `readable` are folders, as pairs of where they are and where the
    command finds them; `disk` is how many bytes it may write."""
    words = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session", "--hostname", "sandbox"]
    words += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--cap-drop", "ALL"]
    if os.geteuid() == 0:
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        words += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for folder in SYSTEM:
        if os.path.islink(folder):
            words += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            words += ["--ro-bind", folder, folder]
    for path in SETTINGS:
        words += ["--ro-bind-try", path, path]
    words += ["--proc", "/proc", "--dev", "/dev"]
    words += ["--perms", "1777", "--size", str(disk), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    words += ["--perms", "1777", "--size", str(disk), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    made = set()
    for folder, place in [*((folder, folder) for folder in python_folders()), *readable]:
        # bubblewrap makes what lies above a folder readable for root alone, unless it is asked for by itself.
        above = [parent for parent in reversed(Path(place).parents) if str(parent) not in ("/", "/tmp")]
        for parent in above:
            if parent not in made and not any(parent.is_relative_to(shown) for shown in SYSTEM):
                words += ["--dir", str(parent)]
                made.add(parent)
        words += ["--ro-bind", str(folder), str(place)]
    words += ["--remount-ro", "/"]
    return [*words, "--", *command]


def python_folders():
    """Where this Python and its packages lie, without what the system's folders hold already."""
    named = {os.path.abspath(folder) for folder in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)}
    named |= {os.path.realpath(folder) for folder in named}
    folders = []
    for folder in sorted(named):
        if Path(folder) in (Path("/"), Path.home()):
            raise NoSandbox(f"this Python lies in {folder}, all of which would be shown to what a model wrote")
        if not any(Path(folder).is_relative_to(shown) for shown in (*SYSTEM, *folders)):
            folders.append(folder)
    return folders
