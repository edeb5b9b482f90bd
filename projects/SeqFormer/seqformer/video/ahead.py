"""Computes the next items of an iterable in another thread while the current one is used."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from operator import length_hint
from queue import Full, Queue
from typing import Generic, TypeVar

__all__ = ["Ahead"]

_Item = TypeVar("_Item")
_CHECKED_EVERY = 0.1  # seconds; how often a thread with a full queue checks whether it should end


class Ahead(Generic[_Item]):
    """An iterator over the same items, some of which are computed ahead in another thread.

    An exception of ``items`` is raised where the iterator would return the next item. When the ``with`` block
    ends, so has the thread: what ``items`` reads from can be closed.

    Args:
        items: the items.
        count: how many of them may wait.

    Examples:
        >>> with open_source("street.mp4") as video, Ahead(video, 8) as frames:
        ...     for frame in frames:
        ...         print(frame.shape)
    """

    def __init__(self, items: Iterable[_Item], count: int):
        self._items = items
        self._queue: Queue[tuple[_Item] | BaseException] = Queue(count)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._compute, name="ahead", daemon=True)

    def __enter__(self) -> Ahead[_Item]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        entry = self._queue.get()
        if isinstance(entry, BaseException):
            self._put(entry)  # for the next call
            raise entry
        return entry[0]

    def __length_hint__(self) -> int:
        return length_hint(self._items)

    def _compute(self) -> None:
        try:
            for item in self._items:
                if not self._put((item,)):
                    return
            self._put(StopIteration())
        except BaseException as error:
            self._put(error)

    def _put(self, entry: tuple[_Item] | BaseException) -> bool:
        """Returns whether the entry was put, and not the end of the block requested."""
        while not self._stop.is_set():
            try:
                self._queue.put(entry, timeout=_CHECKED_EVERY)
            except Full:
                continue
            return True
        return False
