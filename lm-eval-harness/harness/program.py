"""One program that a model wrote: what runs in the process that is started for it. Imports the standard library only.

On standard input stands an order, JSON:

    source, word          the program, and what to say when it has run to its end
    memory, processes,    limits, or null for none
    file, processor
    user                  whom to become where this is root, or null

On standard output stands first `ready`, when the program is about to run, so that time spent before is nobody's fault;
then the word, when it has run to its end without an exception. The program itself has no standard streams.
"""

import json
import os
import resource
import sys

READY = b"ready\n"

# Past the largest user id that any system gives out; where it means nothing (in a container) it is nobody's.
NOBODY = 65534


def confine(order):
    """Takes on the limits of an order, and leaves root."""
    try:
        # Should memory run out after all, this is to go first, and not the process that holds a model.
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        pass
    limits = {
        # Elsewhere than on Linux it is not honoured, and setting it an error.
        resource.RLIMIT_AS: order["memory"] if sys.platform == "linux" else None,
        resource.RLIMIT_NPROC: order["processes"],
        resource.RLIMIT_FSIZE: order["file"],
        resource.RLIMIT_CPU: order["processor"],
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        if value is not None:
            _, most = resource.getrlimit(limit)
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(limit, (value, value))
    if order["user"] is not None:
        os.setgroups([])
        try:
            os.setgid(order["user"])
            os.setuid(order["user"])
        except OSError:
            os.setgid(NOBODY)
            os.setuid(NOBODY)


def main():
    order = json.load(sys.stdin)
    status = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    confine(order)
    own = os.getpid()
    word = order.pop("word").encode()
    os.write(status, READY)
    # A fresh namespace, like the one that the authors of HumanEval run programs in: `__name__` is not `__main__` there.
    exec(compile(order.pop("source"), "<program>", "exec"), {})  # noqa: S102
    if os.getpid() == own:
        os.write(status, word)
    os._exit(0)


if __name__ == "__main__":
    main()
