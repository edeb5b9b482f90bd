"""One video from frames to files, frame by frame: all files are valid at any moment, memory does not grow."""

from __future__ import annotations

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

from seqformer.cli.whole_video import Progress, WrittenVideo, no_progress, results_path
from seqformer.errors import InputError
from seqformer.formats.files import replaced_when_complete
from seqformer.formats.results import write_results
from seqformer.formats.spool import ResultSpool, read_spool
from seqformer.inference import StreamingPredictor
from seqformer.structures import FrameResult
from seqformer.video import FrameSource, FrameWriter, open_writer
from seqformer.visualization import draw_frame

__all__ = ["StreamingJob"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAVED_EVERY = 30.0  # seconds
_SHARE_OF_SAVING = 0.05  # of all time, at most; each time the whole results.json is written


@dataclass
class _Clock:
    """Says when it is time to save again.

    Attributes:
        last: when the state was last saved, seconds of ``time.monotonic``.
        took: seconds that saving took.
    """

    last: float
    took: float = 0.0

    def due(self) -> bool:
        return time.monotonic() - self.last >= max(_SAVED_EVERY, self.took / _SHARE_OF_SAVING)


class _Interruption:
    """Within it SIGINT and SIGTERM only set ``requested``; the second one raises KeyboardInterrupt."""

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

    While it runs, the folder NAME.unfinished next to the output has a line for each final frame and, saved at
    intervals, the state that a resumed job starts from. The JSON file is saved at the same intervals. The
    folder is removed at the end.

    Args:
        output: an .mp4 file, or a folder for pictures.
        source: the video.
        class_names: by label.
        category_ids: by label, for the JSON file.
        video_id: for the JSON file.
        threshold: minimum score so far of an instance that is drawn.
        resume: continue an interrupted job; without one, start from the beginning.
        show: gets every drawn frame.

    Raises:
        InputError: if there is an interrupted job that ``resume`` does not continue, or the output cannot be
            written.

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
        show: Callable[[np.ndarray], None] | None = None,
    ):
        self.output = Path(output)
        self.unfinished = self.output.with_name(self.output.name + ".unfinished")
        self._drawn: set[int] = set()  # ids
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

    @property
    def _state_path(self) -> Path:
        return self.unfinished / "state.pth"

    def run(self, stream: StreamingPredictor, progress: Progress = no_progress) -> WrittenVideo:
        """Tracks the video to its end.

        An interruption (SIGINT or SIGTERM) takes effect after the current frame. If the source is a file, its
        final frames are in valid files, and a job with ``resume`` continues from there; if it is live, the
        interruption is its end. When the source fails, all frames before are written as if it had ended
        there.

        Args:
            stream: a new predictor.
            progress: shows how far the work is.

        Raises:
            InputError: if the source fails or has no frames, or the output cannot be written.
            KeyboardInterrupt: if the job was interrupted and the source is a file.
        """
        if self._resume:
            self._restore(stream)
        try:
            self.unfinished.mkdir(parents=True, exist_ok=True)
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
        return WrittenVideo(
            self.output, self._results_path, stream.count, len(self._drawn), self._source.problem
        )

    def _track(
        self,
        stream: StreamingPredictor,
        spool: ResultSpool,
        frames: Iterator[np.ndarray],
        writer: FrameWriter,
        interruption: _Interruption,
    ) -> None:
        """Writes the results of all frames to the spool, and the drawn frames to the writer."""
        again = 0
        for result, frame in zip(read_spool(spool.path), islice(frames, stream.num_final), strict=False):
            writer.write(self._draw(frame, result))
            again += 1
            if interruption.requested:
                raise KeyboardInterrupt
        if again < stream.num_final:
            raise InputError(
                f"the input has {again} frames, but the interrupted run had {stream.num_final} of it: "
                "give the same input, or start without `resume`"
            )
        waiting: deque[np.ndarray] = deque()

        def write(results: Iterable[FrameResult]) -> None:
            for result in results:
                spool.write(result)
                writer.write(self._draw(waiting.popleft(), result))

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
        """The same frames up to a failure of the source, which is kept in ``_failure``."""
        try:
            yield from frames
        except InputError as error:
            self._failure = error

    def _draw(self, frame: np.ndarray, result: FrameResult) -> np.ndarray:
        shown = [instance for instance in result.instances if instance.score >= self._threshold]
        self._drawn.update(instance.instance_id for instance in shown)
        frame = draw_frame(frame, shown, self._class_names)
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
        """Writes results.json of the frames so far; needs the memory of all their RLEs while it runs."""
        builder = stream.tracklets()
        builder.add(read_spool(spool.path))
        tracklets = builder.tracklets((self._source.height, self._source.width))
        entries = (tracklet.to_json(self._video_id, self._category_ids) for tracklet in tracklets)
        write_results(self._results_path, entries)

    def _restore(self, stream: StreamingPredictor) -> None:
        try:
            stream.restore(torch.load(self._state_path, weights_only=True))
        except (OSError, EOFError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise InputError(f"'{self._state_path}' cannot be read: start without `resume`") from error
