"""What runs inside a job: standard library only, Python 3.9 or newer.

This package is copied into each run folder, so that a compute node needs nothing but Python.
"""
