"""What the hub knows of SLURM: its programs, the queue, submission, what is left over."""
