"""The queue: requests become jobs, and their results go where the request says."""
