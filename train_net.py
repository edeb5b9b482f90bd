#!/usr/bin/env python3
"""Trains SeqFormer, or evaluates it with ``--eval-only``."""

from seqformer.cli.train import main

if __name__ == "__main__":
    main()
