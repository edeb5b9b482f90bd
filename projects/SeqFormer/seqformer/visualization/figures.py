"""The paper's figures for any video and model: instances, sampling points, temporal weights, comparison.

Figures are drawn with matplotlib, without a display. The same input gives the same file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from seqformer.errors import InputError
from seqformer.formats.files import replaced_when_complete
from seqformer.structures import Trace
from seqformer.visualization.panels import (
    FONT_SIZE,
    Sheet,
    draw_box,
    draw_labels,
    panel_picture,
    rgb,
    show_picture,
)
from seqformer.visualization.rows import Row, ShownInstance, difference_boxes

__all__ = [
    "FORMATS",
    "Frames",
    "instances_figure",
    "sampling_points_figure",
    "save_figure",
    "temporal_weights_figure",
]

FORMATS = ("png", "pdf", "svg")
_FADED = 0.45  # fraction of colours and contrast of a frame below sampling points
_MAX_PANELS = 12  # in a strip above temporal weights
_BARS_HEIGHT = 0.55  # inches
_HEAVIEST = 0.028  # diameter of the sampling point with the highest weight, as a fraction of a panel's width


@dataclass
class Frames:
    """The frames of a figure.

    Attributes:
        pictures: n arrays (H, W, 3) uint8 RGB.
        numbers: their indices in the video, from 0.
        times: the times of all frames of the video, seconds; None if it has none.
    """

    pictures: Sequence[np.ndarray]
    numbers: Sequence[int]
    times: Sequence[float] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.pictures[0].shape[:2]

    @property
    def aspect(self) -> float:
        """Height over width."""
        return self.size[0] / self.size[1]

    def title(self, index: int, panel_width: float) -> str:
        """Returns the title of a frame's column, with the time if it fits."""
        number = self.numbers[index]
        if panel_width < 0.6:
            return str(number)
        if self.times is None or panel_width < 1.1:
            return f"frame {number}"
        return f"frame {number} · {self.times[number]:.1f} s"


def instances_figure(
    frames: Frames,
    rows: Sequence[Row],
    *,
    width: float = 10.0,
    dpi: int = 200,
    labels: bool = True,
    mark_differences: bool = False,
) -> Figure:
    """Draws instances: one row per method or ground truth, one column per frame.

    The same colour is the same instance.

    Args:
        frames: the columns.
        rows: the rows; their masks cover all frames of the video and are indexed by ``frames.numbers``.
        width: width of the figure, inches.
        dpi: resolution of frames, in vector formats as well.
        labels: write class, score and id above masks.
        mark_differences: draw boxes where a row's instances differ from the first row's.

    Source: SeqFormer, figure 1 and, with several methods, the comparison of its supplement.
    """
    panel = Sheet.panel_width(width, len(frames.pictures))
    names = {instance.label for row in rows for instance in row.instances}
    note = _note(names, labels, rows[0].name if mark_differences and len(rows) > 1 else None)
    sheet = Sheet(
        width, [panel * frames.aspect] * len(rows), len(frames.pictures), bottom=0.22 if note else 0.05
    )
    for r, row in enumerate(rows):
        sheet.name_row(r, row.name)
        for column, (picture, t) in enumerate(zip(frames.pictures, frames.numbers, strict=True)):
            axes = sheet.panel(r, column)
            visible = row.visible(t)
            show_picture(
                axes,
                panel_picture(picture, visible, t, round(panel * dpi), thickness=_line(dpi)),
                frames.size,
            )
            if r == 0:
                _title(axes, frames, column, panel)
            if mark_differences and r:
                different = difference_boxes(rows[0].id_map(t, frames.size), row.id_map(t, frames.size))
                for box in different:
                    draw_box(axes, box, "black", width=1.6)
                    draw_box(axes, box, "white", "--")
            if labels:
                draw_labels(axes, visible, t, frames.size, panel, len(names) > 1)
    if note:
        sheet.note(note)
    return sheet.figure


