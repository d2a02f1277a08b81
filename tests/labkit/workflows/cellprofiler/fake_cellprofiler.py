#!/usr/bin/env python3
"""Writes what CellProfiler writes, and goes wrong where an image's name says so.

Only for faults that the real CellProfiler cannot be made to have at will: it dies at a given
image set, loses a row, says Complete over the wrong files.
"""

import argparse
import csv
import os
import signal
import sys
from pathlib import Path

MODULES = ["LoadData", "MeasureImageIntensity", "ExportToSpreadsheet"]

parser = argparse.ArgumentParser()
for name in (
    *("pipeline", "output-directory", "done-file", "temporary-directory"),
    *("data-file", "file-list", "image-directory"),
):
    parser.add_argument(f"--{name}")
for name in ("run-headless", "run", "always-continue"):
    parser.add_argument(f"--{name}", action="store_true")
options = parser.parse_args()
with Path(options.data_file).open(newline="") as file:
    rows = list(csv.DictReader(file))
names = [row["FileName_DNA"] for row in rows]
modules = MODULES[1:] if any("drop" in name for name in names) else MODULES
table = []
for number, name in enumerate(names, 1):
    for place, module in enumerate(modules, 1):
        if place == 2 and "crash" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if place == 2 and "exit" in name:
            sys.exit(3)
        if place == 2 and "raise" in name:
            print(
                f"Error detected during run of module {module}\nTraceback (most recent call last)"
            )
            print('  File "x.py", line 1\nValueError: no light\nat all')
        print(
            f"Now: Image # {number}, module {module} # {place}: CPU_time = 0.10 secs, "
            "Wall_time = 0.10 secs",
            flush=True,
        )
        if place == 2 and "raise" in name:
            break
    if "lose" not in name:
        table.append((number, "other.tif" if "swap" in name else name))
out = Path(options.output_directory)
if not any("nothing" in name for name in names):
    with (out / "Image.csv").open("w") as file:
        file.write("ImageNumber,FileName_DNA,Intensity\n")
        file.writelines(f"{number},{name},{number}.5\n" for number, name in table)
        if any("twice" in name for name in names):
            file.write(f"1,{names[0]},1.5\n")
status = "Failure" if any("failure" in name for name in names) else "Complete"
Path(options.done_file).write_text(f"{status}\n")
if any("late" in name for name in names):
    os.kill(os.getpid(), signal.SIGSEGV)
