"""``python -m seqformer.env``: reports what is installed, the hardware, and how to fix what is missing."""

from seqformer.cli.env import main

if __name__ == "__main__":
    main()
