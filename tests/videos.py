"""Videos made for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import zip_longest
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
    flips: tuple[bool, bool] = (False, False),
    aspect: Fraction | None = None,
    times: Sequence[float] | None = None,
    options: Mapping[str, str] | None = None,
    picture: np.ndarray | None = None,
) -> Path:
    """Encodes ``frames()`` with PyAV.

    Args:
        path: the file.
        count: number of frames.
        fps, height, width, codec: of the video.
        rotation: degrees counterclockwise, in the display matrix.
        noise: encode noise, so that all frames need about the same number of bytes.
        flips: horizontally and vertically, in the display matrix.
        aspect: width of a pixel, relative to its height.
        times: when the frames are shown, seconds; by default at a constant rate.
        options: of the encoder.
        picture: encoded instead of all frames.
    """
    rng = np.random.default_rng(0)
    faststart = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=faststart) as container:
        stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation or any(flips):
            stream.set_display_rotation(rotation, *flips)
        for t, frame in enumerate(frames(count, height, width)):
            if noise:
                frame = rng.integers(0, 256, frame.shape, dtype=np.uint8)
            made = av.VideoFrame.from_ndarray(frame if picture is None else picture)
            if times is not None:
                made.pts, made.time_base = round(1000 * times[t]), Fraction(1, 1000)
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    return path


def join(path: Path, *sources: Path, delays: Sequence[float] = ()) -> Path:
    """Copies the streams of several files into one.

    Args:
        path: the file to write.
        sources: the files.
        delays: seconds by which each file is shifted.
    """
    with ExitStack() as stack:
        container = stack.enter_context(av.open(str(path), "w"))
        packets = []
        for source, delay in zip_longest(sources, delays, fillvalue=0.0):
            opened = stack.enter_context(av.open(str(source)))
            copies = {stream.index: container.add_stream_from_template(stream) for stream in opened.streams}
            for copy in copies.values():
                copy.disposition = av.stream.Disposition.default
            for packet in opened.demux():
                if packet.dts is not None:
                    shift = round(delay / packet.time_base)
                    packet.dts, packet.pts = packet.dts + shift, packet.pts + shift
                    packets.append((packet.dts * packet.time_base, packet, copies[packet.stream.index]))
        for _, packet, stream in sorted(packets, key=lambda item: item[0]):
            packet.stream = stream
            container.mux(packet)
    return path


def sound(path: Path, seconds: float, codec: str = "aac", rate: int = 16000) -> Path:
    """Encodes noise that is different at any time."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        size = stream.codec_context.frame_size or 1024
        for start in range(0, round(seconds * rate), size):
            samples = rng.uniform(-0.5, 0.5, (1, size)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
            frame.rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def packets_of(path: Path, kind: str) -> list[tuple[float, bytes]]:
    """Returns the packets of the first stream of a kind, each with its time in seconds, in order of time."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        packets = [p for p in container.demux(stream) if p.pts is not None]
        return sorted((float(p.pts * p.time_base), bytes(p)) for p in packets)


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
