#!/usr/bin/env python3
"""Entry point: see seqformer/cli/make_pedestrians.py."""

from seqformer.cli.make_pedestrians import main

if __name__ == "__main__":
    main()
