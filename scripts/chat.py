"""Talk with a trained run: see `python scripts/chat.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["chat", *sys.argv[1:]])
