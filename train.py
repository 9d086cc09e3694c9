"""Train a model: see `python train.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
