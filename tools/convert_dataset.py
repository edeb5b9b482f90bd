#!/usr/bin/env python3
"""Entry point: see seqformer/cli/convert_dataset.py."""

from seqformer.cli.convert_dataset import main

if __name__ == "__main__":
    main()
