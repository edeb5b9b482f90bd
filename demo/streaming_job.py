"""One video from frames to files, where every file is valid at every moment and memory does not grow."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as mask_codec

from background import in_background, read_ahead
from seqformer.data.files import replaced_when_complete
from seqformer.errors import InputError
from seqformer.evaluation.results import write_results
from seqformer.evaluation.spool import ResultSpool, read_spool
from seqformer.inference import StreamingPredictor
from seqformer.structures import FrameResult
from seqformer.visualization import FrameSource, VideoWriter, draw_instances, open_writer

__all__ = ["StreamingJob"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAVED_EVERY = 30.0  # seconds
_SHARE_OF_SAVING = 0.05  # of all time, at most; results.json is written whole each time


@dataclass
class _Clock:
    """Says when it is time to save again."""

    last: float
    took: float = 0.0

    def due(self) -> bool:
        return time.monotonic() - self.last >= max(_SAVED_EVERY, self.took / _SHARE_OF_SAVING)


class _Interruption:
    """Within it SIGINT and SIGTERM are a request, looked at between frames; a second one interrupts."""

    def __enter__(self) -> _Interruption:
        self.requested = False
        self._handlers = {number: signal.signal(number, self._request) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _request(self, *_: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


class StreamingJob:
    """Tracks, draws and writes a video frame by frame.

    Beside the output stands the folder NAME.unfinished: a line for every final frame, written as it becomes
    final, and at intervals all that it takes to go on. Then, too, the JSON file is written anew. The folder
    goes when all is written.

    Args:
        output: an .mp4 file, or a folder for pictures.
        source: where the frames come from.
        names: of the classes.
        category_ids: of the classes, in the JSON file.
        video_id: in the JSON file.
        threshold: least score so far of an instance that is drawn.
        resume: go on with what an interrupted job left; without it the job starts anew.
        show: is given every drawn frame, too.
        depth: frames that threads may read ahead, and draw and write behind; 0 for no threads.

    Raises:
        InputError: if there is nothing to resume, or the output cannot be written.
    """

    def __init__(
        self,
        output: Path,
        source: FrameSource,
        *,
        names: Sequence[str],
        category_ids: Sequence[int],
        video_id: int,
        threshold: float,
        resume: bool = False,
        show: Callable[[np.ndarray], None] | None = None,
        depth: int = 0,
    ):
        self.output = output
        self.unfinished = output.with_name(output.name + ".unfinished")
        self.drawn: set[int] = set()  # ids of the instances that were drawn
        self._source = source
        self._names = names
        self._category_ids = category_ids
        self._video_id = video_id
        self._threshold = threshold
        self._show = show
        self._depth = depth
        self._failure: InputError | None = None  # of the source
        self._resume = resume and self._state_path.is_file()
        if self._state_path.is_file() and not resume:
            raise InputError(
                f"'{self.unfinished}' is of an interrupted run: go on with --resume, or remove it"
            )
        self._writer = open_writer(output, source, growing=True, resumed=self._resume)
        is_video = isinstance(self._writer, VideoWriter)
        self.json_path = output.with_suffix(".json") if is_video else output / "results.json"
        if os.path.isdir(self.json_path):
            raise InputError(
                f"'{self.json_path}' is a folder, but the results go there: choose another --output"
            )

    @property
    def _state_path(self) -> Path:
        return self.unfinished / "state.pth"

    def run(self, stream: StreamingPredictor, progress: Callable[[Iterable], Iterable]) -> int:
        """The whole job. Returns the number of frames.

        An interruption (SIGINT or SIGTERM) waits for the frame at hand. That of a file leaves the final
        frames in valid files, to be resumed; that of a live source is its end. When the source fails, all
        frames before are written as if it had ended there.

        Args:
            stream: a new predictor.
            progress: passes frames on and shows how many.

        Raises:
            InputError: if the source fails or has no frames, or the output cannot be written.
            KeyboardInterrupt: on an interruption of a file.
        """
        if self._resume:
            self._restore(stream)
        try:
            self.unfinished.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"'{self.output}' cannot be written: {error.strerror}") from error
        with ExitStack() as stack:
            stack.callback(lambda: stream.num_final or shutil.rmtree(self.unfinished, ignore_errors=True))
            spool = stack.enter_context(ResultSpool(self.unfinished / "frames.jsonl", keep=stream.num_final))
            writer = stack.enter_context(self._writer)
            interruption = stack.enter_context(_Interruption())

            def bring(drawable: tuple[np.ndarray, FrameResult]) -> None:
                writer.write(self._draw(*drawable))

            try:
                with (
                    read_ahead(self._source, self._depth) as source,
                    in_background(bring, self._depth) as put,
                ):
                    self._track(stream, spool, self._read(progress(source)), put, interruption)
            except InputError:  # the disk is full, perhaps not for this
                with suppress(InputError):
                    self._write_results(stream, spool)
                raise
            if not stream.count:
                raise self._failure or InputError("the video has no frames")
            self._write_results(stream, spool)
        shutil.rmtree(self.unfinished, ignore_errors=True)
        if self._failure:
            raise InputError(f"{self._failure}; the {stream.count} frames before are in '{self.output}'")
        return stream.count

    def _track(
        self,
        stream: StreamingPredictor,
        spool: ResultSpool,
        frames: Iterator[np.ndarray],
        put: Callable[[tuple[np.ndarray, FrameResult]], None],
        interruption: _Interruption,
    ) -> None:
        """Brings all frames to the files: their results to the spool, and what is to be drawn to ``put``."""
        again = 0
        for result, frame in zip(read_spool(spool.path), islice(frames, stream.num_final), strict=False):
            put((frame, result))
            again += 1
            if interruption.requested:
                raise KeyboardInterrupt
        if again < stream.num_final:
            raise InputError(
                f"the input has {again} frames, but the interrupted run had {stream.num_final} of it: "
                "give the same input, or start without --resume"
            )
        waiting: deque[np.ndarray] = deque()

        def write(results: Iterable[FrameResult]) -> None:
            for result in results:
                spool.write(result)
                put((waiting.popleft(), result))

        clock = _Clock(time.monotonic())
        for frame in frames:
            try:
                results = stream.push(frame)
            except InputError as error:
                self._failure = error
                break
            waiting.append(frame)
            write(results)
            if interruption.requested and not self._source.paths:
                break
            if interruption.requested or clock.due():
                self._save(stream, spool, clock)
            if interruption.requested:
                raise KeyboardInterrupt
        if waiting:
            write(stream.finish())

    def _read(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same frames, up to a failure of the source, which is remembered."""
        try:
            yield from frames
        except InputError as error:
            self._failure = error

    def _draw(self, frame: np.ndarray, result: FrameResult) -> np.ndarray:
        seen = [instance for instance in result.instances if instance.score >= self._threshold]
        if seen:
            self.drawn.update(instance.instance_id for instance in seen)
            masks = mask_codec.decode([instance.mask for instance in seen])
            frame = draw_instances(
                frame,
                masks.transpose(2, 0, 1),
                [instance.instance_id for instance in seen],
                [self._names[instance.label] for instance in seen],
                [instance.score for instance in seen],
            )
        if self._show:
            self._show(frame)
        return frame

    def _save(self, stream: StreamingPredictor, spool: ResultSpool, clock: _Clock) -> None:
        start = time.monotonic()
        with replaced_when_complete(self._state_path) as part:
            torch.save(stream.state(), part)
        self._write_results(stream, spool)
        clock.last = time.monotonic()
        clock.took = clock.last - start

    def _write_results(self, stream: StreamingPredictor, spool: ResultSpool) -> None:
        """Writes results.json of the frames so far, with the memory of all their RLEs."""
        tracklets = stream.tracklets()
        tracklets.add(read_spool(spool.path))
        result = tracklets.result((self._source.height, self._source.width))
        write_results(self.json_path, result.to_json(self._video_id, self._category_ids))

    def _restore(self, stream: StreamingPredictor) -> None:
        try:
            stream.restore(torch.load(self._state_path, weights_only=True))
        except (OSError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise InputError(f"'{self._state_path}' cannot be read: start without --resume") from error
