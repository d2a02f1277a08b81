"""What the hub process runs: lab file, JupyterHub's configuration, command line."""
