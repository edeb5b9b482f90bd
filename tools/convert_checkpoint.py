#!/usr/bin/env python3
"""Entry point: see seqformer/cli/convert_checkpoint.py."""

from seqformer.cli.convert_checkpoint import main

if __name__ == "__main__":
    main()
