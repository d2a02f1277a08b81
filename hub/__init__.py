"""What the hub process runs: the lab file, the configuration of JupyterHub, and the command line."""
