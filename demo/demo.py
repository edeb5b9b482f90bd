#!/usr/bin/env python3
"""Entry point: see seqformer/cli/predict.py."""

from seqformer.cli.predict import main

if __name__ == "__main__":
    main()
