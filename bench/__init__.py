"""Benchmarks: each against a real peer in the same run; results in docs/benchmarks.md."""
