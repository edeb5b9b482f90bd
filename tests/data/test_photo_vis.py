"""PhotoVIS with synthetic cut-outs: annotations match the pixels, and the output is reproducible."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from seqformer.cli.make_photo_vis import main
from seqformer.data import resolve_datasets
from seqformer.data.photo_vis import CLASSES, SPLITS, Material, make_photo_vis
from seqformer.data.photo_vis.curves import Curve, Dice, sine
from seqformer.data.photo_vis.material import Cutout, _listed_backgrounds, _listed_cutouts
from seqformer.data.photo_vis.render import render
from seqformer.data.photo_vis.scene import make_scene
from seqformer.errors import InputError
from seqformer.formats.rle import decode_mask

STAMPS = "usr/share/tuxpaint/stamps"
RENDERED = "d64569c089a3d59ab6e36cd0111e018b44e8f79cf485bf99b8c65b7d3847690e"


def picture(height: int, width: int, channels: int) -> np.ndarray:
    """Returns a textured image made by arithmetic alone."""
    y, x, c = np.ogrid[:height, :width, :channels]
    return ((x * 7 + y * 11 + c * 60 + x * y // 9) % 256).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of unpacked packages, with a red disc, a red bar and two blue backgrounds."""
    root = tmp_path_factory.mktemp("photographs")
    (root / STAMPS).mkdir(parents=True)
    y, x = np.mgrid[:120, :120]
    disc, bar = (x - 60) ** 2 + (y - 60) ** 2 < 55**2, (abs(y - 60) < 20) & (x > 3)
    for name, shape in (("disc", disc), ("bar", bar)):
        image = picture(120, 120, 4)
        image[..., 0], image[..., 2], image[..., 3] = 255, 0, 255 * shape
        Image.fromarray(image).save(root / STAMPS / f"{name}.png")
    for name in ("sky", "sea"):
        image = picture(500, 800, 3)
        image[..., 0], image[..., 2] = 0, 255
        Image.fromarray(image).save(root / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def material(root: Path) -> dict[str, Material]:
    return {
        split: Material(
            root,
            split,
            cutouts=[Cutout(name, label, name, split) for label, name in enumerate(("disc", "bar"))],
            backgrounds=["sky.png", "sea.png"],
        )
        for split in ("train", "val")
    }


def drawn(
    material: dict[str, Material], split: str, seed: str, height: int = 96
) -> tuple[np.ndarray, np.ndarray]:
    of_split = material[SPLITS[split].material]
    return render(make_scene(of_split, SPLITS[split], seed), of_split, height)


@pytest.mark.parametrize("number", range(6))
def test_masks_match_the_pixels(material, number):
    frames, masks = drawn(material, "train", f"pixels {number}")
    assert frames.shape == (12, 96, 160, 3)
    assert masks.sum(0).max() == 1  # no pixel belongs to two
    red, blue = frames[..., 0].astype(int), frames[..., 2].astype(int)
    clear = abs(red - blue) > 8  # not an even mix
    annotated = masks.any(0)
    assert annotated.any()
    # Posts and background are blue, instances red, with a gain of 0.75 * 0.92 to 1.15 * 1.08.
    assert ((red > blue) == annotated)[clear].mean() > 0.995


def test_frames_and_masks_are_the_same_on_every_machine(material):
    digest = hashlib.sha256()
    for split in SPLITS:
        for part in drawn(material, split, "0"):
            digest.update(np.packbits(part) if part.dtype == bool else part)
    assert digest.hexdigest() == RENDERED


def test_the_same_seed_gives_the_same_files(material, tmp_path):
    written = {}
    for name, seed, processes in (("a", 3, 1), ("b", 3, 2), ("c", 4, 1)):
        make_photo_vis(material, tmp_path / name, {"train": 2}, height=48, seed=seed, processes=processes)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        assert len(files) == 1 + 2 * 12
        written[name] = [(file.relative_to(tmp_path / name), file.read_bytes()) for file in files]
    assert written["a"] == written["b"]
    assert written["a"] != written["c"]


def test_a_video_does_not_depend_on_the_number_of_videos(material, tmp_path):
    for name, count in (("one", 1), ("two", 2)):
        make_photo_vis(material, tmp_path / name, {"train": count}, height=48)
    one, two = (json.loads((tmp_path / name / "train.json").read_text()) for name in ("one", "two"))
    assert one["videos"] == two["videos"][:1]
    assert one["annotations"] == two["annotations"][: len(one["annotations"])]


def test_a_video_has_the_same_content_in_every_size(material):
    _, small = drawn(material, "train", "size", 96)
    _, large = drawn(material, "train", "size", 192)
    again = large.reshape(*small.shape[:2], 96, 2, 160, 2).sum((3, 5)) > 2
    assert (small & again).sum() / (small | again).sum() > 0.9


def test_the_hard_split_has_more_look_alikes_and_longer_occlusions(material):
    def figures(split: str) -> tuple[float, float]:
        alike, hidden = [], []
        for number in range(25):
            scene = make_scene(material["val"], SPLITS[split], f"figures {number}")
            names = [actor.cutout for actor in scene.actors]
            alike.append(len(names) - len(set(names)))
            _, masks = render(scene, material["val"], 48)
            seen = masks.any(axis=(2, 3))
            for frames in seen:
                when = np.flatnonzero(frames)
                if len(when):  # frames between its first and last in which it is hidden
                    hidden.append((~frames[when[0] : when[-1]]).sum())
        return float(np.mean(alike)), float(np.mean(hidden))

    (alike, hidden), (alike_hard, hidden_hard) = figures("val"), figures("hard")
    assert alike_hard > alike > 0
    assert hidden_hard > hidden > 0


def test_registered_names(material, tmp_path, monkeypatch):
    make_photo_vis(material, tmp_path / "photo_vis", {"val": 1, "hard": 1}, height=48)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in resolve_datasets(["photo_vis_val", "photo_vis_hard"]):
        (video,) = DatasetCatalog.get(name)
        assert (video["height"], video["width"], video["length"]) == (48, 80, 36)
        assert all(Path(file).is_file() for file in video["file_names"])
        instances = [instance for frame in video["annotations"] for instance in frame]
        assert instances
        assert all(decode_mask(instance["segmentation"]).any() for instance in instances)
    written = json.loads((tmp_path / "photo_vis" / "val.json").read_text())
    assert [category["name"] for category in written["categories"]] == list(CLASSES)
    with pytest.raises(InputError, match=r"photo_vis_train.*photo_vis/train\.json"):
        resolve_datasets(["photo_vis_train"])


def test_no_individual_is_in_two_splits():
    cutouts = _listed_cutouts()
    splits = defaultdict(set)
    for cutout in cutouts:
        splits[cutout.individual].add(cutout.split)
    assert {len(names) for names in splits.values()} == {1}
    assert len({cutout.path for cutout in cutouts}) == len(cutouts) > 200
    for split in ("train", "val"):
        assert {c.label for c in cutouts if c.split == split} == set(range(len(CLASSES)))
    assert not set(_listed_backgrounds("train")) & set(_listed_backgrounds("val"))


def test_missing_photographs_are_reported_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--photographs", str(tmp_path), "--output", str(tmp_path / "out")])
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "tuxpaint-stamps-default" in message
    assert not (tmp_path / "out").exists()


def test_numbers_out_of_range(material, tmp_path):
    with pytest.raises(InputError, match="multiple of 3"):
        make_photo_vis(material, tmp_path / "out", {"train": 1}, height=100)
    with pytest.raises(InputError, match="at least 1"):
        make_photo_vis(material, tmp_path / "out", {"train": 0}, height=48)


def test_a_cutout_without_an_opaque_pixel_is_named(root):
    Image.new("RGBA", (20, 20)).save(root / STAMPS / "nothing.png")
    material = Material(root, "val", cutouts=[Cutout("nothing", 0, "n", "val")], backgrounds=["sky.png"])
    with pytest.raises(InputError, match=r"nothing\.png"):
        material.cutout(0)


@pytest.mark.parametrize("turns", [-1.3, -0.5, -0.25, 0.0, 0.1, 0.25, 0.4, 0.75, 1.0, 7.6])
def test_sine(turns):
    assert sine(turns) == pytest.approx(math.sin(2 * math.pi * turns), abs=1e-6)


def test_a_curve_is_smooth_and_between_its_points():
    curve = Curve.random(Dice("curve"), 36, 7.0, -1.0, 3.0)
    values = np.array([curve(t / 10) for t in range(360)])
    assert min(curve.points) <= values.min() < values.max() <= max(curve.points)
    assert abs(np.diff(values)).max() < 0.1  # no jump between its pieces
    assert abs(np.diff(values, 2)).max() < 0.01


def test_curves_with_common_points_meet():
    first = Curve([0.0, 1.0, 2.0, 5.0, 7.0], 4.0)
    second = Curve([9.0, 1.0, 2.0, 5.0, -3.0], 4.0)
    assert first(4.0) == pytest.approx(second(4.0))
    assert first(2.0) != pytest.approx(second(2.0))
