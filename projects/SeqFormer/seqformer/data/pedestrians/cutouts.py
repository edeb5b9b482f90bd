"""People cut out of a fixed-camera video by background subtraction and tracked over time.

All images are BGR uint8, all coordinates are source pixels, boxes are ``(x0, y0, x1, y1)`` with right and
bottom edges exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from seqformer.errors import InputError

__all__ = ["Blob", "Perspective", "Scene", "Track", "number_people", "occluder_mask", "read_video"]

SEED, GROW, SHADOW = 42.0, 17.0, 70.0  # colour distances; uniform darkening below SHADOW is a shadow
STREET_SIZE = (576, 768)
STREET_OCCLUDERS = (  # objects in vtest.avi that people pass behind: lamp head, post and the sign on it
    ((397, 34), (436, 20), (440, 36), (404, 44)),
    ((422, 100), (430, 100), (438, 392), (428, 392)),
    ((413, 202), (446, 202), (446, 244), (413, 244)),
)
LONGEST_GAP = 25  # frames between two tracks of a person, while the person touches another
FARTHEST = 0.6  # distance of a track's continuation from the extrapolated path, in heights of the person
COLOUR_SCALE = 60.0  # difference of clothes, in CIE Lab, that counts as much as a person's height
MOST_DIFFERENT = 0.85  # limit of both differences together
OCCLUDER_FOOT = 392  # row; people with feet below it pass in front of the occluders


def read_video(path: str | Path) -> np.ndarray:
    """Returns all frames of a video, ``(T, H, W, 3)`` BGR; raises InputError if it cannot be read."""
    if not Path(path).is_file():
        raise InputError(f"no video file '{path}'")
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        frames.append(frame)
    capture.release()
    if not frames:
        raise InputError(f"'{path}': no frame can be decoded; is it a video?")
    return np.stack(frames)


def occluder_mask(height: int, width: int) -> np.ndarray:
    """Returns the mask ``(H, W)`` of fixed objects in front of people; empty unless sized like vtest.avi."""
    mask = np.zeros((height, width), np.uint8)
    if (height, width) == STREET_SIZE:
        for polygon in STREET_OCCLUDERS:
            cv2.fillPoly(mask, [np.array(polygon, np.int32)], 1)
    return mask.astype(bool)


@dataclass
class Perspective:
    """Height of a standing person in pixels, as a linear function of the image row of the feet."""

    slope: float
    offset: float

    def height(self, foot: float) -> float:
        """Returns the expected height of a person with feet at row ``foot``."""
        return max(self.slope * foot + self.offset, 12.0)

    @classmethod
    def fit(cls, feet: np.ndarray, heights: np.ndarray) -> Perspective:
        """Fits a robust line through (foot, height) samples: Theil-Sen slope, then the median offset."""
        order = np.random.default_rng(0).permutation(len(feet))
        first, second = order, np.roll(order, 1)
        apart = np.abs(feet[first] - feet[second]) > 0.25 * max(np.ptp(feet), 1.0)
        if apart.sum() < 5:
            return cls(0.0, float(np.median(heights)))
        rises = (heights[first] - heights[second])[apart] / (feet[first] - feet[second])[apart]
        slope = max(float(np.median(rises)), 0.0)
        return cls(slope, float(np.median(heights - slope * feet)))


@dataclass
class Blob:
    """One connected foreground region of one frame: ``mask`` is bool over ``box``."""

    frame: int
    box: tuple[int, int, int, int]
    mask: np.ndarray
    single: bool = True

    @property
    def foot(self) -> int:
        return self.box[3]

    @property
    def foot_point(self) -> tuple[float, float]:
        """The middle of the box's lower edge."""
        return (self.box[0] + self.box[2]) / 2, float(self.foot)

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]

    def overlap(self, other: Blob) -> int:
        """Returns the number of pixels that both masks share."""
        x0, y0 = max(self.box[0], other.box[0]), max(self.box[1], other.box[1])
        x1, y1 = min(self.box[2], other.box[2]), min(self.box[3], other.box[3])
        if x0 >= x1 or y0 >= y1:
            return 0
        a = self.mask[y0 - self.box[1] : y1 - self.box[1], x0 - self.box[0] : x1 - self.box[0]]
        b = other.mask[y0 - other.box[1] : y1 - other.box[1], x0 - other.box[0] : x1 - other.box[0]]
        return int(np.count_nonzero(a & b))


