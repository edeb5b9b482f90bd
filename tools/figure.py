#!/usr/bin/env python3
"""Entry point: see seqformer/cli/figure.py."""

from seqformer.cli.figure import main

if __name__ == "__main__":
    main()
