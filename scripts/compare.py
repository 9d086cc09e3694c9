"""Compare runs: see `python scripts/compare.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
