"""The config of a trained model: its weights and class names."""

from __future__ import annotations

from pathlib import Path

from detectron2.data import MetadataCatalog
from safetensors.torch import save_file

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


def test_weights(model: list[str]) -> None:
    def chosen(*arguments) -> str:
        return model_config(*arguments).MODEL.WEIGHTS

    default, config, given = str(get_config_file(SHIPPED_MODEL)), model[1], model[3]
    assert chosen(default, None, []) == str(get_weights_file(SHIPPED_MODEL))
    assert chosen(default, None, ["MODEL.WEIGHTS", given]) == given
    assert chosen(default, given, []) == given
    assert chosen(config, None, ["MODEL.WEIGHTS", given]) == given
