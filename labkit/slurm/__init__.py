"""The one SLURM client: its commands, what they print, and what that means in plain words.

The hub, the job backend and the test cluster use it. It imports neither `labkit.jobs` nor anything
heavy.
"""
