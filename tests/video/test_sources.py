"""Readers, on generated videos and pictures."""

from __future__ import annotations

import random
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from videos import cut, encode, frames, join, pictures

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
        count = len(list(video))
        assert 10 <= count <= 25
        if name == "a.mp4":
            assert video.length == 40
            assert video.problem.startswith(f"{count} of 40 frames of '{path}' could be decoded (the file")
        else:
            assert video.length == count, "the index is at the end"
            assert video.problem.startswith(
                f"{count} frames of '{path}' could be decoded, the first {count / 10} of 4.0 seconds (the"
            )


def test_frames_after_damage_are_read(tmp_path):
    path = encode(tmp_path / "a.mp4", 40, noise=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) * 6 // 10] = random.randbytes(len(data) * 6 // 10 - len(data) // 2)
    path.write_bytes(data)
    with VideoReader(path) as video:
        count = len(list(video))
        assert 20 <= count < 40
        assert f"{count} of 40 frames" in video.problem


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.mp4", "mjpeg"), ("a.mkv", "mjpeg"), ("a.avi", "mjpeg")],
)
def test_a_packet_in_the_middle_that_cannot_be_decoded(tmp_path, name, codec):
    path = encode(tmp_path / "whole.mp4", 20, codec=codec, noise=True)
    with av.open(str(path)) as source, av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for t, packet in enumerate(source.demux(video=0)):
            if packet.dts is None:
                continue
            made = av.Packet(bytes(len(bytes(packet)))) if t == 9 else packet
            made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
            made.stream = stream
            container.mux(made)
    with VideoReader(tmp_path / name) as video:
        count = len(list(video))
        assert 18 <= count <= 20
        assert video.problem is not None and "is damaged" in video.problem
        assert str(tmp_path / name) in video.problem and str(count) in video.problem


PAUSES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.8, 1.9, 2.0, 2.1, 2.2, 2.3]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_times_of_frames(tmp_path, name):
    with VideoReader(encode(tmp_path / name, 12, times=PAUSES)) as video:
        found = [(float(video.time.start), len(frame)) for frame in video]
        assert [time for time, _ in found] == pytest.approx(PAUSES, abs=1e-9)
        assert video.length == 12, "the progress bar ends at 100 %"
        assert video.problem is None


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(50)])
def test_constant_rate_is_exact_although_the_file_rounds_times(tmp_path, fps):
    with VideoReader(encode(tmp_path / "a.mkv", 30, fps=fps)) as video:
        assert [video.time.start for _ in video] == [t / fps for t in range(30)]


def test_times_that_jump_or_go_back(tmp_path):
    parts = [encode(tmp_path / f"{t}.ts", 5, codec="mpeg2video") for t in range(2)]
    jump = join(tmp_path / "jump.ts", parts[1], delays=[500])
    for name, second in (("back", parts[1]), ("jumps", jump)):
        (tmp_path / f"{name}.ts").write_bytes(parts[0].read_bytes() + second.read_bytes())
        with VideoReader(tmp_path / f"{name}.ts") as video:
            times = [float(video.time.start) for _ in video]
        assert len(times) >= 9
        assert times == pytest.approx([t / 10 for t in range(len(times))], abs=0.02), name


def test_times_without_presentation_times(tmp_path):
    path = encode(tmp_path / "a.avi", 20, codec="libx264", options={"bf": "2"})
    with VideoReader(path) as video:
        times = [float(video.time.start) for _ in video]
        assert len(times) == 20 and video.problem is None
    assert times == sorted(times) and times[-1] == pytest.approx(1.9, abs=0.11)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_thumbnail_is_not_the_video(tmp_path, name):
    thumbnail = encode(tmp_path / "thumbnail.mp4", 1, height=48, width=64, codec="mjpeg")
    path = join(tmp_path / name, thumbnail, encode(tmp_path / "street.mp4", 20))
    with VideoReader(path) as video:
        assert (video.height, video.width, len(list(video)), video.problem) == (96, 128, 20, None)


QUARTERS = np.zeros((96, 128, 3), np.uint8)
QUARTERS[:48, :64], QUARTERS[:48, 64:], QUARTERS[48:, :64] = 220, 150, 80


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_every_display_matrix(tmp_path, rotation, flips):
    path = encode(tmp_path / "a.mp4", 2, rotation=rotation, flips=flips, picture=QUARTERS)
    with av.open(str(path)) as container:
        data = next(container.decode(video=0)).side_data.get("DISPLAYMATRIX")
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5] // 65536 if data else (1, 0, 0, 0, 1)
    # Each pixel goes where the matrix says, relative to the centre.
    y, x = np.indices((96, 128)) * 2 - np.array([95, 127])[:, None, None]
    shown = np.stack([b * x + d * y, a * x + c * y])
    size = (96, 128) if a else (128, 96)
    upright = np.zeros((*size, 3), np.uint8)
    upright[tuple((shown + np.array(size)[:, None, None] - 1) // 2)] = QUARTERS
    with VideoReader(path) as video:
        assert (video.height, video.width) == size
        assert_like(next(iter(video)), upright)


@pytest.mark.parametrize(
    ("aspect", "rotation", "size"),
    [
        (Fraction(3, 2), 0, (96, 192)),
        (Fraction(1, 2), 0, (96, 64)),
        (Fraction(3, 2), 90, (128, 64)),
        (Fraction(100), 0, (96, 128)),
    ],
)
def test_pixels_become_square(tmp_path, aspect, rotation, size):
    path = encode(tmp_path / "a.mp4", 2, aspect=aspect, rotation=rotation, picture=QUARTERS)
    with VideoReader(path) as video:
        assert (video.height, video.width) == size
        frame = next(iter(video))
    height, width = size
    quarters = np.rot90(QUARTERS) if rotation else QUARTERS
    for y, x in ((1, 1), (1, 3), (3, 1), (3, 3)):
        wanted = quarters[y * quarters.shape[0] // 4, x * quarters.shape[1] // 4]
        assert np.abs(frame[y * height // 4, x * width // 4].astype(int) - wanted).max() < 6


def test_transparent_video_is_blended_with_black(tmp_path):
    picture = Image.new("RGBA", (64, 48), (200, 200, 200, 255))
    picture.paste((200, 200, 200, 0), (0, 0, 32, 48))
    pictures_ = [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    for name in ("a.png", "a.gif"):
        pictures_[0].save(
            tmp_path / name, save_all=True, append_images=pictures_[1:], duration=100, disposal=2
        )
        with open_source(tmp_path / name) as video:
            first, second = video
        assert (first[:, :30].max(), first[:, 34:].min()) == (0, 200)
        assert (second[:, 34:].max(), second[:, :30].min()) == (0, 200)


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


def test_metadata_that_is_not_text(tmp_path):
    path = encode(tmp_path / "a.mkv", 4)
    data = path.read_bytes()
    assert data.count(b"Lavf") > 1
    path.write_bytes(data.replace(b"Lavf", b"\xca\xfe\xff\xee"))
    with VideoReader(path) as video:
        assert len(list(video)) == 4


def test_a_small_video_of_many_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("seqformer.video.sources.LARGEST_DECODED", 96 * 128 - 1)
    path = encode(tmp_path / "a.mp4", 4)
    with pytest.raises(InputError, match="no frame of '.*a.mp4' can be decoded"):
        VideoReader(path)
