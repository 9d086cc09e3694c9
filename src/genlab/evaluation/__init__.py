"""The evaluation protocol: tasks, references, and the resulting numbers."""
