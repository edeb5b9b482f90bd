"""Segments and tracks the instances of a video with an exported model. Needs numpy, onnxruntime and av only.

seqformer export output/street
python examples/onnx_video.py output/street demo/assets/street.mp4 output/onnx.mp4

Results are saved next to the video as JSON, in the format of YouTube-VIS. Masks are COCO's uncompressed run
lengths. If the metadata of a video asks for rotation, it is ignored.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import onnxruntime

IOU_THRESHOLD = 0.01  # above it, masks of two clips are the same instance
COLORS = np.array([[230, 60, 60], [60, 160, 250], [70, 200, 90], [250, 180, 40], [190, 90, 230]])


def soft_iou(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Space-time IoU of mask probabilities, (A, T, h, w) and (B, T, h, w) -> (A, B)."""
    p, q = (x.reshape(len(x), -1) for x in (p, q))
    intersection = p @ q.T
    return intersection / (p.sum(1)[:, None] + q.sum(1) - intersection + 1e-6)


def assign(similarity: np.ndarray) -> list[tuple[int, int]]:
    """Returns the one-to-one pairs (row, column) with the largest sum: the Hungarian method."""
    if len(similarity) > similarity.shape[1]:
        return [(row, column) for column, row in assign(similarity.T)]
    rows, columns = similarity.shape
    # Index 0 is a start that no row or column has.
    u, v, row_of = np.zeros(rows + 1), np.zeros(columns + 1), np.zeros(columns + 1, int)
    for row in range(1, rows + 1):
        row_of[0], column = row, 0
        least, previous = np.full(columns + 1, np.inf), np.zeros(columns + 1, int)
        visited = np.zeros(columns + 1, bool)
        while row_of[column]:
            visited[column] = True
            cost = np.concatenate(([np.inf], -similarity[row_of[column] - 1] - u[row_of[column]] - v[1:]))
            shorter = ~visited & (cost < least)
            least[shorter], previous[shorter] = cost[shorter], column
            following = int(np.where(visited, np.inf, least).argmin())
            step = least[following]
            u[row_of[visited]] += step
            v[visited] -= step
            least[~visited] -= step
            column = following
        while column:
            row_of[column] = row_of[previous[column]]
            column = previous[column]
    return [(row_of[column] - 1, column - 1) for column in range(1, columns + 1) if row_of[column]]


