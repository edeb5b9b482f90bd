"""Keeps FFmpeg's decoders and encoders from being freed in forked processes."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, ClassVar, Generic, TypeVar

from av.container import Container
from av.video.stream import VideoStream

__all__ = ["Opened"]

C = TypeVar("C", bound=Container)


class Opened(Generic[C]):
    """An open file and its video stream, which is being decoded or encoded by several threads.

    A data loader forks. The forked process has copies of PyAV's objects but not of their threads, and freeing
    a decoder or encoder waits for its threads: the process would hang when it collects garbage. So in forked
    processes they are never freed. Code must keep a reference to this object for as long as to the others.

    Args:
        container: the open file.
        stream: its stream.
    """

    _all: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()

    def __init__(self, container: C, stream: VideoStream):
        self.container = container
        self.stream = stream
        Opened._all.add(self)

    def close(self) -> None:
        """Closes the file."""
        self.container.close()

    @staticmethod
    def _keep_all() -> None:
        for opened in list(Opened._all):  # including those that are garbage, but not collected yet
            for item in (opened.container, opened.stream, opened.stream.codec_context):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(item))


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=Opened._keep_all)
