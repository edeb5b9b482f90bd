"""Threads that read ahead and write behind: order, bounds, errors, early ends; and the demo with them."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videos import encode

import demo
from background import in_background, read_ahead
from seqformer.errors import InputError
from seqformer.visualization import VideoReader, VideoWriter


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert not {"read ahead", "write behind"} & {thread.name for thread in threading.enumerate()}


@settings(max_examples=30)
@given(count=st.integers(0, 30), depth=st.integers(0, 5))
def test_all_in_order(count: int, depth: int) -> None:
    done: list[int] = []
    with read_ahead(range(count), depth) as items, in_background(done.append, depth) as put:
        for item in items:
            put(item)
    assert done == list(range(count))


def test_reading_waits_for_the_caller() -> None:
    """With a depth of 3, at most 3 wait and 1 more was read."""
    begun = threading.Semaphore(0)
    taken: list[int] = []

    def source() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            begun.release()
            yield item

    with read_ahead(source(), 3) as items:
        received = iter(items)
        for wanted, ahead in ((0, 4), (1, 1), (2, 1)):
            for _ in range(ahead):
                assert begun.acquire(timeout=60)
            assert not begun.acquire(timeout=0.3)
            assert next(received) == wanted
    assert len(taken) <= 8, "the rest is not read"


def test_the_caller_waits_for_writing() -> None:
    """With a depth of 2, the fourth call waits until the first is done."""
    go, done = threading.Semaphore(0), []

    def slow(item: int) -> None:
        assert go.acquire(timeout=60)
        done.append(item)

    def calls(put) -> None:
        for item in range(4):
            put(item)

    with in_background(slow, 2) as put:
        caller = threading.Thread(target=calls, args=(put,))
        caller.start()
        caller.join(0.5)
        assert caller.is_alive() and not done
        go.release()
        caller.join(60)
        assert not caller.is_alive()
        go.release(3)
    assert done == [0, 1, 2, 3]


@pytest.mark.parametrize("depth", [0, 1, 4])
@pytest.mark.parametrize("error", [InputError("the cable is out"), KeyboardInterrupt(), MemoryError()])
def test_an_error_of_the_source_comes_in_its_place(depth: int, error: BaseException) -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise error

    done = []
    with pytest.raises(type(error)) as raised:  # noqa: SIM117  what is inside is written first
        with read_ahead(source(), depth) as items, in_background(done.append, depth) as put:
            for item in items:
                put(item)
    assert raised.value is error
    assert done == [0, 1, 2, 3, 4], "what came before is not lost"


@pytest.mark.parametrize("last", [3, 50])
def test_an_error_of_writing_reaches_the_caller(last: int) -> None:
    """At a later call, or at the end; no item is written after one that is missing."""
    done, made = [], []

    def full(item: int) -> None:
        if item == 2:
            raise InputError("No space left on device")
        done.append(item)

    with pytest.raises(InputError, match="No space left"):  # noqa: SIM117
        with in_background(full, 2) as put:
            for item in range(last):
                put(item)
                made.append(item)
    assert done == [0, 1]
    assert len(made) < 10, "the caller does not go on for nothing"


def test_the_first_error_counts() -> None:
    def full(item: int) -> None:
        raise OSError("No space left on device")

    with pytest.raises(InputError, match="the cable"), in_background(full, 4) as put:
        put(1)
        raise InputError("the cable is out")


def test_leaving_early() -> None:
    """The source is let go at once, wherever its reader is; it is closed in its own thread."""
    closed = []

    class Source:
        def __iter__(self) -> Iterator[int]:
            try:
                yield from range(100)
            finally:
                closed.append(threading.current_thread().name)

    with read_ahead(Source(), 2) as items:
        for item in items:
            if item == 3:
                break
    assert closed == ["read ahead"]
    with pytest.raises(ZeroDivisionError), read_ahead(range(100), 2) as items:
        for item in items:
            1 / (item - 3)


def frames_of(path) -> np.ndarray:
    with VideoReader(path) as video:
        return np.stack(list(video))


@pytest.mark.parametrize("mode", [[], ["--streaming"]])
def test_the_same_files(tmp_path, model, mode) -> None:
    source = encode(tmp_path / "in.mp4", 25)
    for name, option in (("a", []), ("b", ["--background-io"])):
        output = tmp_path / name / "out.mp4"
        demo.main(["--input", str(source), "--output", str(output), *model, *mode, *option])
    assert (tmp_path / "a/out.json").read_text() == (tmp_path / "b/out.json").read_text()
    assert np.array_equal(frames_of(tmp_path / "a/out.mp4"), frames_of(tmp_path / "b/out.mp4"))
    assert len(list((tmp_path / "b").iterdir())) == 2


def stop_at(monkeypatch, count: int, action) -> None:
    """Something happens when a file's reader has given ``count`` frames."""
    read = VideoReader.__iter__

    def iterate(self):
        for t, frame in enumerate(read(self)):
            if t == count:
                action()
            yield frame

    monkeypatch.setattr(VideoReader, "__iter__", iterate)


