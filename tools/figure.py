#!/usr/bin/env python3
"""Draws the paper's figures for any video and any trained model, and comparisons of results."""

from seqformer.cli.figure import main

if __name__ == "__main__":
    main()