def sampling_points_figure(
    frames: Frames,
    trace: Trace,
    instances: Sequence[ShownInstance],
    layers: Sequence[int],
    *,
    level: int | None = None,
    width: float = 10.0,
    dpi: int = 200,
) -> Figure:
    """Draws sampling points as circles: one row per decoder layer, one column per frame.

    Size and opacity of a circle grow with its attention weight. A cross is the reference point of layer 1, a
    box is the reference box of a later layer. Points outside the frame are not visible.

    Args:
        frames: the traced frames.
        trace: their trace.
        instances: the instances to draw; their ids index ``trace.queries``, their masks the traced frames.
        layers: decoder layers, counted from 1.
        level: feature level, counted from 1 (stride 8); by default all.
        width: width of the figure, inches.
        dpi: resolution of frames.

    Raises:
        InputError: if a layer, level or instance does not exist.

    Source: SeqFormer, supplement, figure 2.
    """
    for layer in layers:
        trace.check_layer(layer)
    if level is not None and not 1 <= level <= trace.num_levels:
        raise InputError(f"there is no feature level {level}: the model has 1 to {trace.num_levels}")
    for instance in instances:
        trace.check_instance(instance.instance_id)
    levels = slice(None) if level is None else slice(level - 1, level)
    queries = trace.queries[[instance.instance_id for instance in instances]]
    chosen = np.array(layers)[:, None] - 1
    heaviest = float(trace.attention_weights[chosen, :, queries][..., levels, :].max(initial=1e-6))
    panel = Sheet.panel_width(width, len(frames.pictures))
    sheet = Sheet(width, [panel * frames.aspect] * len(layers), len(frames.pictures), bottom=0.22)
    height, frame_width = frames.size
    faded = [_fade(panel_picture(picture, [], 0, round(panel * dpi))) for picture in frames.pictures]
    for r, layer in enumerate(layers):
        sheet.name_row(r, f"layer {layer}")
        references = trace.references(layer) * np.resize(
            [frame_width, height], trace.references(layer).shape[-1]
        )
        for t in range(len(frames.pictures)):
            axes = sheet.panel(r, t)
            show_picture(axes, faded[t], frames.size)
            if r == 0:
                _title(axes, frames, t, panel)
            for instance, query in zip(instances, queries, strict=True):
                xy = trace.sampling_locations[layer - 1, t, query][:, levels].reshape(-1, 2)
                weights = trace.attention_weights[layer - 1, t, query][:, levels].reshape(-1) / heaviest
                _circles(axes, xy * (frame_width, height), weights, instance.instance_id, panel)
                _reference(axes, references[t, query], instance.instance_id)
    names = {instance.label for instance in instances}
    listed = ", ".join(f"{i.label} #{i.instance_id} ({i.score:.2f})" for i in instances)
    where = "all levels" if level is None else f"level {level} (stride {2 ** (level + 2)})"
    signs = "cross: reference point; box: reference box; circles: sampling points, by attention weight"
    sheet.note(f"{listed if names else 'no instance'}. {where}. {signs}")
    return sheet.figure


def temporal_weights_figure(
    frames: Frames,
    trace: Trace,
    instances: Sequence[ShownInstance],
    layers: Sequence[int],
    *,
    width: float = 10.0,
    dpi: int = 200,
) -> Figure:
    """Draws temporal weights: the frames of each instance, above bars of its weights.

    The dashed line is the weight of all frames if they were equal. Frames in which the instance has no mask
    are hatched. There is a bar for every frame. If not all frames fit, evenly spaced ones are drawn, each
    above its bar or as near to it as the width allows.

    Args:
        frames: the traced frames.
        trace: their trace.
        instances: the instances to draw, with masks of the traced frames.
        layers: decoder layers, counted from 1; one row of bars each.
        width: width of the figure, inches.
        dpi: resolution of frames.

    Raises:
        InputError: if a layer or instance does not exist.

    Source: SeqFormer, supplement, figure 3.
    """
    for layer in layers:
        trace.check_layer(layer)
    for instance in instances:
        trace.check_instance(instance.instance_id)
    num_frames = len(frames.pictures)
    columns = min(num_frames, _MAX_PANELS)
    shown = np.floor((np.arange(columns) + 0.5) * num_frames / columns).astype(int)
    left = 0.55
    panel = Sheet.panel_width(width, columns, left)
    block = [panel * frames.aspect, *[_BARS_HEIGHT] * len(layers)]
    gaps = ([0.04, *[0.1] * (len(layers) - 1), 0.34] * len(instances))[:-1]
    sheet = Sheet(width, block * len(instances), columns, left=left, bottom=0.4, gaps=gaps)
    for i, instance in enumerate(instances):
        first = i * len(block)
        query = trace.queries[instance.instance_id]
        score = "" if instance.score is None else f"\n{instance.score:.2f}"
        sheet.name_row(first, f"{instance.label} #{instance.instance_id}{score}")
        for column, t in enumerate(shown):
            axes = sheet.panel(first, column)
            drawn = [instance] if instance.masks[t] is not None else []
            picture = panel_picture(
                frames.pictures[t], drawn, t, round(panel * dpi), thickness=_line(dpi), opacity=0.5
            )
            show_picture(axes, picture, frames.size)
            if i == 0:
                _title(axes, frames, t, panel)
        visible = np.array([mask is not None for mask in instance.masks])
        tops = trace.temporal_weights[[layer - 1 for layer in layers], :, query].max() * 1.15
        for r, layer in enumerate(layers):
            axes = sheet.span(first + 1 + r)
            weights = trace.temporal_weights[layer - 1, :, query]
            _bars(axes, weights, visible, rgb(instance.instance_id), tops)
            axes.set_ylabel(f"layer {layer}", fontsize=FONT_SIZE - 1, labelpad=2)
            is_last = r == len(layers) - 1
            every = -(-num_frames // 40)
            axes.set_xticks(range(0, num_frames, every))
            axes.set_xticklabels(
                [str(n) for n in frames.numbers[::every]] if is_last else [], fontsize=FONT_SIZE - 1.5
            )
    sheet.note("bars: softmax over frames; dashed: equal weights; hatched: the instance has no mask there")
    return sheet.figure


def save_figure(figure: Figure, path: str | Path, format: str, dpi: int) -> None:
    """Writes a figure atomically.

    Text in PDF stays text (TrueType fonts, as publishers require), and no date is stored.

    Args:
        path: the file; its folder is created.
        format: one of :data:`FORMATS`.
        dpi: resolution of a PNG, dots per inch.

    Raises:
        InputError: if the file cannot be written.
    """
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(format)
    with (
        matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "seqformer"}),
        replaced_when_complete(path) as part,
    ):
        figure.savefig(part, format=format, dpi=dpi, metadata=metadata)


