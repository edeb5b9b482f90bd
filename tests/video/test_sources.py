"""Readers, on generated videos and pictures."""

from __future__ import annotations

import random
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from videos import cut, encode, frames, pictures

from seqformer.data.mapper import read_picture
from seqformer.errors import InputError
from seqformer.video import ImageSequenceReader, VideoReader, open_source


def assert_like(found: np.ndarray, wanted: np.ndarray, tolerance: float = 3.0) -> None:
    assert found.shape == wanted.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted).mean() < tolerance


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264")]
)
@pytest.mark.parametrize("fps", [Fraction(10), Fraction(30000, 1001)])
def test_properties_and_frames(tmp_path, name, codec, fps):
    path = encode(tmp_path / name, 21, fps=fps, codec=codec)
    with VideoReader(path) as video:
        assert (video.height, video.width, video.fps, video.length) == (96, 128, fps, 21)
        found = list(video)
        assert video.decoded == 21
        assert video.problem is None
    for frame, wanted in zip(found, frames(21), strict=True):
        assert_like(frame, wanted)


def test_every_pass_starts_at_the_first_frame(tmp_path):
    with VideoReader(encode(tmp_path / "a.mp4", 12)) as video:
        first = next(iter(video))
        assert video.problem is None, "an unfinished pass says nothing about the file"
        passes = [list(video), list(video)]
    assert len(passes[0]) == len(passes[1]) == 12
    np.testing.assert_array_equal(passes[0], passes[1])
    np.testing.assert_array_equal(passes[0][0], first)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_video_is_upright(tmp_path, rotation):
    with VideoReader(encode(tmp_path / "a.mp4", 3, rotation=rotation)) as video:
        upright = np.rot90(frames(3)[0], rotation // 90)  # the display matrix rotates counterclockwise
        assert (video.height, video.width) == upright.shape[:2]
        assert_like(next(iter(video)), upright)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_truncated_video_yields_the_frames_that_decode(tmp_path, name):
    path = cut(encode(tmp_path / name, 40, noise=True), 0.5)
    with VideoReader(path) as video:
        assert video.length == 40
        count = len(list(video))
        assert 10 <= count <= 25
        assert video.problem.startswith(f"{count} of ")
        assert "40 frames" in video.problem and str(path) in video.problem


def test_frames_after_damage_are_read(tmp_path):
    path = encode(tmp_path / "a.mp4", 40, noise=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) * 6 // 10] = random.randbytes(len(data) * 6 // 10 - len(data) // 2)
    path.write_bytes(data)
    with VideoReader(path) as video:
        count = len(list(video))
        assert 20 <= count < 40
        assert f"{count} of 40 frames" in video.problem


def test_frames_hidden_by_an_edit_list_are_not_reported(tmp_path):
    whole = encode(tmp_path / "whole.mp4", 40, fps=Fraction(20))
    trimmed = tmp_path / "trimmed.mp4"
    with av.open(str(whole)) as source, av.open(str(trimmed), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                shift = round(0.5 / packet.time_base)  # the first half second ends before the start
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                container.mux(packet)
    with VideoReader(trimmed) as video:
        assert len(list(video)) == 30
        assert video.problem is None


def write_sound(path):
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))


NO_VIDEOS = {
    "empty.mp4": lambda path: path.touch(),
    "random.mp4": lambda path: path.write_bytes(random.randbytes(50_000)),
    "text.mp4": lambda path: path.write_text("no video\n" * 100),
    "text.txt": lambda path: path.write_text("no video\n" * 100),
    "sound.wav": write_sound,
    "headless.mp4": lambda path: cut(encode(path, 20), 0.01),
}


@pytest.mark.parametrize("name", NO_VIDEOS)
def test_no_video(tmp_path, name):
    path = tmp_path / name
    NO_VIDEOS[name](path)
    with pytest.raises(InputError, match=name) as error:
        VideoReader(path)
    assert "\n" not in str(error.value)
    assert "give a" in str(error.value)


