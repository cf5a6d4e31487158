"""``python -m adaptkit``: the command line."""

import sys

from adaptkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
