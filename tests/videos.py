"""Videos made for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def frames(count: int, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """Smooth frames of different brightness, with a red left and a blue right part."""
    made = []
    for t in range(count):
        frame = np.full((height, width, 3), 60 + 3 * t % 180, dtype=np.uint8)
        frame[:, : width // 4] = (200, 30, 30)
        frame[:, -width // 4 :] = (30, 30, 200)
        made.append(frame)
    return made


def encode(
    path: Path,
    count: int,
    *,
    fps: Fraction = Fraction(10),
    height: int = 96,
    width: int = 128,
    codec: str = "libx264",
    rotation: int = 0,
    noise: bool = False,
) -> Path:
    """Encodes ``frames()`` with PyAV. With noise, all frames need about the same number of bytes."""
    rng = np.random.default_rng(0)
    options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames(count, height, width):
            if noise:
                frame = rng.integers(0, 256, frame.shape, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float) -> Path:
    """Truncates a file, like an interrupted download."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def pictures(folder: Path, count: int, **size: int) -> Path:
    """Saves ``frames()`` as frame0.png, frame1.png, ..., frame10.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, frame in enumerate(frames(count, **size)):
        Image.fromarray(frame).save(folder / f"frame{t}.png")
    return folder
