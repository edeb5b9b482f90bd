"""Writers: their output can be read again, and a failure leaves no files."""

from __future__ import annotations

import errno
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from videos import cut, encode, frames, join, packets_of, pictures, sound

from seqformer.errors import InputError
from seqformer.video import (
    FrameFolderWriter,
    FrameTime,
    GrowingVideoWriter,
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


TIMES = [Fraction(n, 10) for n in (0, 1, 2, 3, 16, 17, 18, 40)]


@pytest.mark.parametrize("kind", [VideoWriter, GrowingVideoWriter])
@pytest.mark.parametrize("fps", [Fraction(10), Fraction(7)])
def test_frames_keep_their_times(tmp_path, kind, fps):
    with kind(tmp_path / "a.mp4", 96, 128, fps) as writer:
        for frame, start in zip(frames(8), TIMES, strict=True):
            writer.write(frame, FrameTime(start, Fraction(1, 2)))
    with VideoReader(tmp_path / "a.mp4") as video:
        times = [(float(video.time.start), float(video.time.duration)) for _ in video]
    assert [start for start, _ in times] == pytest.approx(TIMES, abs=1e-4)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.start_time == 0
        assert float(stream.duration * stream.time_base) == pytest.approx(4.5, abs=1e-3)


def test_streamed_video_starts_at_the_first_frame(tmp_path):
    path = tmp_path / "a.mp4"
    with GrowingVideoWriter(path, 96, 128, Fraction(10)) as writer:
        for t, frame in enumerate(frames(40)):
            writer.write(frame)
            if t == 35:
                path.with_name("killed.mp4").write_bytes(path.read_bytes())
    for name in ("a.mp4", "killed.mp4"):
        assert packets_of(tmp_path / name, "video")[0][0] == 0
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[0].start_time == 0


def test_equal_times(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 96, 128, Fraction(10)) as writer:
        for frame in frames(5):
            writer.write(frame, FrameTime(Fraction(1), Fraction(0)))
    with VideoReader(tmp_path / "a.mp4") as video:
        assert len(list(video)) == 5


def write_copy(source, path, growing=False):
    with open_source(source) as video, open_writer(path, video, growing=growing) as writer:
        for frame in video:
            writer.write(frame, video.time)


@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize(
    ("name", "codec"), [("in.mp4", "aac"), ("in.mkv", "libopus"), ("in.ts", "aac"), ("in.mkv", "flac")]
)
def test_sound_is_copied(tmp_path, name, codec, growing):
    heard = sound(tmp_path / "sound.mka", 3, codec, 48000)
    source = join(tmp_path / name, encode(tmp_path / "silent.mp4", 30), heard)
    write_copy(source, tmp_path / "out.mp4", growing)
    before, after = packets_of(heard, "audio"), packets_of(tmp_path / "out.mp4", "audio")
    assert len(after) == len(before) > 10
    assert [data for _, data in after] == [data for _, data in before]
    assert len(packets_of(tmp_path / "out.mp4", "video")) == 30
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.mp4"]
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("delays", [(0.5, 0), (0, 0.5), (0, 0)])
def test_sound_and_picture_stay_together(tmp_path, delays):
    silent, heard = encode(tmp_path / "silent.mp4", 20), sound(tmp_path / "sound.mka", 2)
    source = join(tmp_path / "in.mkv", silent, heard, delays=delays)
    write_copy(source, tmp_path / "out.mp4")
    gaps = [
        packets_of(path, "video")[5][0] - packets_of(path, "audio")[5][0]
        for path in (source, tmp_path / "out.mp4")
    ]
    assert gaps[1] == pytest.approx(gaps[0], abs=0.002)


def test_sound_of_a_truncated_file(tmp_path):
    silent, heard = encode(tmp_path / "silent.mp4", 40, noise=True), sound(tmp_path / "sound.mka", 4)
    source = cut(join(tmp_path / "in.mkv", silent, heard), 0.5)
    write_copy(source, tmp_path / "out.mp4")
    video, audio = (packets_of(tmp_path / "out.mp4", kind) for kind in ("video", "audio"))
    assert 10 < len(video) < 30
    assert audio[-1][0] == pytest.approx(video[-1][0], abs=0.5)


def test_sound_that_mp4_cannot_store(tmp_path, caplog):
    heard = sound(tmp_path / "sound.mka", 2, "pcm_alaw")
    write_copy(join(tmp_path / "in.avi", encode(tmp_path / "a.avi", 20), heard), tmp_path / "out.mp4")
    assert len(packets_of(tmp_path / "out.mp4", "video")) == 20
    (message,) = caplog.messages
    assert "in.avi' is not saved: .mp4 cannot store pcm_alaw" in message


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


def test_a_growing_video_has_its_name_only_when_it_can_be_played(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with GrowingVideoWriter(path, 96, 128, Fraction(10)) as writer:
        for index, frame in enumerate(frames(60)):
            writer.write(frame)
            if index == 2:
                assert not path.exists()
            if path.exists():
                with av.open(str(path)) as container:
                    assert sum(1 for _ in container.decode(video=0)) >= 1
        assert path.exists(), "no fragment was written"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("kind", [VideoWriter, GrowingVideoWriter])
def test_two_writers_of_one_file_are_refused(tmp_path: Path, kind: type[VideoWriter]) -> None:
    path = tmp_path / "out.mp4"
    with kind(path, 96, 128, Fraction(10)) as writer:
        writer.write(frames(1)[0])
        with (
            pytest.raises(InputError, match=r"out.mp4' is in use by another run"),
            kind(path, 96, 128, Fraction(10)),
        ):
            pytest.fail("was opened")
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("kind", [VideoWriter, GrowingVideoWriter])
def test_a_folder_that_becomes_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[VideoWriter]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    writer = kind(tmp_path / "out.mp4", 96, 128, Fraction(10))
    with monkeypatch.context() as patch, pytest.raises(InputError, match=r"out.mp4.*Operation not permitted"):  # noqa: SIM117
        with writer:
            writer.write(frames(1)[0])
            patch.setattr(os, "replace", refuse)
            patch.setattr(Path, "unlink", refuse)
