#!/usr/bin/env python3
"""Segments and tracks the instances of a video."""

from seqformer.cli.predict import main

if __name__ == "__main__":
    main()
