"""The gather, a job's last task: copied into the run folder, run by the notebook environment."""
