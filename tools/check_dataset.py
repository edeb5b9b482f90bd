#!/usr/bin/env python3
"""Entry point: see seqformer/cli/check.py."""

from seqformer.cli.check import main

if __name__ == "__main__":
    main()
