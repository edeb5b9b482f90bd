"""Writes the page: a single HTML file with a video, its instances and traces."""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from fractions import Fraction
from importlib import resources
from pathlib import Path

import cv2
import numpy as np

from seqformer.errors import InputError
from seqformer.formats.files import replaced_when_complete
from seqformer.inference.clip_traces import ClipTracer
from seqformer.page.data import PageData, fit_points, page_data
from seqformer.structures import Tracklet, VideoResult
from seqformer.video.display import FrameTime
from seqformer.video.sinks import VideoWriter

__all__ = [
    "MAX_FRAMES",
    "MAX_FRAMES_IN_ONE_CLIP",
    "check_page",
    "page_size",
    "read_page_origin",
    "write_page",
]

MAX_FRAMES = 1800  # a minute at 30 frames per second
MAX_FRAMES_IN_ONE_CLIP = 300  # without clip matching, because a clip is traced as a whole
FLOOR = 0.1  # minimum score of the instances in a page
_LONGEST_SIDE = 1280  # pixels of the page's video
_HEAD = 2000  # characters at the start of a page, with its origin
_MIN_RATE = 200_000  # bits per second
_VIDEO_BYTES = 4_000_000  # target size
_TRACE_BYTES = 3_500_000  # target size before compression


def page_size(height: int, width: int) -> tuple[int, int]:
    """Returns height and width of a page's video: even, and at most 1280 pixels."""
    scale = min(1.0, _LONGEST_SIDE / max(height, width))
    height, width = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
    return height, width


def check_page(path: str | Path, length: int | None, *, clip_matching: bool) -> None:
    """Checks before tracking that a page can be written.

    Args:
        path: the .html file.
        length: number of frames, if known.
        clip_matching: whether the video is cut into clips.

    Raises:
        InputError: if the path is not .html or cannot be written, or the video is too long.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"page '{path}': name an .html file")
    if os.path.isdir(path):
        raise InputError(f"page '{path}' is a folder: name an .html file in it")
    limit = MAX_FRAMES if clip_matching else MAX_FRAMES_IN_ONE_CLIP
    if length is not None and length > limit:
        clips = "" if clip_matching else " without MODEL.SeqFormer.CLIP_MATCHING"
        raise InputError(
            f"page '{path}': the video has {length} frames, but a page{clips} can have at most {limit}: "
            "use a shorter one"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"page '{path}' cannot be written: {error.strerror}") from error


def write_page(
    path: str | Path,
    frames: Iterable[np.ndarray],
    result: VideoResult,
    tracklets: Sequence[Tracklet],
    tracer: ClipTracer,
    class_names: Sequence[str],
    *,
    title: str,
    times: Sequence[FrameTime],
    threshold: float,
    origin: str | None = None,
) -> None:
    """Writes the page atomically.

    Args:
        path: the .html file.
        frames: the frames of the video, (H, W, 3) uint8 RGB.
        result: the prediction for the video.
        tracklets: one per instance; those with a score below both 0.1 and ``threshold`` are dropped.
        tracer: the tracer that observed tracking.
        class_names: names by label.
        title: title of the page.
        times: the times of the frames.
        threshold: initial minimum score of visible instances.
        origin: digest of the source; see :func:`seqformer.video.origin_of`.

    Raises:
        InputError: if the page cannot be written, or the video is too long.
    """
    if result.length > MAX_FRAMES:
        raise InputError(
            f"page '{path}' was not written: the video has {result.length} frames, but a page can have at "
            f"most {MAX_FRAMES}; the other files are saved"
        )
    size = page_size(result.height, result.width)
    floor = min(FLOOR, threshold)
    kept = [tracklet for tracklet in tracklets if tracklet.score >= floor]
    data = page_data(
        kept,
        tracer,
        class_names,
        length=result.length,
        size=size,
        times=[float(time.start) for time in times] + [float(sum(times[-1]))],
        threshold=threshold,
        floor=math.floor(100 * floor) / 100,
        points=fit_points(tracer, kept, _TRACE_BYTES),
    )
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "video.mp4")
        _write_video(video, frames, times, size)
        content = page_html(title, data, video.read_bytes(), origin)
    with replaced_when_complete(path) as part:
        part.write_text(content, encoding="utf-8")


def read_page_origin(path: str | Path) -> str | None:
    """Returns the digest of the source that a page was made from; None if the file is not such a page."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.search(r'<meta name="origin" content="(\w+)">', file.read(_HEAD))
    except OSError:
        return None
    return found and found[1]


def page_html(title: str, data: PageData, video: bytes, origin: str | None = None) -> str:
    """Joins the page's assets with its data and video."""
    folder = resources.files("seqformer.page") / "assets"
    filled = {
        "title": html.escape(title),
        "origin": html.escape(origin or ""),
        "style": (folder / "page.css").read_text("utf-8"),
        # Escaped, because "</script" would end the script element.
        "description": json.dumps({"title": title, **data.description}).replace("<", "\\u003c"),
        "arrays": data.arrays,
        "video": base64.b64encode(video).decode("ascii"),
        "script": "\n".join((folder / name).read_text("utf-8") for name in ("stage.js", "page.js")),
    }
    parts = (folder / "index.html").read_text("utf-8").split("@@")
    return "".join(filled[part] if n % 2 else part for n, part in enumerate(parts))


def _write_video(
    path: Path, frames: Iterable[np.ndarray], times: Sequence[FrameTime], size: tuple[int, int]
) -> None:
    height, width = size
    seconds = sum(times[-1], Fraction(0))
    rate = str(max(_MIN_RATE, round(8 * _VIDEO_BYTES / seconds)))
    # No B-frames and a key frame every 15 frames, so that a browser can show any frame quickly.
    encoder = {"preset": "medium", "bf": "0", "g": "15", "crf": "24", "maxrate": rate, "bufsize": rate}
    with VideoWriter(path, height, width, len(times) / seconds, encoder) as writer:
        for time, frame in zip(times, frames, strict=False):
            if frame.shape[:2] != size:
                frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            writer.write(frame, time)
