"""What runs in CellProfiler's own environment: copied there, never imported by labkit."""
