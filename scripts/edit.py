"""Change a picture by a trained run: see `python scripts/edit.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["edit", *sys.argv[1:]])
