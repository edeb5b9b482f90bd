"""The published datasets' categories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqformer.data.categories import CATEGORIES, COCO_TO


def test_reference(reference_dir: Path) -> None:
    reference = json.loads((reference_dir / "categories.json").read_text())
    coco_to = reference.pop("coco_to")
    assert {
        dataset: [{"id": c.id, "name": c.name, "color": list(c.color)} for c in categories]
        for dataset, categories in CATEGORIES.items()
    } == reference
    assert {name: {str(k): v for k, v in m.items()} for name, m in COCO_TO.items()} == coco_to


@pytest.mark.parametrize("dataset", list(CATEGORIES))
def test_coco_maps_to_categories_that_exist(dataset: str) -> None:
    ids = [category.id for category in CATEGORIES[dataset]]
    assert ids == list(range(1, len(ids) + 1))
    assert len({category.name for category in CATEGORIES[dataset]}) == len(ids)
    assert set(COCO_TO[dataset].values()) <= set(ids)
    person = next(category for category in CATEGORIES[dataset] if category.name.lower() == "person")
    assert COCO_TO[dataset][1] == person.id
