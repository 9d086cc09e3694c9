"""Let people judge samples: see `python scripts/feedback.py --help`."""

import sys

from genlab.cli import main

if __name__ == "__main__":
    main(["feedback", *sys.argv[1:]])