def test_interrupted_and_resumed(tmp_path, model, monkeypatch, capsys) -> None:
    source = encode(tmp_path / "in.mp4", 25)
    command = ["--input", str(source), "--background-io", *model]
    with monkeypatch.context() as patch:
        stop_at(patch, 20, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(SystemExit) as stop:
            demo.main([*command, "--output", str(tmp_path / "b/out.mp4"), "--streaming"])
    assert stop.value.code == 130
    final = int(capsys.readouterr().err.split("interrupted after ")[1].split()[0])
    assert 5 < final < 25
    assert len(frames_of(tmp_path / "b/out.mp4")) == final, "what waited was written"
    assert {len(r["segmentations"]) for r in json.loads((tmp_path / "b/out.json").read_text())} == {final}
    demo.main([*command, "--output", str(tmp_path / "b/out.mp4"), "--resume"])
    demo.main([*command, "--output", str(tmp_path / "a/out.mp4"), "--streaming"])
    assert (tmp_path / "a/out.json").read_text() == (tmp_path / "b/out.json").read_text()
    assert len(frames_of(tmp_path / "b/out.mp4")) == 25


def test_a_source_that_fails(tmp_path, model, monkeypatch, capsys) -> None:
    def fails() -> None:
        raise InputError("the cable is out")

    source = encode(tmp_path / "in.mp4", 25)
    command = ["--input", str(source), "--background-io", *model]
    stop_at(monkeypatch, 17, fails)
    with pytest.raises(SystemExit) as stop:
        demo.main([*command, "--output", str(tmp_path / "out/o.mp4"), "--streaming"])
    assert stop.value.code == 2
    assert "error: the cable is out; the 17 frames before are in " in capsys.readouterr().err
    assert len(frames_of(tmp_path / "out/o.mp4")) == 17
    with pytest.raises(SystemExit):
        demo.main([*command, "--output", str(tmp_path / "whole/o.mp4")])
    assert capsys.readouterr().err == "error: the cable is out\n"
    assert not list((tmp_path / "whole").iterdir())


def test_a_writer_that_fails(tmp_path, model, monkeypatch, capsys) -> None:
    write, written = VideoWriter.write, []

    def fails(self, frame) -> None:
        if len(written) == 5:
            raise InputError("'o.mp4' cannot be written: No space left on device")
        written.append(frame)
        write(self, frame)

    monkeypatch.setattr(VideoWriter, "write", fails)
    command = ["--input", str(encode(tmp_path / "in.mp4", 25)), "--background-io", "--streaming", *model]
    with pytest.raises(SystemExit) as stop:
        demo.main([*command, "--output", str(tmp_path / "out/o.mp4")])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: 'o.mp4' cannot be written: No space left on device\n"
    assert len(frames_of(tmp_path / "out/o.mp4")) == 5
    (length,) = {len(r["segmentations"]) for r in json.loads((tmp_path / "out/o.json").read_text())}
    assert 5 <= length <= 16, "all that was final, and it did not go on for nothing"


def test_no_window_in_a_thread(tmp_path, model, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        demo.main(["--input", str(encode(tmp_path / "in.mp4", 2)), "--background-io", "--display", *model])
    assert stop.value.code == 2
    assert "--display" in capsys.readouterr().err
