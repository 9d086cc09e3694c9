"""Find directions in the latent space of a run: see `python scripts/directions.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["directions", *sys.argv[1:]])
