"""Tracks a video frame by frame, with valid output files at any time and bounded memory use."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqformer.checkpoints import read_checkpoint
from seqformer.cli.whole_video import Progress, WrittenVideo, check_existing, no_progress, results_path
from seqformer.errors import InputError
from seqformer.formats.files import replaced_when_complete
from seqformer.formats.results import write_results
from seqformer.formats.spool import ResultSpool, read_spool
from seqformer.inference import StreamingPredictor
from seqformer.structures import FrameResult
from seqformer.video import FrameSource, FrameTime, FrameWriter, open_writer, origin_of
from seqformer.visualization import draw_frame

__all__ = ["StreamingJob"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAVED_EVERY = 30.0  # seconds
_CHECKED_EVERY = 1.0
_SHARE_OF_SAVING = 0.05  # limit, as a fraction of time; each save writes the whole results.json


@dataclass
class _Clock:
    """Tells when to save again, and when to check that this will be possible.

    Attributes:
        last: time of the last save, seconds of ``time.monotonic``.
        took: duration of the last save, seconds.
        checked: time of the last check.
    """

    last: float
    took: float = 0.0
    checked: float = 0.0

    def due(self) -> bool:
        return time.monotonic() - self.last >= max(_SAVED_EVERY, self.took / _SHARE_OF_SAVING)


class _Interruption:
    """A context in which the first SIGINT or SIGTERM sets ``requested``; the second interrupts."""

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

    While it runs, the folder NAME.unfinished next to the output has one line per final frame, and the state
    for resuming the job, which is saved at intervals. The JSON file is saved at the same intervals. The
    folder is removed at the end.

    Args:
        output: an .mp4 file, or a folder for pictures.
        source: the video.
        class_names: names by label.
        category_ids: category ids by label, for the JSON file.
        video_id: video id for the JSON file.
        threshold: minimum current score of the instances to draw.
        resume: continue an interrupted job, if there is one.
        overwrite: replace existing files even if they were not made from this video.
        show: called with each drawn frame.

    Raises:
        InputError: if there is an interrupted job and ``resume`` is not set, or one of another video, or the
            output exists or cannot be written.

    Examples:
        >>> with open_source("camera:0") as source:
        ...     job = StreamingJob("out.mp4", source, class_names=["person"], category_ids=[1])
        ...     job.run(VideoPredictor(cfg).stream(clip_matching=True))
    """

    def __init__(
        self,
        output: str | Path,
        source: FrameSource,
        *,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        video_id: int = 1,
        threshold: float = 0.4,
        resume: bool = False,
        overwrite: bool = False,
        show: Callable[[np.ndarray], None] | None = None,
    ):
        self.output = Path(output)
        self.unfinished = self.output.with_name(self.output.name + ".unfinished")
        self._source = source
        self._class_names = class_names
        self._category_ids = category_ids
        self._video_id = video_id
        self._threshold = threshold
        self._show = show
        self._failure: InputError | None = None  # of the source
        self._resume = resume and self._state_path.is_file()
        if self._state_path.is_file() and not resume:
            raise InputError(
                f"'{self.unfinished}' is from an interrupted run: continue it with `resume`, or remove it"
            )
        self._writer = open_writer(self.output, source, growing=True, resumed=self._resume)
        self._results_path = results_path(self._writer)
        self._origin = origin_of(source.paths) or ""
        if not self._resume and not overwrite:
            check_existing(source, self.output, self._results_path)
        if self._resume and self._origin_path.is_file() and self._origin_path.read_text() != self._origin:
            raise InputError(
                f"'{self.unfinished}' is from an interrupted run on another input: choose another `output`"
            )

    @property
    def _state_path(self) -> Path:
        return self.unfinished / "state.pth"

    @property
    def _origin_path(self) -> Path:
        return self.unfinished / "origin"

    def run(self, stream: StreamingPredictor, progress: Progress = no_progress) -> WrittenVideo:
        """Tracks the video to its end.

        An interruption (SIGINT or SIGTERM) takes effect after the current frame. If the source is a file, the
        final frames are saved in valid files, and a job with ``resume`` continues from there. A live source
        ends with the interruption. If the source fails, the frames before the failure are saved.

        Args:
            stream: a new predictor.
            progress: shows the progress.

        Raises:
            InputError: if the source fails or has no frames, or the output cannot be written.
            KeyboardInterrupt: if the job is interrupted and the source is a file.
        """
        if self._resume:
            restore(stream, self._state_path)
        try:
            self.unfinished.mkdir(parents=True, exist_ok=True)
            self._origin_path.write_text(self._origin)
        except OSError as error:
            raise InputError(f"'{self.output}' cannot be written: {error.strerror}") from error

        def remove_unless_begun() -> None:
            if not stream.num_final:
                shutil.rmtree(self.unfinished, ignore_errors=True)

        with ExitStack() as stack:
            stack.callback(remove_unless_begun)
            spool = stack.enter_context(ResultSpool(self.unfinished / "frames.jsonl", keep=stream.num_final))
            writer = stack.enter_context(self._writer)
            interruption = stack.enter_context(_Interruption())
            frames = self._read(progress(self._source, self._source.length, "tracking"))
            try:
                self._track(stream, spool, frames, writer, interruption)
            except InputError:  # the disk may be full, but the results may fit
                with suppress(InputError):
                    self._write_results(stream, spool)
                raise
            if not stream.count:
                raise self._failure or InputError("the video has no frames")
            num_instances = self._write_results(stream, spool)
        shutil.rmtree(self.unfinished, ignore_errors=True)
        if self._failure:
            raise InputError(f"{self._failure}; the {stream.count} frames before are in '{self.output}'")
        return WrittenVideo(
            self.output, self._results_path, stream.count, num_instances, self._source.problem
        )

    def _track(
        self,
        stream: StreamingPredictor,
        spool: ResultSpool,
        frames: Iterator[np.ndarray],
        writer: FrameWriter,
        interruption: _Interruption,
    ) -> None:
        """Tracks all frames, and writes results to the spool and drawn frames to the writer."""
        again = 0
        for result, frame in zip(read_spool(spool.path), islice(frames, stream.num_final), strict=False):
            writer.write(self._draw(frame, result), self._source.time)
            again += 1
            if interruption.requested:
                raise KeyboardInterrupt
        if again < stream.num_final:
            raise InputError(
                f"the input has {again} frames, but the interrupted run had processed {stream.num_final}: "
                "use the same input, or start without `resume`"
            )
        waiting: deque[tuple[np.ndarray, FrameTime]] = deque()

        def write(results: Iterable[FrameResult]) -> None:
            for result in results:
                spool.write(result)
                frame, time = waiting.popleft()
                writer.write(self._draw(frame, result), time)

        clock = _Clock(time.monotonic())
        for frame in frames:
            if time.monotonic() - clock.checked >= _CHECKED_EVERY:
                self._check_folders()
                clock.checked = time.monotonic()
            try:
                results = stream.push(frame)
            except InputError as error:
                self._failure = error
                break
            waiting.append((frame, self._source.time))
            write(results)
            if interruption.requested and not self._source.paths:
                break
            if interruption.requested or clock.due():
                self._save(stream, spool, clock)
            if interruption.requested:
                raise KeyboardInterrupt
        if waiting:
            write(stream.finish())

    def _check_folders(self) -> None:
        """Checks that files can still be created; those that are open can be written even if not.

        Raises:
            InputError: if not.
        """
        for folder in (self._results_path.parent, self.unfinished):
            if not os.access(folder, os.W_OK):
                raise InputError(f"'{folder}' cannot be written any more")

    def _read(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the frames up to a failure of the source, which is stored in ``_failure``."""
        try:
            yield from frames
        except InputError as error:
            self._failure = error

    def _draw(self, frame: np.ndarray, result: FrameResult) -> np.ndarray:
        instances = [instance for instance in result.instances if instance.score >= self._threshold]
        frame = draw_frame(frame, instances, self._class_names)
        if self._show:
            self._show(frame)
        return frame

    def _save(self, stream: StreamingPredictor, spool: ResultSpool, clock: _Clock) -> None:
        start = time.monotonic()
        self._write_results(stream, spool)  # first, so that a job that can be resumed has results
        with replaced_when_complete(self._state_path) as part:
            try:
                torch.save(stream.state(), part)
            except RuntimeError as error:  # such as a full disk
                reason = str(error).splitlines()[0]
                raise InputError(f"cannot write '{self._state_path}': {reason}") from error
        clock.last = time.monotonic()
        clock.took = clock.last - start

    def _write_results(self, stream: StreamingPredictor, spool: ResultSpool) -> int:
        """Writes results.json for the frames so far. Needs memory for all their RLEs while it runs.

        Returns:
            The number of instances with a score of at least the threshold.
        """
        builder = stream.tracklets()
        builder.add(read_spool(spool.path))
        tracklets = builder.tracklets((self._source.height, self._source.width))
        counted: set[int] = set()  # ids

        def entries() -> Iterator[dict[str, Any]]:
            for tracklet in tracklets:
                if tracklet.score >= self._threshold:
                    counted.add(tracklet.instance_id)
                yield tracklet.to_json(self._video_id, self._category_ids)

        write_results(self._results_path, entries())
        return len(counted)


def restore(stream: StreamingPredictor, path: Path) -> None:
    """Continues a stream from a state.pth.

    Raises:
        InputError: if the file cannot be read or is not a state.
    """
    try:
        stream.restore(read_checkpoint(path))
    except Exception as error:  # damaged files raise nearly everything
        raise InputError(f"'{path}' cannot be read: start without `resume`") from error
