#!/usr/bin/env python3
"""Draws training clips as the model sees them."""

from seqformer.cli.visualize_data import main

if __name__ == "__main__":
    main()
