#!/usr/bin/env python3
"""Entry point: see seqformer/cli/convert_results.py."""

from seqformer.cli.convert_results import main

if __name__ == "__main__":
    main()