def enlarge(x: np.ndarray, axis: int, factor: int = 4) -> np.ndarray:
    """Interpolates linearly along an axis, which becomes ``factor`` times as long."""
    place = np.clip((np.arange(x.shape[axis] * factor) + 0.5) / factor - 0.5, 0, x.shape[axis] - 1)
    low = place.astype(int)
    weight = np.expand_dims(place - low, 1 - axis)
    return x.take(low, axis) * (1 - weight) + x.take(low + 1, axis, mode="clip") * weight


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Encodes a mask: lengths of background and foreground in turn, column by column."""
    changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0, append=mask.size).tolist()}


class Tracker:
    """Encodes each frame once, decodes overlapping clips, and joins their instances (SeqFormer, section 3.5).

    Args:
        folder: what ``seqformer export`` wrote.
        width, height: size of the video in pixels.
    """

    def __init__(self, folder: Path, width: int, height: int):
        self.model = json.loads((folder / "model.json").read_text())
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / f"{part}.onnx", providers=["CPUExecutionProvider"])
            for part in ("encoder", "decoder")
        )
        scale = min(self.model["min_size"] / min(width, height), self.model["max_size"] / max(width, height))
        self.output_size = height, width
        self.size = np.array([int(height * scale + 0.5), int(width * scale + 0.5)])  # of frames to encode
        self.scores: list[list[np.ndarray]] = []  # of each instance, the class probabilities in its clips
        self.clips: deque = deque(maxlen=self.model["clip_length"])  # first frame, ids, logits (N, T, h, w)

    def encode(self, frame: np.ndarray) -> list[np.ndarray]:
        """Encodes an RGB frame of the size ``size``."""
        if self.model["channels"] == "BGR":
            frame = frame[..., ::-1]
        divisor = self.model["size_divisibility"]
        padded = np.maximum(-(-self.size // divisor) * divisor, self.model["min_padded_size"])
        frame = np.pad(frame, [(0, n) for n in padded - self.size] + [(0, 0)])
        return self.encoder.run(None, {"frames": frame.transpose(2, 0, 1)[None], "size": self.size})

    def decode(self, start: int, frames: Iterable[list[np.ndarray]]) -> None:
        """Decodes a clip of encoded frames, and gives its instances their ids in earlier clips."""
        parts = [np.concatenate(part) for part in zip(*frames, strict=True)]
        inputs = dict(zip(self.model["inputs"]["decoder"], [*parts, self.size], strict=True))
        probabilities, _, candidates, logits = self.decoder.run(None, inputs)
        masks = (logits > 0).astype(np.float32)
        duplicates = soft_iou(masks, masks) > self.model["duplicate_iou"]
        kept: list[int] = []
        for row in range(len(candidates)):
            if len(kept) < self.model["num_instances"] and not duplicates[row, kept].any():
                kept.append(row)
        logits = logits[kept]

        masks = _sigmoid(logits)
        shared = [(first + len(old[0]) - start, first, ids, old) for first, ids, old in self.clips]
        shared = [clip for clip in shared if clip[0] > 0]
        known = sorted({i for _, _, ids, _ in shared for i in ids})
        similarity, counts = np.zeros((len(known), len(kept))), np.zeros((len(known), 1))
        for length, first, ids, old in shared:
            rows = [known.index(i) for i in ids]
            similarity[rows] += soft_iou(_sigmoid(old[:, start - first :]), masks[:, :length])
            counts[rows] += 1
        similarity /= np.maximum(counts, 1)
        same = {
            column: known[row]
            for row, column in assign(similarity)
            if similarity[row, column] > IOU_THRESHOLD
        }
        ids = []
        for column, row in enumerate(kept):
            ids.append(same.get(column, len(self.scores)))
            self.scores += [[]] * (column not in same)
            self.scores[ids[-1]] = [*self.scores[ids[-1]], probabilities[candidates[row]]]
        self.clips.append((start, ids, logits))

    def masks(self, t: int) -> dict[int, np.ndarray]:
        """Returns the masks (H, W) of visible instances in frame ``t``, if no later clip contains it."""
        logits: dict[int, list[np.ndarray]] = {}
        for start, ids, clip in self.clips:
            if start <= t < start + clip.shape[1]:
                for i, mask in zip(ids, clip[:, t - start], strict=True):
                    logits.setdefault(i, []).append(mask)
        y, x = (np.arange(n) * m // n for n, m in zip(self.output_size, self.size, strict=True))
        means = {i: enlarge(enlarge(np.mean(parts, axis=0), 0), 1) for i, parts in sorted(logits.items())}
        return {i: mask for i, mean in means.items() if (mask := mean[y][:, x] > 0).any()}

    def run(self, frames: Iterable[np.ndarray]) -> Iterator[dict[int, np.ndarray]]:
        """Yields the masks of each frame as they become final."""
        length, stride = self.model["clip_length"], self.model["clip_stride"]
        encoded: deque[list[np.ndarray]] = deque(maxlen=length)
        seen = start = final = 0
        for frame in frames:
            encoded.append(self.encode(frame))
            seen += 1
            if seen == start + length:
                self.decode(start, encoded)
                start += stride
            while final < min(start, seen):
                yield self.masks(final)
                final += 1
        if seen > (start - stride + length if start else 0):  # the last clip ends with the video
            self.decode(seen - len(encoded), encoded)
        yield from map(self.masks, range(final, seen))

    def best_class(self, i: int) -> tuple[int, float]:
        """Returns the most probable class of an instance so far, 0-based, and its score."""
        mean = np.mean(self.scores[i], axis=0)
        return int(mean.argmax()), float(mean.max())


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


def main(folder: Path, video: Path, output: Path, threshold: float) -> None:
    pictures: deque[np.ndarray] = deque()  # frames that are not final yet
    segmentations: dict[int, dict[int, dict]] = {}  # by instance and frame
    output.parent.mkdir(parents=True, exist_ok=True)
    with av.open(video) as source, av.open(output, "w") as sink:
        stream = source.streams.video[0]
        tracker = Tracker(folder, stream.width, stream.height)
        drawn = sink.add_stream("libx264", rate=stream.average_rate, pix_fmt="yuv420p")
        drawn.height, drawn.width = stream.height // 2 * 2, stream.width // 2 * 2
        network_height, network_width = tracker.size.tolist()

        def read() -> Iterator[np.ndarray]:
            for frame in source.decode(stream):
                pictures.append(frame.to_ndarray(format="rgb24"))
                yield frame.to_ndarray(
                    width=network_width, height=network_height, format="rgb24", interpolation="BILINEAR"
                )

        num_frames = 0
        for t, masks in enumerate(tracker.run(read())):
            picture = pictures.popleft()
            for i, mask in masks.items():
                segmentations.setdefault(i, {})[t] = run_lengths(mask)
                if tracker.best_class(i)[1] >= threshold:
                    picture[mask] = (picture[mask] + COLORS[i % len(COLORS)]) // 2
            picture = np.ascontiguousarray(picture[: drawn.height, : drawn.width])
            sink.mux(drawn.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            num_frames = t + 1
        sink.mux(drawn.encode())
    results = []
    for i, masks in sorted(segmentations.items()):
        label, score = tracker.best_class(i)
        if score >= threshold:
            masks_by_frame = [masks.get(t) for t in range(num_frames)]
            results.append(
                {"video_id": 1, "category_id": label + 1, "score": score, "segmentations": masks_by_frame}
            )
            print(f"instance {i}: {tracker.model['class_names'][label]} {score:.2f}, {len(masks)} frames")
    output.with_suffix(".json").write_text(json.dumps(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder that seqformer export wrote")
    parser.add_argument("video", type=Path, help="a video")
    parser.add_argument("output", type=Path, help="the .mp4 file to write")
    parser.add_argument("--threshold", type=float, default=0.4, help="minimum score (default: %(default)s)")
    args = parser.parse_args()
    main(args.folder, args.video, args.output, args.threshold)
