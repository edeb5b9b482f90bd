"""Tracks a whole video, then draws it and saves the results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.results import write_results
from seqformer.inference import ClipTracer, VideoPredictor
from seqformer.page import read_page_origin, write_page
from seqformer.video import (
    Ahead,
    FrameSource,
    FrameTime,
    FrameWriter,
    VideoWriter,
    open_writer,
    origin_of,
    read_origin,
)
from seqformer.visualization import draw_tracklets

__all__ = ["Progress", "WrittenVideo", "check_existing", "no_progress", "results_path", "track_video"]

_AHEAD = 8  # frames that are read or drawn ahead

Progress = Callable[[Iterable[np.ndarray], int | None, str], Iterable[np.ndarray]]
"""Yields frames while it shows progress: called with the frames, their number and what is being done."""


@dataclass(frozen=True)
class WrittenVideo:
    """The output of a video.

    Attributes:
        output: the video, or the folder of pictures.
        results: the JSON file.
        length: number of frames.
        num_instances: number of instances with a score of at least the threshold.
        problem: one line about parts of the source that could not be read; None if all was read.
    """

    output: Path
    results: Path
    length: int
    num_instances: int
    problem: str | None


def no_progress(frames: Iterable[np.ndarray], total: int | None, what: str) -> Iterable[np.ndarray]:
    """Returns the frames, without showing progress."""
    return frames


def results_path(writer: FrameWriter) -> Path:
    """Returns the path of the JSON file: next to an .mp4, or in the folder of pictures.

    Raises:
        InputError: if the path is a folder.
    """
    is_video = isinstance(writer, VideoWriter)
    path = writer.path.with_suffix(".json") if is_video else writer.path / "results.json"
    if os.path.isdir(path):
        raise InputError(f"'{path}' is a folder, but results are saved there: choose another `output`")
    return path


def check_existing(source: FrameSource, output: Path, results: Path, page: str | Path | None = None) -> None:
    """Checks that existing files may be replaced: only the output of the same input may be.

    Args:
        source: the input.
        output: the video, or the folder of pictures.
        results: the JSON file.
        page: the page, if there will be one.

    Raises:
        InputError: if a file of another input would be replaced.
    """
    origin = origin_of(source.paths)
    repeated = origin is not None and output.is_file() and read_origin(output) == origin
    replaced = [] if repeated else [path for path in (output, results) if path.is_file()]
    if page is not None and os.path.exists(page) and read_page_origin(page) != origin:
        replaced.append(Path(page))
    if replaced:
        raise InputError(
            f"'{replaced[0]}' exists and was not made from this input: choose another `output`, or give "
            "`overwrite` to replace it"
        )


def track_video(
    make_predictor: Callable[[], VideoPredictor],
    source: FrameSource,
    output: str | Path,
    *,
    class_names: Sequence[str],
    category_ids: Sequence[int],
    video_id: int = 1,
    threshold: float = 0.4,
    page: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> WrittenVideo:
    """Tracks a video, draws its instances and saves the results.

    Args:
        make_predictor: creates the predictor, after checking that the output can be written.
        source: the video; it is read twice.
        output: an .mp4 file, or a folder for pictures.
        class_names: names by label.
        category_ids: category ids by label, for the JSON file.
        video_id: video id for the JSON file.
        threshold: minimum score of the instances to draw; the JSON file has all.
        page: an optional .html file; see :func:`seqformer.page.check_page`.
        overwrite: replace existing files even if they were not made from this video.
        progress: shows the progress.

    Raises:
        InputError: if the video cannot be read or has no frames, or a file exists or cannot be written.

    Examples:
        >>> predictor = VideoPredictor(cfg)
        >>> with open_source("street.mp4") as source:
        ...     track_video(lambda: predictor, source, "out.mp4", class_names=["person"], category_ids=[1])
    """
    # Opened before tracking, so that an output that cannot be written is reported at once.
    writer = open_writer(output, source)
    results = results_path(writer)
    if not overwrite:
        check_existing(source, writer.path, results, page)
    result = None
    try:
        with writer:
            predictor = make_predictor()
            with ExitStack() as stack:
                tracer = stack.enter_context(ClipTracer(predictor.network)) if page is not None else None
                tracked = stack.enter_context(Ahead(progress(source, source.length, "tracking"), _AHEAD))
                result = predictor(tracked, observer=tracer)
            problem = source.problem  # read before the next pass resets it
            tracklets = result.best_tracklets(threshold)
            frames = progress(islice(source, result.length), result.length, "drawing")
            times: list[FrameTime] = []
            drawn = ((frame, source.time) for frame in draw_tracklets(frames, tracklets, class_names))
            with Ahead(drawn, _AHEAD) as ready:
                for frame, time in ready:
                    times.append(time)
                    writer.write(frame, time)
    except InputError as error:
        if result is None:
            raise
        try:  # the disk may be full, but the results may fit
            write_results(results, result.to_json(video_id, category_ids))
        except InputError:
            raise error from None
        raise InputError(f"{error}; the results are in '{results}'") from error
    write_results(results, result.to_json(video_id, category_ids))
    if tracer is not None and page is not None:
        write_page(
            page,
            progress(source, result.length, "page"),
            result,
            result.best_tracklets(),
            tracer,
            class_names,
            title=source.name,
            times=times,
            threshold=threshold,
            origin=origin_of(source.paths),
        )
    return WrittenVideo(writer.path, results, result.length, len(tracklets), problem)
