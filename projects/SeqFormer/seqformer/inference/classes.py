"""Names and dataset ids of a model's classes."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from seqformer.checkpoints import read_class_names

__all__ = ["classes"]


def classes(cfg: CfgNode) -> tuple[list[str], list[int]]:
    """Names and dataset ids of the classes of a config with weights, by label.

    Names are those that the weights carry, else those of the config's test set if Detectron2 knows it, else
    numbers. Ids are those of that test set, else they count from 1.

    Raises:
        InputError: if the weights cannot be read.
    """
    count = cfg.MODEL.SeqFormer.NUM_CLASSES
    names = read_class_names(cfg.MODEL.WEIGHTS)
    ids = list(range(1, count + 1))
    for dataset in cfg.DATASETS.TEST[:1]:
        if dataset in MetadataCatalog.list():
            metadata = MetadataCatalog.get(dataset)
            names = names or metadata.get("thing_classes", [])
            contiguous = metadata.get("thing_dataset_id_to_contiguous_id", {})
            if len(contiguous) == count:
                ids = sorted(contiguous, key=contiguous.get)
    return (list(names) if len(names) == count else [f"class {i}" for i in range(count)]), ids
