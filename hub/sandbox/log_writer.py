"""Copy a server's output to its log, which never grows beyond a limit.

It runs as a process of its own, in the server's cgroup: it outlives the hub, a flood costs the
server that makes it, and ends with it. Standard library only, and little of it, since there is
one per server: ``python -I -S log_writer.py FILE BYTES < output``.
"""

import os
import sys

BLOCK = 65536


def copy(source: int, path: str, limit: int) -> None:
    """Copy until the end of the input; at half the limit the log becomes ``path.1``."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = os.open(path, flags, 0o600)
    size = os.fstat(log).st_size
    while block := os.read(source, BLOCK):
        if size + len(block) > limit // 2:
            os.close(log)
            os.rename(path, path + ".1")  # noqa: PTH104 (pathlib is 3 MB more)
            log = os.open(path, flags, 0o600)
            size = 0
        try:
            size += os.write(log, block)
        except OSError:
            continue  # a full disk must not stop the server: it would wait for its output


if __name__ == "__main__":
    copy(0, sys.argv[1], int(sys.argv[2]))
