"""Outlines of masks as polygons, for formats without masks."""

from __future__ import annotations

import numpy as np

__all__ = ["joined", "outlines"]

_RIGHT, _DOWN, _LEFT, _UP = range(4)


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Returns the outlines of a mask, along the edges of its pixels.

    Filled by the even-odd rule, as pycocotools does, they give exactly the mask.

    Args:
        mask: (H, W) bool.

    Returns:
        Polygons (N, 2) int64 of corners x, y in pixels, the largest first. Parts run clockwise (their area by
        the shoelace formula is positive), holes counterclockwise. Pixels that touch at a corner only belong
        to different parts.
    """
    columns, rows = _window(mask)
    if columns is None or rows is None:
        return []
    inside = np.pad(mask[rows, columns], 1).astype(np.int8)
    # An edge between two pixels has a direction that keeps the mask on its right-hand side. Edges in a row
    # with the same direction are one side.
    across, down = np.diff(inside, axis=0)[:, 1:-1], -np.diff(inside, axis=1)[1:-1]
    after: dict[tuple[int, int, int], tuple[int, int]] = {}  # end by start and direction
    for y, x0, x1, forward in _runs(across):
        after[(x0, y, _RIGHT) if forward else (x1, y, _LEFT)] = (x1 if forward else x0, y)
    for x, y0, y1, forward in _runs(down.T):
        after[(x, y0, _DOWN) if forward else (x, y1, _UP)] = (x, y1 if forward else y0)
    polygons = []
    while after:
        x, y, direction = next(iter(after))
        corners = []
        while (x, y, direction) in after:
            corners.append((x, y))
            x, y = after.pop((x, y, direction))
            # Turn right if there is such a side, otherwise left.
            direction = (direction + 1) % 4
            if (x, y, direction) not in after:
                direction = (direction + 2) % 4
        polygons.append(np.asarray(corners) + (columns.start, rows.start))
    return sorted(polygons, key=lambda polygon: -abs(area(polygon)))


def _window(mask: np.ndarray) -> tuple[slice, slice] | tuple[None, None]:
    """Returns the columns and rows that have pixels."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None, None
    return slice(int(columns[0]), int(columns[-1]) + 1), slice(int(rows[0]), int(rows[-1]) + 1)


def _runs(edges: np.ndarray) -> list[tuple[int, int, int, bool]]:
    """Returns line, start, end and sign of the runs of equal values other than 0 in each line."""
    changes = np.diff(edges, axis=1, prepend=0, append=0)
    lines, places = np.nonzero(changes)
    values = np.pad(edges, ((0, 0), (0, 1)))[lines, places]
    starts = np.flatnonzero(values)
    return [
        (line, start, end, value > 0)
        for line, start, end, value in zip(
            lines[starts].tolist(),
            places[starts].tolist(),
            places[starts + 1].tolist(),
            values[starts].tolist(),
            strict=True,
        )
    ]


def area(polygon: np.ndarray) -> float:
    """Returns the signed area of a polygon (N, 2), positive if it is clockwise on a screen."""
    x, y = polygon.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def joined(polygons: list[np.ndarray]) -> np.ndarray:
    """Returns parts and holes as one polygon, for formats that allow one per instance.

    Each polygon is connected to the nearest corner of those before it, by a line that is passed in both
    directions and so has no area.

    Args:
        polygons: (N, 2) each, x and y, at least one.

    Returns:
        (M, 2).
    """
    path = polygons[0]
    for polygon in polygons[1:]:
        place = int(((path - polygon[0]) ** 2).sum(1).argmin())
        path = np.concatenate([path[: place + 1], polygon, polygon[:1], path[place:]])
    return path
