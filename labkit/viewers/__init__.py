"""Viewers: web applications that show data of the notebook in the browser."""
