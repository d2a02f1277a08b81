"""What runs inside a user server's job, on a compute node."""
