#!/usr/bin/env python3
"""Entry point: see seqformer/cli/train.py."""

from seqformer.cli.train import main

if __name__ == "__main__":
    main()
