"""What runs inside an alignment job: copied into the run folder, standard library only, 3.9+."""
