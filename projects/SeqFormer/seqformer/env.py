"""``python -m seqformer.env``: what is installed, what it runs on, and what to do about what is missing."""

from seqformer.cli.env import main

if __name__ == "__main__":
    main()
