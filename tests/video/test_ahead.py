"""Ahead: the same items and errors in the same order, a bounded number ahead, and no thread at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from operator import length_hint

import pytest

from seqformer.errors import InputError
from seqformer.video import Ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ahead"]


def test_the_same_items_in_order() -> None:
    with Ahead(range(100), 3) as items:
        assert length_hint(items) == 100
        assert list(items) == list(range(100))
        assert list(items) == []
    assert not threads()


def test_no_more_than_the_given_number_is_computed_ahead() -> None:
    computed: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            computed.append(item)
            yield item

    with Ahead(items(), 4) as ready:
        assert next(ready) == 0
        deadline = time.monotonic() + 5
        while len(computed) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        assert len(computed) == 6, "one used, four wait, and one is ready for a free place"
    assert not threads(), "the block was left before the end"


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise InputError("the file ends")

    used = []
    with pytest.raises(InputError, match="the file ends"), Ahead(items(), 8) as ready:
        for item in ready:
            used.append(item)
    assert used == [0, 1, 2]
    assert not threads()


def test_an_error_of_the_user_ends_the_thread() -> None:
    with pytest.raises(KeyboardInterrupt), Ahead(iter(int, 1), 2) as ready:
        next(ready)
        raise KeyboardInterrupt
    assert not threads()
