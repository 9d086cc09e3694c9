"""Draw from a trained run: see `python scripts/sample.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["sample", *sys.argv[1:]])
