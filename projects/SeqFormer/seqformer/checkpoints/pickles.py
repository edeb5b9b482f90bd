"""Checks the pickles of checkpoints before PyTorch reads them.

PyTorch refuses what could execute code, but takes minutes to say so if its name is long, and unpacks
compressed files to any size.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import IO

__all__ = ["check_pickles"]

_LONGEST_NAME = 1000  # characters
# In a file of PyTorch before 1.6: three headers, the checkpoint, the keys of its storages.
_LEGACY_PICKLES = 5

_MARK = pickletools.markobject
_NAME, _VALUE = object(), object()  # what can be on the stack: names of functions and classes, and the rest


def check_pickles(path: Path) -> None:
    """Checks a file in PyTorch's format.

    Raises:
        ValueError: if it is damaged, is larger than it seems, or calls something other than a named function.
    """
    with path.open("rb") as file:
        is_archive = file.read(4) == b"PK\3\4"
        file.seek(0)
        if not is_archive:
            for _ in range(_LEGACY_PICKLES):
                _check(file)
            return
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its records are compressed or overlap")
        for record in records:
            if record.filename.endswith("data.pkl"):
                with archive.open(record) as file:
                    _check(file)


def _check(file: IO[bytes]) -> None:
    """Follows the stack of a pickle, as pickletools.dis does, to see what it calls."""
    stack: list[object] = []
    memo: dict[object, object] = {}
    for opcode, argument, _ in pickletools.genops(file):
        added: list[object] = [_MARK if item is _MARK else _VALUE for item in opcode.stack_after]
        if opcode.name == "GLOBAL":
            if len(str(argument)) > _LONGEST_NAME:
                raise ValueError(f"a name has {len(str(argument))} characters")
            added = [_NAME]
        elif opcode.name in ("REDUCE", "NEWOBJ") and stack[-2:-1] != [_NAME]:
            raise ValueError("what it calls is not a function")
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            added = [memo[argument]]
        elif opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
            continue
        taken = list(opcode.stack_before)
        if _MARK in taken:
            while stack.pop() is not _MARK:
                pass
            taken = taken[: taken.index(_MARK)]
        if len(taken) > len(stack):
            raise ValueError("its stack is empty")
        del stack[len(stack) - len(taken) :]
        stack += added
