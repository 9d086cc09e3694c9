"""Write the weights of a run for other programs: see `python scripts/export.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
