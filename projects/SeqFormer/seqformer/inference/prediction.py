"""The result of a predictor: tracklets that can be drawn and saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.results import write_results
from seqformer.formats.supervision import from_detections, to_detections
from seqformer.structures import FrameInstance, VideoResult

if TYPE_CHECKING:
    import supervision as sv

__all__ = ["VideoPrediction"]


@dataclass
class VideoPrediction(VideoResult):
    """The tracklets of one video, which can be drawn and saved.

    Attributes:
        source: the video file, folder, glob pattern or pictures that the frames were read from; None if
            frames were given.

    Examples:
        >>> result = VideoPredictor.from_pretrained()("street.mp4")
        >>> result.save("drawn.mp4")
        >>> result.save("results.json")
    """

    source: str | Path | Sequence[str | Path] | None = None

    def draw(self, frame: np.ndarray, t: int, threshold: float = 0.4) -> np.ndarray:
        """Draws the instances of frame ``t``, each with its best class. Needs OpenCV.

        Args:
            frame: (H, W, 3) uint8 RGB; it is not modified.
            t: index of the frame in the video, from 0.
            threshold: minimum score of the instances to draw.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            InputError: if the video has no frame ``t``, or ``frame`` has a different size.
        """
        from seqformer.visualization import draw_frame

        if not 0 <= t < self.length:
            raise InputError(f"there is no frame {t}: the video has frames 0 to {self.length - 1}")
        if frame.shape != (self.height, self.width, 3):
            raise InputError(f"the frame has shape {frame.shape}, not ({self.height}, {self.width}, 3)")
        visible = [
            FrameInstance(tracklet.instance_id, tracklet.label, tracklet.score, mask)
            for tracklet in self.best_tracklets(threshold)
            if (mask := tracklet.segmentations[t]) is not None
        ]
        return draw_frame(frame, visible, self._class_names())

    def save(
        self,
        path: str | Path,
        frames: Iterable[np.ndarray] | None = None,
        *,
        threshold: float = 0.4,
        fps: float = 10.0,
    ) -> None:
        """Saves the results as JSON, or as a video or pictures with the instances drawn.

        Args:
            path: a .json file for results in YouTube-VIS format, an .mp4 file, or a folder (no suffix) for
                pictures. The last two need OpenCV and PyAV.
            frames: the frames to draw on, (H, W, 3) uint8 RGB. By default they are read from ``source``.
            threshold: minimum score of the instances to draw.
            fps: frame rate of the .mp4 if ``frames`` are given; by default that of the source.

        Raises:
            InputError: if there are no frames to draw on, or the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            write_results(path, self.to_json())
            return
        if path.suffix.lower() not in ("", ".mp4"):
            raise InputError(f"'{path}': `path` must be a .json or .mp4 file, or a folder without a suffix")
        if frames is None and self.source is None:
            raise InputError("the result has no source to read frames from: pass them as `frames`")
        from seqformer.video import FrameFolderWriter, FrameWriter, VideoWriter, open_source, open_writer
        from seqformer.visualization import draw_tracklets

        writer: FrameWriter
        with ExitStack() as stack:
            source = None
            if frames is None:
                assert self.source is not None  # checked above
                frames = source = stack.enter_context(open_source(self.source))
                writer = open_writer(path, source)
            elif path.suffix.lower() == ".mp4":
                rate = Fraction(fps).limit_denominator(1001)
                writer = VideoWriter(path, self.height, self.width, rate)
            else:
                writer = FrameFolderWriter(path)
            stack.enter_context(writer)
            shown = self.best_tracklets(threshold)
            for frame in draw_tracklets(islice(frames, self.length), shown, self._class_names()):
                writer.write(frame, source.time if source else None)

    def to_supervision(self, t: int, threshold: float = 0.0) -> sv.Detections:
        """Returns the visible instances of frame ``t`` as supervision's Detections. Needs supervision.

        ``tracker_id`` is the instance id, ``class_id`` the label, and ``data["class_name"]`` the name of the
        class. Boxes are those of :attr:`Tracklet.boxes`. Masks are a ``CompactMask``, or an array (N, H, W)
        if the installed version does not have it.

        Args:
            t: index of the frame in the video, from 0.
            threshold: minimum score of the instances. Each is returned with its best class only.

        Raises:
            InputError: if the video has no frame ``t``, or supervision is not installed.

        Examples:
            >>> detections = result.to_supervision(0, threshold=0.4)
            >>> drawn = sv.MaskAnnotator().annotate(frame.copy(), detections)
        """
        if not 0 <= t < self.length:
            raise InputError(f"there is no frame {t}: the video has frames 0 to {self.length - 1}")
        best = sorted(self.best_tracklets(threshold), key=lambda tracklet: tracklet.instance_id)
        return to_detections(best, (self.height, self.width), t)

    @classmethod
    def from_supervision(
        cls,
        detections: Iterable[sv.Detections],
        size: tuple[int, int],
        source: str | Path | Sequence[str | Path] | None = None,
    ) -> VideoPrediction:
        """Returns the prediction of another model and tracker, to evaluate, draw or save it.

        Detections with the same ``tracker_id`` become one tracklet. Its score is the mean confidence, 1 if
        there is none, and its class that with the highest sum of confidences, 0 if there is none. Detections
        that a tracker has not taken (tracker id -1) and empty masks are dropped.

        Args:
            detections: those of each frame of the video, with masks and tracker ids.
            size: height and width of the frames, pixels.
            source: see :class:`VideoPrediction`.

        Raises:
            InputError: if masks or tracker ids are missing, a mask has a different size, or a tracker id
                appears twice in a frame.

        Examples:
            >>> frames = [tracker.update_with_detections(d) for d in detections]
            >>> VideoPrediction.from_supervision(frames, (720, 1280)).save("results.json")
        """
        tracklets, length = from_detections(detections, size)
        return cls(*size, length, tracklets, source)

    def _class_names(self) -> dict[int, str]:
        return {tracklet.label: tracklet.class_name for tracklet in self.tracklets}
