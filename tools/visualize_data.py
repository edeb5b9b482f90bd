#!/usr/bin/env python3
"""Entry point: see seqformer/cli/visualize_data.py."""

from seqformer.cli.visualize_data import main

if __name__ == "__main__":
    main()
