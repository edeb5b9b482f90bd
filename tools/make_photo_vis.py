#!/usr/bin/env python3
"""Entry point: see seqformer/cli/make_photo_vis.py."""

from seqformer.cli.make_photo_vis import main

if __name__ == "__main__":
    main()
