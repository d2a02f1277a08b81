"""The gather stage of an alignment job: copied into the run folder, run by its environment."""
