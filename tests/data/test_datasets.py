"""Dataset names: published datasets in both layouts on disk, and names that contain paths."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from seqformer.data import register_builtin_datasets, register_ytvis_instances, resolve_datasets
from seqformer.data.datasets import BUILTIN_DATASETS
from seqformer.data.toy import SHAPES
from seqformer.errors import InputError

PUBLISHED = ("ytvis_2019_train", "ytvis_2019_val", "ytvis_2021_train", "ytvis_2021_val", "ytvis_2022_val")
PUBLISHED += ("ovis_train", "ovis_val", "coco2ytvis2019_train", "coco2ytvis2021_train", "coco2ovis_train")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty $DETECTRON2_DATASETS; names are registered again before and after a test."""

    def forget() -> None:
        for name in BUILTIN_DATASETS:
            if name in DatasetCatalog:
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)
        register_builtin_datasets()

    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    forget()
    yield tmp_path
    forget()


def install(toy: Any, root: Path, json_file: str, frames: str) -> None:
    """Puts the toy validation set where a published dataset would be."""
    (root / json_file).parent.mkdir(parents=True, exist_ok=True)
    (root / json_file).write_bytes(toy.val.read_bytes())
    (root / frames).parent.mkdir(parents=True, exist_ok=True)
    (root / frames).symlink_to(toy.frames)


def test_importing_reads_no_files_and_prints_nothing(tmp_path: Path) -> None:
    program = (
        "import seqformer.data; from detectron2.data import DatasetCatalog as c; "
        f"assert all(n in c for n in {PUBLISHED}), c.list()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "json_file", "frames"),
    [
        ("ytvis_2019_train", "ytvis_2019/train.json", "ytvis_2019/train/JPEGImages"),
        ("ytvis_2019_val", "ytvis_2019/valid.json", "ytvis_2019/valid/JPEGImages"),
        ("ytvis_2021_val", "ytvis_2021/valid.json", "ytvis_2021/valid/JPEGImages"),
        ("ytvis_2022_val", "ytvis_2022/valid.json", "ytvis_2022/valid/JPEGImages"),
        ("ovis_train", "ovis/annotations_train.json", "ovis/train"),
        ("ovis_val", "ovis/annotations_valid.json", "ovis/valid"),
        *(
            (
                f"{dataset}_{split}",
                f"{dataset}/annotations/instances_{split}_sub.json",
                f"{dataset}/{split}/JPEGImages",
            )
            for dataset in ("ytvis_2019", "ytvis_2021", "ovis")
            for split in ("train", "val")
        ),
    ],
)
def test_both_layouts(toy: Any, root: Path, name: str, json_file: str, frames: str) -> None:
    install(toy, root, json_file, frames)
    assert resolve_datasets([name]) == (name,)
    (video,) = DatasetCatalog.get(name)
    assert Path(video["file_names"][0]).is_relative_to(root / frames)
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == list(SHAPES), "those of the file, not of the published dataset"
    assert (metadata.json_file, metadata.evaluator_type) == (str(root / json_file), "ytvis")


def test_published_categories_have_their_colors(toy: Any, root: Path) -> None:
    install(toy, root, "ovis/annotations_train.json", "ovis/train")
    data = json.loads((root / "ovis/annotations_train.json").read_text())
    for category, name in zip(data["categories"], ("Person", "Bird", "Vehical"), strict=True):
        category["name"] = name
    (root / "ovis/annotations_train.json").write_text(json.dumps(data))
    DatasetCatalog.get("ovis_train")
    assert MetadataCatalog.get("ovis_train").thing_colors == [[220, 20, 60], [255, 109, 65], [0, 0, 70]]


@pytest.mark.parametrize("name", PUBLISHED)
def test_missing_datasets_are_reported_in_one_line(root: Path, name: str) -> None:
    with pytest.raises(InputError) as resolved:
        resolve_datasets([name])
    with pytest.raises(InputError) as read:
        DatasetCatalog.get(name)
    assert str(resolved.value) == str(read.value)
    assert str(read.value).startswith(f"dataset '{name}': no file '{root}/")
    assert str(read.value).endswith("set DETECTRON2_DATASETS to the folder that contains your datasets")
    assert "\n" not in str(read.value)


