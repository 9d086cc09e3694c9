"""Check a recipe against its bands: see `python scripts/verify.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["verify", *sys.argv[1:]])
