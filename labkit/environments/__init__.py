"""Python packages of one's own: a personal environment over the lab's, and further ones."""

from labkit.environments.personal import Personal, Shadow

__all__ = ["Personal", "Shadow"]