@dataclass
class Track:
    """One person over consecutive frames."""

    blobs: list[Blob] = field(default_factory=list)

    @property
    def start(self) -> int:
        return self.blobs[0].frame

    @property
    def end(self) -> int:
        return self.blobs[-1].frame + 1


class Scene:
    """One part of the source: frames, background, foreground blobs of every frame, tracks of single people.

    Args:
        frames: ``(T, H, W, 3)`` BGR uint8.
    """

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames
        self.size = frames.shape[1:3]
        step = max(len(frames) // 150, 1)
        self.background = np.median(frames[::step], axis=0).astype(np.uint8)
        self.occluders = occluder_mask(*self.size)
        self.foreground = [self._foreground(frame) for frame in frames]
        self.blobs = [self._blobs(index, mask) for index, mask in enumerate(self.foreground)]
        self.perspective = self._fit_perspective()
        for blob in (blob for blobs in self.blobs for blob in blobs):
            blob.single = self._is_single(blob)
        self.tracks = self._link()

    def level(self, frame: np.ndarray) -> np.ndarray:
        """Removes the slow brightness change relative to the background from a frame; returns float32."""
        shift = np.median(frame[::4, ::4].astype(np.float32) - self.background[::4, ::4], axis=(0, 1))
        return frame.astype(np.float32) - shift

    def _foreground(self, frame: np.ndarray) -> np.ndarray:
        """Returns the mask ``(H, W)``: hysteresis on colour distance, no shadows, holes or thin lines."""
        image = cv2.GaussianBlur(self.level(frame), (0, 0), 0.7)
        back = cv2.GaussianBlur(self.background.astype(np.float32), (0, 0), 0.7)
        distance = np.abs(image - back).max(-1)
        ratio = (image + 6) / (back + 6)
        uniform = ratio.max(-1) - ratio.min(-1) < 0.14
        shadow = uniform & (ratio.mean(-1) > 0.55) & (ratio.mean(-1) < 1.04) & (distance < SHADOW)
        strong = (distance > SEED) & ~shadow
        weak = ((distance > GROW) & ~shadow).astype(np.uint8)
        weak = cv2.morphologyEx(weak, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
        count, labels = cv2.connectedComponents(weak, connectivity=8)
        keep = np.bincount(labels[strong], minlength=count) > 8
        keep[0] = False
        mask = keep[labels].astype(np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
        mask = _fill_holes(mask)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
        return (cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0) > 0.5) & ~self.occluders

    def _blobs(self, frame: int, mask: np.ndarray) -> list[Blob]:
        """Returns connected regions of a foreground mask, joining parts separated only by an occluder."""
        joined: np.ndarray = mask.astype(np.uint8)
        if self.occluders.any():
            for kernel in ((1, 61), (21, 1)):
                bridge = cv2.morphologyEx(
                    mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones(kernel[::-1], np.uint8)
                )
                joined |= bridge & self.occluders
        joined = cv2.dilate(joined, np.ones((5, 3), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
        labels = np.where(mask, labels, 0)
        blobs = []
        for label in range(1, count):
            x, y, w, h = stats[label, :4]
            part = labels[y : y + h, x : x + w] == label
            if part.sum() < 60:
                continue
            ys, xs = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
            part = part[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
            box = (int(x + xs[0]), int(y + ys[0]), int(x + xs[-1] + 1), int(y + ys[-1] + 1))
            blobs.append(Blob(frame, box, part))
        return blobs

    def _fit_perspective(self) -> Perspective:
        inside = [
            blob
            for blobs in self.blobs
            for blob in blobs
            if not self.at_border(blob)
            and 1.5 < blob.height / (blob.box[2] - blob.box[0]) < 4.5
            and blob.mask.sum() > 250
        ]
        if len(inside) < 20:
            raise InputError("a part of the video has too few separate moving people; use a longer video")
        return Perspective.fit(
            np.array([float(blob.foot) for blob in inside]), np.array([float(blob.height) for blob in inside])
        )

    def at_border(self, blob: Blob) -> bool:
        """Whether the blob touches the border of the picture."""
        x0, y0, x1, y1 = blob.box
        return x0 <= 1 or y0 <= 1 or x1 >= self.size[1] - 1 or y1 >= self.size[0] - 1

    def _is_single(self, blob: Blob) -> bool:
        expected = self.perspective.height(blob.foot)
        width, area = blob.box[2] - blob.box[0], int(blob.mask.sum())
        return (
            0.8 < blob.height / expected < 1.22
            and 0.16 < width / expected < 0.62
            and 0.1 < area / expected**2 < 0.34
            and not self.at_border(blob)
        )

    def _link(self) -> list[Track]:
        """Links single-person blobs that overlap one to one in consecutive frames to tracks."""
        tracks: list[Track] = []
        running: dict[int, Track] = {}
        for index, blobs in enumerate(self.blobs):
            before = self.blobs[index - 1] if index else []
            touches = np.zeros((len(before), len(blobs)), bool)
            for i, old in enumerate(before):
                for j, new in enumerate(blobs):
                    touches[i, j] = old.overlap(new) > 0.1 * min(old.mask.sum(), new.mask.sum())
            following: dict[int, Track] = {}
            for j, blob in enumerate(blobs):
                if not blob.single:
                    continue
                parents = np.flatnonzero(touches[:, j])
                track = None
                if len(parents) == 1 and touches[parents[0]].sum() == 1:
                    track = running.get(int(parents[0]))
                if track is not None and not _continues(track.blobs[-1], blob):
                    track = None
                if track is None:
                    track = Track()
                    tracks.append(track)
                track.blobs.append(blob)
                following[j] = track
            running = following
        return tracks


def number_people(tracks: list[Track], frames: np.ndarray, perspective: Perspective) -> list[int]:
    """Identifies the person of each track, since tracks are interrupted when people touch.

    A track continues another if it begins within ``LONGEST_GAP`` frames of its end, near the extrapolated
    path. Extrapolating backwards must also lead to the end of the first track, and clothes must be similar.
    All pairs are assigned jointly.

    Args:
        tracks: in any order.
        frames: ``(T, H, W, 3)`` BGR uint8, the frames of the tracks.
        perspective: expected height of people.

    Returns:
        for every track, the index of the first track of the same person.
    """
    begin = [_clothes(frames, track.blobs[:6]) for track in tracks]
    end = [_clothes(frames, track.blobs[-6:]) for track in tracks]
    cost = np.full((len(tracks), len(tracks)), np.inf)
    for i, first in enumerate(tracks):
        for j, second in enumerate(tracks):
            if 0 <= second.start - first.end <= LONGEST_GAP:
                away = _distance(first, second) / perspective.height(second.blobs[0].foot)
                if away < FARTHEST:
                    cost[i, j] = away + np.linalg.norm(end[i] - begin[j]) / COLOUR_SCALE
    numbers = list(range(len(tracks)))
    pairs = zip(*linear_sum_assignment(np.minimum(cost, 2)), strict=True)
    for i, j in sorted(pairs, key=lambda pair: tracks[pair[1]].start):
        if cost[i, j] < MOST_DIFFERENT:
            numbers[j] = numbers[i]
    return numbers


def _distance(first: Track, second: Track) -> float:
    """Returns the distance in pixels of feet from their extrapolated place, the mean of both directions."""
    frames = second.start - first.end + 1
    before = np.array([blob.foot_point for blob in first.blobs[-6:]])
    after = np.array([blob.foot_point for blob in second.blobs[:6]])
    on = before[-1] + frames * (before[-1] - before[0]) / max(len(before) - 1, 1)
    back = after[0] - frames * (after[-1] - after[0]) / max(len(after) - 1, 1)
    return float(np.linalg.norm(on - after[0]) + np.linalg.norm(back - before[-1])) / 2


def _clothes(frames: np.ndarray, blobs: list[Blob]) -> np.ndarray:
    """Returns the median colours (6,) of trunk and legs over the blobs, in 8-bit CIE Lab."""
    colours = []
    for blob in blobs:
        x0, y0, x1, y1 = blob.box
        lab = cv2.cvtColor(frames[blob.frame][y0:y1, x0:x1], cv2.COLOR_BGR2LAB)
        for top, bottom in ((0.15, 0.5), (0.5, 0.9)):
            rows = slice(int(top * blob.height), int(bottom * blob.height))
            part = lab[rows][blob.mask[rows]]
            colours.append(np.median(part if len(part) else lab[blob.mask], axis=0))
    return np.median(np.reshape(colours, (len(blobs), 6)), axis=0)


def _continues(old: Blob, new: Blob) -> bool:
    """Whether the size changes as little as that of one walking person between two frames."""
    return (
        abs(new.height - old.height) < 0.16 * old.height + 2
        and abs(new.foot - old.foot) < 0.12 * old.height + 3
        and 0.65 < new.mask.sum() / max(old.mask.sum(), 1) < 1.55
    )


def _fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fills enclosed background of at most 150 pixels. (Gaps between legs are open or larger.)"""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= 150
    small[0] = False
    return mask | small[labels].astype(np.uint8)