def test_missing_file(tmp_path):
    for name in ("a.mp4", "a.png", "folder"):
        with pytest.raises(InputError, match=f"no file '.*{name}'"):
            open_source(tmp_path / name)


def test_pictures_come_in_natural_order(tmp_path):
    folder = pictures(tmp_path / "clip", 12)
    (folder / "notes.txt").write_text("no picture")
    with open_source(folder) as source:
        assert isinstance(source, ImageSequenceReader)
        assert (source.height, source.width, source.length, source.name) == (96, 128, 12, "clip")
        np.testing.assert_array_equal(list(source), frames(12))
        assert source.problem is None


def test_folder_glob_and_files_are_equivalent(tmp_path):
    folder = pictures(tmp_path / "clip", 11)
    wanted = open_source(folder).paths
    assert open_source(str(folder / "*.png")).paths == wanted
    assert open_source(sorted(folder.iterdir())).paths == wanted
    assert open_source(folder / "frame3.png").paths == [folder / "frame3.png"]


def test_folder_whose_name_looks_like_a_pattern(tmp_path):
    assert open_source(pictures(tmp_path / "clip [1]", 2)).length == 2


def test_glob_of_one_video(tmp_path):
    encode(tmp_path / "a.mp4", 3)
    assert isinstance(open_source(str(tmp_path / "*.mp4")), VideoReader)


def test_picture_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    Image.fromarray(frames(1)[0]).save(tmp_path / "a.png", exif=exif)
    source = open_source(tmp_path / "a.png")
    assert (source.height, source.width) == (128, 96)
    np.testing.assert_array_equal(next(iter(source)), np.rot90(frames(1)[0], -1))


def test_demo_sees_16_bit_pictures_as_training_does(tmp_path):
    paths = [tmp_path / f"{t}.png" for t in range(2)]
    for path, level in zip(paths, (4000, 40000), strict=True):
        Image.fromarray(np.full((8, 8), level, np.uint16)).save(path)
    read = list(open_source(tmp_path))
    assert [int(frame.mean()) for frame in read] == [15, 156]
    for path, frame in zip(paths, read, strict=True):
        again = read_picture(str(path), "RGB", (8, 8), "video 1: frame", list(map(str, paths)))
        np.testing.assert_array_equal(again, frame)


def test_animated_png_is_a_video(tmp_path):
    first, *others = map(Image.fromarray, frames(4))
    first.save(tmp_path / "a.png", save_all=True, append_images=others, duration=100)
    with open_source(tmp_path / "a.png") as source:
        assert isinstance(source, VideoReader)
        np.testing.assert_array_equal(list(source), frames(4))
    with pytest.raises(InputError, match=r"a.png' contains 4 pictures"):
        open_source(tmp_path)


def test_pictures_of_two_sizes(tmp_path):
    pictures(tmp_path, 3)
    Image.new("RGB", (64, 48)).save(tmp_path / "frame1.png")
    with pytest.raises(InputError, match=r"frame1.png' is 64x48, but 'frame0.png' is 128x96"):
        open_source(tmp_path)


def test_broken_picture(tmp_path):
    pictures(tmp_path, 3)
    (tmp_path / "frame1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="frame1.png"):
        open_source(tmp_path)


def test_truncated_picture(tmp_path):
    pictures(tmp_path, 3)
    cut(tmp_path / "frame1.png", 0.7)
    with pytest.raises(InputError, match="frame1.png"), open_source(tmp_path) as source:
        list(source)


def test_no_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match="no pictures in"):
        open_source(tmp_path)
    with pytest.raises(InputError, match=r"no file matches '.*\*\.png'"):
        open_source(str(tmp_path / "*.png"))


def test_several_videos(tmp_path):
    paths = [encode(tmp_path / name, 2) for name in ("a.mp4", "b.mp4")]
    with pytest.raises(InputError, match="give one video, or pictures"):
        open_source(paths)
