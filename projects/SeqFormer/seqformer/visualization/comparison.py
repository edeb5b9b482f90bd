"""Draws the results of several methods side by side, as a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from seqformer.errors import InputError
from seqformer.video import FrameSource, VideoWriter
from seqformer.visualization.rows import Row, difference_boxes
from seqformer.visualization.visualizer import draw_instances

__all__ = ["side_by_side", "side_by_side_size", "write_side_by_side"]

_WIDEST = 1920  # pixels of all methods together
_BETWEEN = 4  # pixels


def side_by_side_size(size: tuple[int, int], count: int) -> tuple[int, int]:
    """Returns height and width, in pixels, of the output of :func:`side_by_side`.

    Args:
        size: height and width of the frames.
        count: number of methods.
    """
    height, width = _panel_size(size, count)
    return height + _title_height(height), count * width + (count - 1) * _BETWEEN


def side_by_side(frame: np.ndarray, rows: Sequence[Row], t: int) -> np.ndarray:
    """Draws the results of several methods for one frame, with boxes around differences from the first.

    Args:
        frame: (H, W, 3) uint8 RGB. It is shrunk if the output would be wider than 1920 pixels.
        rows: the methods, with matched colours (:func:`seqformer.visualization.rows.match_colors`).
        t: index of the frame in the video.

    Returns:
        uint8 RGB; :func:`side_by_side_size` gives the size.
    """
    size = frame.shape[:2]
    height, width = _panel_size(size, len(rows))
    way = cv2.INTER_AREA if width < size[1] else cv2.INTER_LINEAR
    small = cv2.resize(frame, (width, height), interpolation=way)
    title_height = _title_height(height)
    picture = np.full((height + title_height, len(rows) * (width + _BETWEEN) - _BETWEEN, 3), 255, np.uint8)
    reference = rows[0].id_map(t, size)
    for column, row in enumerate(rows):
        visible = row.visible(t)
        masks = np.zeros((len(visible), height, width), dtype=bool)
        for mask, instance in zip(masks, visible, strict=True):
            decoded = instance.mask(t).astype(np.float32)
            mask[:] = cv2.resize(decoded, (width, height), interpolation=way) > 0.5
        panel = draw_instances(
            small,
            masks,
            [instance.instance_id for instance in visible],
            [instance.label for instance in visible],
            [instance.score for instance in visible],
        )
        if column:
            scale = np.array([width, height]) / (size[1], size[0])
            for box in difference_boxes(reference, row.id_map(t, size)):
                start, end = (
                    tuple(np.rint(np.array(p) * scale).astype(int).tolist()) for p in (box[:2], box[2:])
                )
                cv2.rectangle(panel, start, end, (0, 0, 0), 3)
                cv2.rectangle(panel, start, end, (255, 255, 255), 1)
        left = column * (width + _BETWEEN)
        picture[:title_height, left : left + width] = _title(row.name, width, title_height)
        picture[title_height:, left : left + width] = panel
    return picture


def write_side_by_side(path: str | Path, source: FrameSource, rows: Sequence[Row]) -> None:
    """Writes a video of :func:`side_by_side` frames.

    Args:
        path: an .mp4 file.
        source: the frames.
        rows: the methods, with matched colours.

    Raises:
        InputError: if the video cannot be read or written, or ``path`` is an input file.
    """
    path = Path(path)
    if any(path.exists() and path.samefile(read) for read in source.paths):
        raise InputError(f"output '{path}' is the input: choose another name")
    height, width = side_by_side_size((source.height, source.width), len(rows))
    with VideoWriter(path, height, width, source.fps, sound=source.sound) as writer:
        for t, frame in enumerate(source):
            writer.write(side_by_side(frame, rows, t), source.time)


def _panel_size(size: tuple[int, int], count: int) -> tuple[int, int]:
    scale = min(1.0, (_WIDEST - (count - 1) * _BETWEEN) / (count * size[1]))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def _title_height(height: int) -> int:
    return max(18, round(height / 16))


def _title(text: str, width: int, height: int) -> np.ndarray:
    picture = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(round(height * 0.65))
    ImageDraw.Draw(picture).text((width / 2, height / 2), text, font=font, fill="black", anchor="mm")
    return np.asarray(picture)
