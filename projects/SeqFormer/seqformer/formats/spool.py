"""Stores the final frames of a long video on disk, so that results can be built from them at any time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from seqformer.errors import InputError
from seqformer.structures import EndedInstance, FrameInstance, FrameResult

__all__ = ["ResultSpool", "read_spool"]


class ResultSpool:
    """Appends one line of JSON per final frame to a file, and keeps nothing in memory.

    If the process is killed, at most the last line is broken. Readers skip it.

    Args:
        path: the file.
        keep: number of frames of an existing file to keep; 0 starts a new file.

    Raises:
        InputError: if the file cannot be written or has fewer than ``keep`` frames.
    """

    def __init__(self, path: str | Path, keep: int = 0):
        self.path = Path(path)
        try:
            if keep:
                with open(self.path, "rb+") as file:
                    for _ in range(keep):
                        line = file.readline()
                    if not line.endswith(b"\n"):
                        raise InputError(f"'{self.path}' has fewer than {keep} frames: remove its folder")
                    file.truncate()
            else:
                self.path.unlink(missing_ok=True)
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  closed in __exit__
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> ResultSpool:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, frame: FrameResult) -> None:
        """Adds the next frame.

        Raises:
            InputError: if the disk is full.
        """
        try:
            self._file.write(json.dumps(asdict(frame), separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"'{self.path}' cannot be written: {error.strerror or error}")


def read_spool(path: str | Path) -> Iterator[FrameResult]:
    """Yields the frames of a spool file. Stops at a broken last line.

    Raises:
        InputError: if the file cannot be read, or a line is not a frame.
    """
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if not line.endswith("\n"):
                    return
                frame = json.loads(line)
                instances = [FrameInstance(**instance) for instance in frame["instances"]]
                ended = [
                    EndedInstance(instance["instance_id"], [tuple(pair) for pair in instance["scores"]])
                    for instance in frame["ended"]
                ]
                yield FrameResult(frame["index"], instances, ended)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise InputError(f"'{path}' is not a file of final frames: {error}") from error
