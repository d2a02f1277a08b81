"""The driver of both stages: run a program of ours with the environment's Python, tell its words.

The worker has this package copied whole, and calls :func:`run`. The program writes lines
to its output: ``PROGRESS done total``, ``SAY text``, ``FACT {json}`` and ``ERROR reason text``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def run(task: Any) -> None:
    """Run the program that the stage's params name; fail with its own words."""
    said: list[tuple[str, str]] = []

    def listen(line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "PROGRESS":
            done, _, total = rest.partition(" ")
            task.progress(int(done), int(total))
        elif word == "FACT":
            for name, value in json.loads(rest).items():
                task.fact(name, value)
        elif word == "ERROR":
            reason, _, text = rest.partition(" ")
            said.append((reason, json.loads(text)))

    about = {
        "params": task.params,
        "files": str(task.files),
        "results": str(task.results),
        "out": str(task.out),
        "tmp": str(task.tmp),
        "cpu": task.cpu,
        "memory": task.memory,
    }
    request = task.tmp / "task.json"
    request.write_text(json.dumps(about))
    program = task.params["program"]
    argv = [task.program("python3"), "-I", str(Path(__file__).parent), program, str(request)]
    code = task.call(argv, on_line=listen, env={"PYTHONUNBUFFERED": "1"})
    if said:
        task.fail(*said[-1])
    if code < 0:
        task.fail("EXIT", f"{program} was ended by signal {-code}")
    if code:
        task.fail("DRIVER", f"{program} ended with code {code}; its log tells more")
