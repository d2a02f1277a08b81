"""Kill whatever runs jobs, at random moments, and count what is lost or doubled.

``python -m bench.chaos {local,slurm,disks} [--kills 1000] [--seed 1] [--seconds S] [--keep DIR]
[--tasks N]``

``disks``: on this machine, while the disk of runs, queue or temporary files is full or read-only.
``--tasks 10000``: one large job with 200 kills instead of many small ones.
It prints a table, and ends with 1 where anything was lost, doubled, replaced or left.
"""