def test_missing_datasets_of_detectron2_are_reported_in_one_line() -> None:
    """Detectron2 binds its names to a folder on import, so the fixture cannot replace that folder."""
    json_file = MetadataCatalog.get("coco_2017_train").json_file
    if Path(json_file).is_file():
        pytest.skip("COCO is installed here")
    with pytest.raises(InputError, match=f"dataset 'coco_2017_train': no file '{json_file}'; is DET"):
        resolve_datasets(["coco_2017_train"])


def test_names_registered_by_others_are_kept(toy: Any, root: Path) -> None:
    DatasetCatalog.remove("ovis_val")
    MetadataCatalog.remove("ovis_val")
    register_ytvis_instances("ovis_val", {}, toy.train, toy.frames)
    register_builtin_datasets()
    assert resolve_datasets(["ovis_val"]) == ("ovis_val",)
    assert len(DatasetCatalog.get("ovis_val")) == 3


def test_names_that_contain_paths(toy: Any, tmp_path: Path) -> None:
    names = resolve_datasets([f"ytvis:{toy.train}:{toy.frames}", f"ytvis:{toy.val}:{toy.frames}"])
    assert names == (f"{toy.train.parent.name}_train", f"{toy.train.parent.name}_val")
    assert [len(DatasetCatalog.get(name)) for name in names] == [3, 1]
    assert resolve_datasets([f"ytvis:{toy.val}:{toy.frames}"]) == names[1:], "registered once"
    other = tmp_path / toy.train.parent.name / "val.json"
    other.parent.mkdir()
    other.write_bytes(toy.train.read_bytes())
    (name,) = resolve_datasets([f"ytvis:{other}:{toy.frames}"])
    assert name == names[1] + "_2"
    assert len(DatasetCatalog.get(name)) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coco_vis", "no dataset 'coco_vis'; available: ytvis_2019_train"),
        ("ytvis:only.json", "write ytvis:JSON_FILE:FOLDER_OF_FRAMES"),
        ("ytvis:/nowhere/a.json:/nowhere", "no file '/nowhere/a.json'"),
    ],
)
def test_unknown_datasets(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_datasets([name])


def test_frames_folder_must_exist(toy: Any) -> None:
    with pytest.raises(InputError, match="no folder '/nowhere'"):
        resolve_datasets([f"ytvis:{toy.val}:/nowhere"])


@pytest.mark.parametrize(
    ("folder", "frames"), [("a:b", "frames"), ("a", "c:d"), ("a:b", "c:d:e"), ("a:", ":b")]
)
def test_paths_with_colons(toy: Any, tmp_path: Path, folder: str, frames: str) -> None:
    json_file, image_root = tmp_path / folder / "12:30.json", tmp_path / frames
    json_file.parent.mkdir(exist_ok=True)
    shutil.copy(toy.val, json_file)
    shutil.copytree(toy.frames, image_root)
    (name,) = resolve_datasets([f"ytvis:{json_file}:{image_root}"])
    metadata = MetadataCatalog.get(name)
    assert (metadata.json_file, metadata.image_root) == (str(json_file), str(image_root))
    with pytest.raises(InputError, match=f"no folder '{image_root}x'"):
        resolve_datasets([f"ytvis:{json_file}:{image_root}x"])
    with pytest.raises(InputError, match=f"no file '{tmp_path}/none:1.json'"):
        resolve_datasets([f"ytvis:{tmp_path}/none:1.json:{image_root}"])


def test_ambiguous_paths_with_colons(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a:b"):
        shutil.copy(toy.val, name)
    for name in ("b:c", "c"):
        Path(name).mkdir()
    with pytest.raises(InputError, match="'ytvis:a:b:c' can be read in 2 ways"):
        resolve_datasets(["ytvis:a:b:c"])
