"""One video from frames to files: tracked as a whole, then drawn."""

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
from seqformer.page import write_page
from seqformer.video import FrameSource, FrameWriter, VideoWriter, open_writer
from seqformer.visualization import draw_tracklets
from seqformer.visualization.rows import best_tracklets

__all__ = ["Progress", "WrittenVideo", "no_progress", "results_path", "track_video"]

Progress = Callable[[Iterable[np.ndarray], int | None, str], Iterable[np.ndarray]]
"""Passes frames on while it shows how many of a total there were, and what is done with them."""


@dataclass(frozen=True)
class WrittenVideo:
    """The files made of a video.

    Attributes:
        output: the video, or the folder of pictures.
        results: the JSON file.
        length: frames.
        num_drawn: instances that are drawn.
        problem: what could not be read of the source, in one line; None if all was read.
    """

    output: Path
    results: Path
    length: int
    num_drawn: int
    problem: str | None


def no_progress(frames: Iterable[np.ndarray], total: int | None, what: str) -> Iterable[np.ndarray]:
    """Passes frames on."""
    return frames


def results_path(writer: FrameWriter) -> Path:
    """Where the results of a video go: next to an .mp4, or into the folder of pictures.

    Raises:
        InputError: if there is a folder of that name.
    """
    is_video = isinstance(writer, VideoWriter)
    path = writer.path.with_suffix(".json") if is_video else writer.path / "results.json"
    if os.path.isdir(path):
        raise InputError(f"'{path}' is a folder, but the results go there: choose another `output`")
    return path


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
    progress: Progress = no_progress,
) -> WrittenVideo:
    """Tracks a video, draws its instances and saves the results.

    Args:
        make_predictor: makes the predictor, after the output was found to be writable.
        source: the video; it is read twice.
        output: an .mp4 file, or a folder for pictures.
        class_names: by label.
        category_ids: by label, for the JSON file.
        video_id: for the JSON file.
        threshold: minimum score of an instance that is drawn; the JSON file has all.
        page: an .html file to write as well; see :func:`seqformer.page.check_page`.
        progress: shows how far the work is.

    Raises:
        InputError: if the video cannot be read or has no frames, or a file cannot be written.

    Examples:
        >>> predictor = VideoPredictor(cfg)
        >>> with open_source("street.mp4") as source:
        ...     track_video(lambda: predictor, source, "out.mp4", class_names=["person"], category_ids=[1])
    """
    # Entered before the tracking, so that an output that cannot be written is noticed at once.
    with open_writer(output, source) as writer:
        results = results_path(writer)
        predictor = make_predictor()
        with ExitStack() as stack:
            tracer = stack.enter_context(ClipTracer(predictor.network)) if page is not None else None
            result = predictor(progress(source, source.length, "tracking"), observer=tracer)
        problem = source.problem  # before the next pass begins
        tracklets = best_tracklets(result, threshold)
        frames = progress(islice(source, result.length), result.length, "drawing")
        for frame in draw_tracklets(frames, tracklets, class_names):
            writer.write(frame)
    write_results(results, result.to_json(video_id, category_ids))
    if tracer is not None and page is not None:
        write_page(
            page,
            progress(source, result.length, "page"),
            result,
            best_tracklets(result),
            tracer,
            class_names,
            title=source.name,
            fps=source.fps,
            threshold=threshold,
        )
    return WrittenVideo(writer.path, results, result.length, len(tracklets), problem)
