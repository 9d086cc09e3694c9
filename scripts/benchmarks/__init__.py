"""Speed of genlab beside that of its peers: a module for each row of ``python scripts/benchmark.py``."""
