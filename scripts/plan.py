"""Find the model size for this machine and a budget: see `python scripts/plan.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["plan", *sys.argv[1:]])
