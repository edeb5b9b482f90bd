#!/usr/bin/env python3
"""Entry point: see seqformer/cli/export_weights.py."""

from seqformer.cli.export_weights import main

if __name__ == "__main__":
    main()
