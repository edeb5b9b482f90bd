#!/usr/bin/env python3
"""Makes PhotoVIS, a benchmark of composed videos; see ``--help``."""

from seqformer.cli.make_photo_vis import main

if __name__ == "__main__":
    main()
