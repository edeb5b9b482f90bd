"""``python -m seqformer.env``: what is installed, what it runs on, and what to do about what is missing."""

import sys

from seqformer.cli.env import main

if __name__ == "__main__":
    sys.exit(main())
