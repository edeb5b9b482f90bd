"""Frames in folders: which files are pictures, their order, their pixels, and datasets of bare frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from seqformer.errors import InputError
from seqformer.formats.builder import read_frames
from seqformer.formats.files import natural_order
from seqformer.formats.frames import (
    frame_size,
    is_animation,
    list_pictures,
    pictures_in,
    read_frame,
    read_ids,
)


def test_natural_order() -> None:
    names = ["10.png", "9.png", "a2/1", "a10/1", "A3/1", "a3/1", "frame01.png", "frame1.png", "b"]
    expected = ["9.png", "10.png", "a2/1", "A3/1", "a3/1", "a10/1", "b", "frame01.png", "frame1.png"]
    for order in (names, names[::-1]):
        assert sorted(order, key=natural_order) == expected


def test_list_pictures(tmp_path: Path) -> None:
    for name in ("10.TIFF", "9.ppm", "._9.ppm", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in pictures_in(tmp_path)] == ["9.ppm", "10.TIFF"]
    assert list(list_pictures(tmp_path)) == ["9", "10"]
    (tmp_path / "9.png").touch()
    with pytest.raises(InputError, match="9.png' and '.*9.ppm' have the same name"):
        list_pictures(tmp_path)
    with pytest.raises(InputError, match="cannot read the folder"):
        pictures_in(tmp_path / "none")


def test_frames_without_annotations(made: Any) -> None:
    dataset = made.checked(read_frames(made.frames, ["person", "car", "person"]))
    assert [video.names[0] for video in dataset.videos.values()] == ["a/00000.jpg", "b/00000.jpg"]
    assert (dataset.names, dataset.annotations) == ({1: "person", 2: "car"}, None)
    (made.frames / "c").mkdir()
    with pytest.raises(InputError, match="c': no frames"):
        read_frames(made.frames, ["person"])


LEVELS = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21  # up to 64491
EIGHT_BITS = (LEVELS >> 8).astype(np.uint8)
COLOURS = np.stack([LEVELS, LEVELS[::-1], LEVELS[:, ::-1]], axis=-1)


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=2)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_grey_is_scaled(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(path := tmp_path / f"a{suffix}"), LEVELS)
    np.testing.assert_array_equal(read_frame(path), grey(EIGHT_BITS))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_12_bit_grey_in_16_bits_is_scaled(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in ("dark", "brightest")]
    for path, levels in zip(paths, (LEVELS >> 5, LEVELS >> 4), strict=True):
        cv2.imwrite(str(path), levels)
        np.testing.assert_array_equal(read_frame(path, paths), grey((levels >> 4).astype(np.uint8)))


def test_dark_picture_of_a_16_bit_video_stays_dark(tmp_path: Path) -> None:
    paths = [tmp_path / f"{t}.png" for t in range(4)]
    for path, level in zip(paths, (0, 4000, 4096, 40000), strict=True):
        cv2.imwrite(str(path), np.full((8, 8), level, np.uint16))
    assert [int(read_frame(path, paths).max()) for path in paths] == [0, 15, 16, 156]
    assert int(read_frame(paths[1], paths[:2]).max()) == 250


def test_pgm_states_its_range(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 64 48 4095\n" + (LEVELS >> 6).astype(">u2").tobytes())
    assert np.abs(read_frame(path).astype(int) - grey(LEVELS >> 10)).max() <= 1, "dark, as the range says"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_16_bit_colours_are_scaled(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(path := tmp_path / f"a{suffix}"), COLOURS[..., ::-1])
    np.testing.assert_allclose(read_frame(path), COLOURS >> 8, atol=1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_12_bit_colours_in_16_bits_are_refused(tmp_path: Path, suffix: str) -> None:
    dark, bright, black = (tmp_path / f"{name}{suffix}" for name in ("dark", "bright", "black"))
    for path, colours in ((dark, COLOURS >> 4), (bright, COLOURS), (black, COLOURS * 0)):
        cv2.imwrite(str(path), colours)
    with pytest.raises(InputError, match="dark.*' has 16-bit colours, none above 4095"):
        read_frame(dark)
    assert read_frame(dark, [dark, black, bright]).max() == 15
    assert read_frame(black).max() == 0


def test_levels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    for name, levels, message in [
        ("float", LEVELS.astype(np.float32) / 65535, "has float levels"),
        ("signed", LEVELS.astype(np.int32) - 1, "has levels from -1 to 64490"),
        ("large", LEVELS.astype(np.int32) + 70000, "has levels from 70000 to"),
    ]:
        Image.fromarray(levels).save(path := tmp_path / f"{name}.tif")
        with pytest.raises(InputError, match=message):
            read_frame(path)
    with pytest.raises(InputError, match="has float levels"):
        frame_size(tmp_path / "float.tif")
    Image.fromarray(LEVELS).save(tmp_path / "negative.tif", tiffinfo={262: 0})
    with pytest.raises(InputError, match="of which 0 is white"):
        read_frame(tmp_path / "negative.tif")
    Image.fromarray(LEVELS.astype(np.int32)).save(path := tmp_path / "fits.tif")
    np.testing.assert_array_equal(read_frame(path), grey(EIGHT_BITS))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_modes(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(COLOURS.astype(np.uint8)).convert(mode)
    picture.save(path := tmp_path / f"a.{'tif' if mode in ('CMYK', 'YCbCr') else 'png'}")
    read = read_frame(path)
    np.testing.assert_array_equal(read, picture.convert("RGB"))
    assert read.flags.writeable and read.dtype == np.uint8


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "I;16"])
def test_transparent_parts_are_black(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode in ("RGBA", "LA"):
        picture = Image.new(mode, (4, 1), (200, 200, 200, 255) if mode == "RGBA" else (200, 255))
        for x, alpha in enumerate((0, 51, 255)):
            picture.putpixel((x, 0), (*picture.getpixel((x, 0))[:-1], alpha))
        expected = [0, 40, 200, 200]
        picture.save(path)
    else:
        picture = Image.fromarray(np.array([[7, 7, 200, 200]], np.uint16 if mode == "I;16" else np.uint8))
        if mode == "I;16":
            picture = Image.fromarray(np.array([[40000, 40000, 51200, 51200]], np.uint16))
        elif mode != "L":
            picture = picture.convert(mode)
        picture.save(path, transparency={"RGB": (7, 7, 7), "I;16": 40000}.get(mode, 7))
        expected = [0, 0, 200, 200]
    assert read_frame(path)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_pictures_are_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    quarters = np.zeros((48, 64, 3), np.uint8)
    quarters[:24, :32], quarters[:24, 32:], quarters[24:, :32] = 200, 150, 100
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(quarters).save(path := tmp_path / f"a{suffix}", exif=exif)
    upright = {
        1: quarters,
        2: quarters[:, ::-1],
        3: quarters[::-1, ::-1],
        4: quarters[::-1],
        5: quarters.transpose(1, 0, 2),
        6: np.rot90(quarters, -1),
        7: quarters[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(quarters),
    }[orientation]
    assert frame_size(path) == upright.shape[:2]
    assert np.abs(read_frame(path).astype(int) - upright).mean() < 6


def test_16_bit_picture_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(LEVELS).save(path := tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_frame(path), grey(np.rot90(EIGHT_BITS, -1)))


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif"])
def test_several_pictures_in_a_file_are_refused(tmp_path: Path, suffix: str) -> None:
    first, *others = (Image.fromarray(np.full((8, 8, 3), 50 * t, np.uint8)) for t in range(3))
    first.save(path := tmp_path / f"a{suffix}", save_all=True, append_images=others)
    for read in (read_frame, frame_size):
        with pytest.raises(InputError, match="contains 3 pictures"):
            read(path)
    assert is_animation(path) == (suffix == ".png")
    first.save(path)
    assert read_frame(path).shape == (8, 8, 3) and not is_animation(path)


def test_previews_in_photographs_are_ignored(tmp_path: Path) -> None:
    first, other = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (16, 12), "blue")
    first.save(path := tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[other])
    assert read_frame(path)[20, 20].tolist() == [254, 0, 0]


@pytest.mark.parametrize("error", [MemoryError(), TypeError("Missing dimensions"), KeyError(256)])
def test_whatever_pillow_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    Image.new("L", (8, 6)).save(path := tmp_path / "a.png")
    monkeypatch.setattr(PngImageFile, "load", fail)
    for read in (read_frame, lambda path: read_ids(path, (6, 8))):
        with pytest.raises(InputError, match=rf"a.png' cannot be read: ({type(error).__name__}|\w+)"):
            read(path)


def test_a_tiff_without_a_size(tmp_path: Path) -> None:
    Image.new("L", (8, 6)).save(path := tmp_path / "a.tif")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\0\1\4\0", b"\0\xf1\4\0", 1).replace(b"\0\1\3\0", b"\0\xf1\3\0", 1))
    for read in (frame_size, read_frame):
        with pytest.raises(InputError, match="a.tif' cannot be read"):
            read(path)


def test_a_tiff_whose_data_are_fewer_than_its_pixels(tmp_path: Path) -> None:
    """It would be a picture that is black where data are missing, in any amount of memory."""
    Image.new("L", (8, 6), 200).save(path := tmp_path / "a.tif")
    height = (257).to_bytes(2, "little") + bytes([4, 0, 1, 0, 0, 0])
    data = path.read_bytes()
    assert data.count(height) == 1
    for more in (7, 10_000_000):
        path.write_bytes(data.replace(height + b"\6\0\0\0", height + more.to_bytes(4, "little")))
        for read in (frame_size, read_frame, lambda path: read_ids(path, (6, 8))):
            with pytest.raises(InputError, match=r"a.tif' is incomplete: it has data for 48 pixels only"):
                read(path)


def test_a_small_picture_of_many_pixels_is_refused(tmp_path: Path) -> None:
    """Such pictures are as small as 34 bytes (WebP)."""
    for side, message in (
        (20_000, "cannot be read: Image size .* exceeds limit"),
        (12_000, "12000x12000 pixels"),
    ):
        Image.new("1", (side, side)).save(path := tmp_path / "a.png")
        assert path.stat().st_size < 100_000
        for read in (frame_size, read_frame, lambda path: read_ids(path, (6, 8))):
            with pytest.raises(InputError, match=message):
                read(path)
