"""A driver whose first attempt leaves a partial result, as CellProfiler's does."""
