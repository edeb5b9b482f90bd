#!/usr/bin/env python3
"""Trains SeqFormer, or evaluates it with ``--eval-only``."""

from seqformer.engine.trainer import command_line

if __name__ == "__main__":
    command_line()
