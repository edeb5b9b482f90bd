"""Panels of figures: the layout, and frames with instances at print size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from seqformer.visualization.rows import ShownInstance
from seqformer.visualization.visualizer import Box, draw_masks, instance_color, mask_bounds, place_label

__all__ = ["FONT_SIZE", "Sheet", "draw_box", "draw_labels", "panel_picture", "rgb", "show_picture"]

FONT_SIZE = 7.0  # points, even if panels are small
_LABEL_SIZE = 5.5
_LABEL_PADDING = 1.2  # points
_MARGIN = 0.05  # inches
_GAP = 0.04  # inches between panels


class Sheet:
    """A figure of rows with equal columns. Lengths are in inches.

    Args:
        width: width of the figure.
        heights: heights of the rows, top to bottom.
        columns: number of panels per row.
        left, top, bottom: space for row names, column titles and notes.
        gaps: gaps above each row except the first; by default the gap between panels.
    """

    def __init__(
        self,
        width: float,
        heights: Sequence[float],
        columns: int,
        *,
        left: float = 0.25,
        top: float = 0.22,
        bottom: float = _MARGIN,
        gaps: Sequence[float] | None = None,
    ):
        gaps = [0.0, *(gaps or [_GAP] * (len(heights) - 1))]
        self.width = width
        self.columns = columns
        self.height = top + sum(heights) + sum(gaps) + bottom
        self.left = left
        self._rows = []
        y = self.height - top
        for height, gap in zip(heights, gaps, strict=True):
            y -= gap + height
            self._rows.append((y, height))
        self.figure = Figure(figsize=(self.width, self.height), facecolor="white")

    @staticmethod
    def panel_width(width: float, columns: int, left: float = 0.25) -> float:
        """Returns the width of a panel on a sheet of a given width."""
        return (width - left - _MARGIN - (columns - 1) * _GAP) / columns

    def panel(self, row: int, column: int) -> Axes:
        """Returns the axes of a panel."""
        width = self.panel_width(self.width, self.columns, self.left)
        return self._axes(row, self.left + column * (width + _GAP), width)

    def span(self, row: int) -> Axes:
        """Returns axes that span all panels of a row."""
        return self._axes(row, self.left, self.width - self.left - _MARGIN)

    def name_row(self, row: int, text: str, color: str | tuple[float, ...] = "black") -> None:
        """Writes the name of a row next to it, vertically."""
        y, height = self._rows[row]
        self.figure.text(
            (self.left - 0.06) / self.width,
            (y + height / 2) / self.height,
            text,
            rotation=90,
            ha="right",
            va="center",
            fontsize=FONT_SIZE,
            color=color,
            parse_math=False,
        )

    def note(self, text: str) -> None:
        """Writes a legend at the bottom of the sheet."""
        self.figure.text(
            self.left / self.width,
            _MARGIN / self.height,
            text,
            fontsize=FONT_SIZE - 1,
            va="bottom",
            color="0.3",
            parse_math=False,
        )

    def _axes(self, row: int, left: float, width: float) -> Axes:
        y, height = self._rows[row]
        return self.figure.add_axes(
            (left / self.width, y / self.height, width / self.width, height / self.height)
        )


def rgb(instance_id: int) -> tuple[float, float, float]:
    """Returns the colour of an instance for matplotlib, 0 to 1."""
    red, green, blue = instance_color(instance_id)
    return red / 255, green / 255, blue / 255


def panel_picture(
    frame: np.ndarray,
    instances: Sequence[ShownInstance],
    t: int,
    width: int,
    *,
    opacity: float = 0.45,
    thickness: int = 1,
) -> np.ndarray:
    """Draws masks on a frame at its final size, so that outlines have the same width in all panels.

    Args:
        frame: (H, W, 3) uint8 RGB.
        instances: instances visible in frame ``t``, the last on top.
        width: width of the picture, pixels.

    Returns:
        (h, width, 3) uint8 RGB with the aspect ratio of the frame.
    """
    height = max(1, round(width * frame.shape[0] / frame.shape[1]))
    way = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_LINEAR
    picture = cv2.resize(frame, (width, height), interpolation=way)
    masks = np.zeros((len(instances), height, width), dtype=bool)
    for mask, instance in zip(masks, instances, strict=True):
        decoded = instance.mask(t).astype(np.float32)
        smooth = cv2.resize(decoded, (width, height), interpolation=way)
        mask[:] = smooth > 0.5
    ids = [instance.instance_id for instance in instances]
    if ids:
        draw_masks(picture, masks, ids, range(len(ids)), opacity=opacity, thickness=thickness)
    return picture


def show_picture(axes: Axes, picture: np.ndarray, size: tuple[int, int]) -> None:
    """Fills axes with a picture. Coordinates are pixels of the frame, whose size is (height, width)."""
    height, width = size
    axes.imshow(picture, extent=(0, width, height, 0), aspect="auto", interpolation="none")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_labels(
    axes: Axes,
    instances: Sequence[ShownInstance],
    t: int,
    size: tuple[int, int],
    panel_width: float,
    with_class: bool,
) -> None:
    """Writes class, score and id of instances near their masks, without hiding other labels.

    If there is space, labels do not hide instances either.

    Args:
        instances: instances visible in frame ``t``, the best last; it is placed first.
        size: height and width of the frame, pixels.
        panel_width: inches.
        with_class: whether to write the class.
    """
    pixels = size[1] / (panel_width * 72)  # pixels of the frame per point
    font = FontProperties(size=_LABEL_SIZE)
    placed: list[Box] = []
    all_bounds = [mask_bounds(instance.mask(t)) for instance in instances]
    taken = [bounds for bounds in all_bounds if bounds is not None]
    for instance, bounds in reversed(list(zip(instances, all_bounds, strict=True))):
        if bounds is None:
            continue
        score = "" if instance.score is None else f" {instance.score:.2f}"
        text = f"{instance.label if with_class else ''}{score} #{instance.instance_id}".strip()
        width, height, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
        padding = 2 * _LABEL_PADDING
        extent = round((height + padding) * pixels), round((width + padding) * pixels)
        box = place_label(extent, bounds, [*placed, *taken], size)
        if any(box.overlap(other) for other in placed):
            box = place_label(extent, bounds, placed, size)
        placed.append(box)
        axes.add_patch(
            Rectangle(
                (box.left, box.top), extent[1], extent[0], color=rgb(instance.instance_id), alpha=0.92, lw=0
            )
        )
        axes.text(
            box.left + extent[1] / 2,
            box.top + extent[0] / 2,
            text,
            fontproperties=font,
            ha="center",
            va="center_baseline",
            color="0.06",
            parse_math=False,
            clip_on=True,
        )


def draw_box(
    axes: Axes, box: Box, color: str | tuple[float, ...], style: str = "-", width: float = 0.9
) -> None:
    """Draws the outline of a box, given in pixels."""
    axes.add_patch(
        Rectangle(
            (box.left, box.top),
            box.right - box.left,
            box.bottom - box.top,
            fill=False,
            ec=color,
            lw=width,
            ls=style,
        )
    )
