"""CellxGene with its imports made once: executed by the Python of CellxGene's environment.

Importing takes two CPU seconds and more each time, and a hundred tests open a viewer.
``python -I preloaded_cellxgene.py serve.py SOCKET`` imports, and forks for whoever asks at the
socket; ``start.py CONFIG LOG`` beside the socket asks, in the place of ``serve.py``. What is forked
runs ``serve.py`` from its first line on, with the arguments, environment, folder and streams of who
asked. Standard library and CellxGene only.
"""

import importlib.util
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

# What stands in the place of serve.py: it hands over what it was started with.
START = """
import json, os, socket, sys
from pathlib import Path

with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(str(Path(__file__).with_name("socket")))
    asked = {"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}
    socket.send_fds(connection, [json.dumps(asked).encode()], [0, 1, 2])
    sys.exit(int(connection.recv(16) or 1))
"""


def run(data: bytes, streams: list[int], main: Callable[..., None]) -> None:
    """Be what was asked for: its arguments, environment, folder and streams, nothing else open."""
    asked = json.loads(data)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 1024)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    main(*asked["arguments"])


def answer(connection: socket.socket, main: Callable[..., None]) -> None:
    """Fork for one who asks, and say how what was forked ended: at once, since it detaches."""
    data, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    child = os.fork()
    if not child:
        try:
            run(data, streams, main)
        finally:
            os._exit(1)  # the first of it has ended, with 0, when it detached
    for stream in streams:
        os.close(stream)
    _, status = os.waitpid(child, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status) & 0xFF).encode())


def main(serve: str, path: str) -> None:
    """Import what a viewer imports, then fork until the one who started this closes its end."""
    spec = importlib.util.spec_from_file_location("serve", serve)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    importlib.import_module("server.cli.launch")
    importlib.import_module("server.data_anndata.anndata_adaptor")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        Path(path).with_name("start.py").write_text(START)
        print("ready", flush=True)
        module.attach()  # ends with the tests
        while True:
            connection, _ = listening.accept()
            with connection:
                answer(connection, module.main)


if __name__ == "__main__":
    main(*sys.argv[1:])
