"""Work that goes on in threads, in order and never far ahead: reading before, writing behind."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

__all__ = ["in_background", "read_ahead"]

T = TypeVar("T")

_LOOKS_EVERY = 0.1  # seconds in which a blocked reader sees that nobody wants more


class _End:
    """Comes after the last item, with the error that ended them, if any."""

    def __init__(self, error: BaseException | None):
        self.error = error


@contextmanager
def read_ahead(items: Iterable[T], depth: int) -> Iterator[Iterable[T]]:
    """The same items, taken by a thread while the caller works on earlier ones.

    An error of ``items`` comes where it would have come. When the block ends, the thread has ended, too, and
    nothing reads ``items`` any more.

    Args:
        items: read in the thread alone.
        depth: items that may wait; 0 for no thread.

    Example:
        >>> with read_ahead(video, 8) as frames:
        ...     for frame in frames:
        ...         print(frame.shape)
    """
    if not depth:
        yield items
        return
    waiting: queue.Queue[T | _End] = queue.Queue(depth)
    unwanted = threading.Event()

    def put(item: T | _End) -> None:
        while not unwanted.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=_LOOKS_EVERY)
                return

    def read() -> None:
        error = None
        try:
            for item in items:
                put(item)
                if unwanted.is_set():
                    return
        except BaseException as raised:  # whatever it is, it is raised where the items are used
            error = raised
        put(_End(error))

    def received() -> Iterator[T]:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    thread = threading.Thread(target=read, name="read ahead", daemon=True)
    thread.start()
    try:
        yield received()
    finally:
        unwanted.set()
        thread.join()


class _Sink(Generic[T]):
    """Hands items to a function in a thread."""

    def __init__(self, function: Callable[[T], None], depth: int):
        self._function = function
        self._waiting: queue.Queue[T | _End] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="write behind", daemon=True)
        self._thread.start()

    def __call__(self, item: T) -> None:
        self._raise()
        self._waiting.put(item)

    def finish(self) -> None:
        """Waits until all is done.

        Raises:
            BaseException: what the function raised, if the caller has not got it yet.
        """
        self._waiting.put(_End(None))
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        failed = False
        while not isinstance(item := self._waiting.get(), _End):
            if failed:  # no item after one that is missing
                continue
            try:
                self._function(item)
            except BaseException as error:  # whatever it is, it is raised where items come from
                self._error, failed = error, True


@contextmanager
def in_background(function: Callable[[T], None], depth: int) -> Iterator[Callable[[T], None]]:
    """The same function, done by a thread while the caller goes on.

    Calls are done in their order. An error ends them: it is raised by the next call, or at the end of the
    block. However the block ends, by an error or an interruption, all calls before are done first.

    Args:
        function: called in the thread alone.
        depth: calls that may wait; 0 for no thread.

    Example:
        >>> with in_background(writer.write, 8) as write:
        ...     for frame in frames:
        ...         write(frame)
    """
    if not depth:
        yield function
        return
    sink = _Sink(function, depth)
    try:
        yield sink
    except BaseException:
        with suppress(Exception):  # the error that is on its way comes first
            sink.finish()
        raise
    sink.finish()
