"""One spawner per target; what they share is in ``base``."""
