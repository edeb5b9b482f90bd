#!/usr/bin/env python3
"""Builds a dataset of pedestrians in YouTube-VIS format from one video of a fixed camera."""

from seqformer.cli.make_pedestrians import main

if __name__ == "__main__":
    main()
