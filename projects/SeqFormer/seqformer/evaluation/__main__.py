"""``python -m seqformer.evaluation`` is the same as ``seqformer evaluate``."""

from seqformer.cli.evaluate import main

if __name__ == "__main__":
    main()
