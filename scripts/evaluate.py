"""Measure a trained run: see `python scripts/evaluate.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
