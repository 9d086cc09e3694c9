"""The protocol by which models are judged: tasks, what samples are compared with, and the numbers that come of it."""
