"""Writers: their output can be read again, and a failure leaves no files."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from videos import encode, frames, pictures

from seqformer.errors import InputError
from seqformer.video import (
    FrameFolderWriter,
    VideoReader,
    VideoWriter,
    open_source,
    open_writer,
)


def write(writer, made):
    with writer:
        for frame in made:
            writer.write(frame)


@pytest.mark.parametrize("fps", [Fraction(10), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(12, 5)])
def test_frame_rate_and_colours_are_kept(tmp_path, fps):
    path = tmp_path / "new" / "a.mp4"
    write(VideoWriter(path, 96, 128, fps), frames(20))
    with VideoReader(path) as video:
        assert (video.fps, video.height, video.width, video.length) == (fps, 96, 128, 20)
        for found, wanted in zip(video, frames(20), strict=True):
            assert np.abs(found.astype(int) - wanted).mean() < 2
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("size", [(95, 128), (96, 127), (95, 127), (1, 1)])
def test_odd_sizes_grow_by_one_pixel(tmp_path, size):
    height, width = size
    write(VideoWriter(tmp_path / "a.mp4", height, width, Fraction(10)), frames(5, height, width))
    with VideoReader(tmp_path / "a.mp4") as video:
        assert (video.height, video.width) == (height + height % 2, width + width % 2)
        last = list(video)[-1]
        wanted = frames(5, height, width)[-1]
        assert np.abs(last[:height, :width].astype(int) - wanted).mean() < 4


def test_browsers_play_it(tmp_path):
    path = tmp_path / "a.mp4"
    write(VideoWriter(path, 96, 128, Fraction(10)), frames(10))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1), "BT.709"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "plays before it is loaded"


def test_a_failure_leaves_nothing(tmp_path):
    for writer in (VideoWriter(tmp_path / "a.mp4", 96, 128, Fraction(10)), FrameFolderWriter(tmp_path / "a")):
        with pytest.raises(KeyboardInterrupt), writer:
            writer.write(frames(1)[0])
            assert list(tmp_path.rglob("*.part")), "written under another name"
            assert not writer.path.is_file()
            raise KeyboardInterrupt
        assert not list(tmp_path.iterdir())


def test_a_failure_keeps_existing_files(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    with pytest.raises(RuntimeError), VideoWriter(path, 96, 128, Fraction(10)) as writer:
        writer.write(frames(1)[0])
        raise RuntimeError
    assert path.read_bytes() == b"older"
    write(VideoWriter(path, 96, 128, Fraction(10)), frames(2))
    assert VideoReader(path).length == 2


def test_wrong_frame_size(tmp_path):
    with (
        pytest.raises(ValueError, match="128x96"),
        VideoWriter(tmp_path / "a.mp4", 96, 128, Fraction(10)) as writer,
    ):
        writer.write(frames(1, 64, 64)[0])
    assert not list(tmp_path.iterdir())


def test_folder_of_frames(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "a", tmp_path / "empty"):
        write(FrameFolderWriter(folder), frames(3))
        assert sorted(file.name for file in folder.iterdir()) == ["00000.jpg", "00001.jpg", "00002.jpg"]
        found = np.asarray(Image.open(folder / "00002.jpg")).astype(int)
        assert np.abs(found - frames(3)[2]).mean() < 2


def test_folder_that_is_not_empty(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty"), FrameFolderWriter(tmp_path):
        pytest.fail("entered")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["file/a.mp4", "file/a", 300 * "a" + ".mp4", 300 * "a"])
def test_unwritable(tmp_path, name):
    (tmp_path / "file").write_text("no folder")
    source = open_source(pictures(tmp_path / "clip", 1))
    with pytest.raises(InputError, match="cannot be written"), open_writer(tmp_path / name, source):
        pytest.fail("entered")


def test_open_writer(tmp_path):
    source = open_source(encode(tmp_path / "in.mp4", 3, fps=Fraction(30000, 1001)))
    video = open_writer(tmp_path / "out.mp4", source)
    assert isinstance(video, VideoWriter)
    assert (video.height, video.width, video.fps) == (96, 128, Fraction(30000, 1001))
    (tmp_path / "frames.v2").mkdir()
    for folder in ("frames", "frames.v2"):
        assert isinstance(open_writer(tmp_path / folder, source), FrameFolderWriter)
    with pytest.raises(InputError, match="name an .mp4 file"):
        open_writer(tmp_path / "out.avi", source)
    with pytest.raises(InputError, match="is the input"):
        open_writer(tmp_path / "in.mp4", source)
