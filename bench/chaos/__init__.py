"""Kill whatever runs jobs, at random moments, and count what is lost or doubled.

``python -m bench.chaos {local,slurm} [--kills 1000] [--seed 1] [--seconds S] [--keep FOLDER]``

It prints a table, and ends with 1 where anything was lost, doubled, replaced or left.
"""