def _note(names: set[str], labels: bool, first: str | None) -> str:
    parts = [f"all instances have the class {next(iter(names))}"] if labels and len(names) == 1 else []
    if first is not None:
        parts.append(f"dashed boxes: instances differ from those of {first}")
    return "; ".join(parts)


def _title(axes: Axes, frames: Frames, index: int, panel: float) -> None:
    axes.set_title(frames.title(index, panel), fontsize=FONT_SIZE, pad=2.5)


def _line(dpi: int) -> int:
    """Returns the width of an outline in pixels, about half a point."""
    return max(1, round(dpi / 160))


def _fade(picture: np.ndarray) -> np.ndarray:
    """Makes a picture paler and greyer, so that colours on it stand out."""
    grey = picture.mean(axis=2, keepdims=True)
    pale = 255 - (255 - (0.5 * picture + 0.5 * grey)) * (1 - _FADED)
    return np.rint(pale).astype(np.uint8)


def _circles(axes: Axes, xy: np.ndarray, weights: np.ndarray, instance: int, panel: float) -> None:
    """Draws circles at (n, 2) pixels; ``weights`` (n,) from 0 to 1 determine area and opacity."""
    order = np.argsort(weights)
    diameter = 72 * panel * _HEAVIEST  # points
    colors = np.full((len(order), 4), (*rgb(instance), 1.0))
    colors[:, 3] = 0.3 + 0.7 * weights[order]
    areas = diameter**2 * (0.04 + 0.96 * weights[order])
    x, y = xy[order].T
    axes.scatter(x, y, s=areas, c=colors, edgecolors=(0, 0, 0, 0.35), linewidths=0.15, zorder=3)


def _reference(axes: Axes, reference: np.ndarray, instance: int) -> None:
    """Draws a cross at a point (2,), or the outline of a box (4,) cxcywh, in pixels."""
    if len(reference) == 2:
        for color, width in (("black", 2.0), (rgb(instance), 1.1)):
            axes.plot(*reference, "+", color=color, ms=6, mew=width, zorder=4)
        return
    x, y, w, h = reference
    for color, width in (("black", 1.6), (rgb(instance), 0.9)):
        axes.add_patch(
            Rectangle((x - w / 2, y - h / 2), w, h, fill=False, ec=color, lw=width, zorder=2, clip_on=True)
        )


def _bars(
    axes: Axes, weights: np.ndarray, visible: np.ndarray, color: tuple[float, float, float], top: float
) -> None:
    places = np.arange(len(weights))
    for t in places[~visible]:
        axes.axvspan(t - 0.5, t + 0.5, facecolor="0.95", edgecolor="0.7", hatch="////", lw=0, zorder=0)
    axes.bar(places, weights, width=0.8, color=color, ec="0.25", lw=0.4, zorder=2)
    axes.axhline(1 / len(weights), ls="--", lw=0.7, color="0.35", zorder=3)
    axes.set_xlim(-0.5, len(weights) - 0.5)
    axes.set_ylim(0, top)
    axes.tick_params(length=2, width=0.5, pad=1.5, labelsize=FONT_SIZE - 1.5)
    axes.locator_params(axis="y", nbins=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
