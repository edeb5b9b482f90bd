"""The config of a trained model: its weights and class names."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from safetensors.torch import save_file

from seqformer.errors import InputError
from seqformer.inference import classes, model_config
from seqformer.model_zoo import SHIPPED_MODEL, get_config_file, get_weights_file


def test_class_names(tmp_path: Path, model: list[str]) -> None:
    cfg = model_config(model[1], model[3], [])
    assert classes(cfg) == (["cat", "dog"], [1, 2])
    save_file({}, tmp_path / "plain.safetensors")
    plain = str(tmp_path / "plain.safetensors")
    MetadataCatalog.get("animals").set(
        thing_classes=["sheep", "cow"], thing_dataset_id_to_contiguous_id={7: 1, 9: 0}
    )
    try:
        known = model_config(model[1], plain, ["DATASETS.TEST", "('animals',)"])
        assert classes(known) == (["sheep", "cow"], [9, 7])
        more = ["DATASETS.TEST", "('animals',)", "MODEL.SeqFormer.NUM_CLASSES", "3"]
        fitting = model_config(model[1], plain, more)
        assert classes(fitting) == (["class 0", "class 1", "class 2"], [1, 2, 3])
    finally:
        MetadataCatalog.remove("animals")


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("R50_joint", (1, "person"), (40, "tennis_racket")), ("R50_coco", (1, "person"), (90, "toothbrush"))],
)
def test_classes_of_released_models(tmp_path: Path, name: str, first: tuple, last: tuple) -> None:
    """They were called "class 0", "class 1" and so on unless the dataset had been read."""
    (tmp_path / "weights.pth").touch()
    cfg = model_config(weights=tmp_path / "weights.pth", model=f"released/seqformer_{name}")
    names, ids = classes(cfg)
    pairs = list(zip(ids, names, strict=True))
    assert (pairs[0], pairs[-1]) == (first, last) and len(pairs) == cfg.MODEL.SeqFormer.NUM_CLASSES


def test_weights(model: list[str]) -> None:
    def chosen(*arguments) -> str:
        return model_config(*arguments).MODEL.WEIGHTS

    released = str(get_config_file("released/seqformer_R50"))
    default, config, given = str(get_config_file(SHIPPED_MODEL)), model[1], model[3]
    assert chosen(default, None, []) == str(get_weights_file(SHIPPED_MODEL))
    assert chosen(default, None, ["MODEL.WEIGHTS", given]) == given
    assert chosen(default, given, []) == given
    assert chosen(config, None, ["MODEL.WEIGHTS", given]) == given
    assert chosen(released, given, []) == given
    assert given == model_config(weights=given, model="released/seqformer_R50").MODEL.WEIGHTS
    assert str(get_weights_file(SHIPPED_MODEL)) == model_config().MODEL.WEIGHTS
    for arguments, message in (
        ({"model": given, "weights": given}, "has weights of its own: leave out `weights`"),
        ({"model": SHIPPED_MODEL, "config_file": config}, "has a config of its own: leave out `config_file`"),
        ({"model": "toy/seqformer_toy"}, "no trained weights for 'toy/seqformer_toy'"),
        ({"model": given}, "need a config: give `config_file`"),
        ({"config_file": config}, "no weights for config .*: give `weights`"),
    ):
        with pytest.raises(InputError, match=message):
            model_config(**arguments)
