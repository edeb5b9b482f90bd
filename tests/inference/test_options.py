from __future__ import annotations

from dataclasses import replace

import pytest

from seqformer.errors import InputError
from seqformer.inference.options import InferenceOptions
from seqformer.tracking import MotionOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -0.1}, "`threshold` must be at least 0 and at most 1, not -0.1"),
        ({"protocol": "best"}, "`protocol` must be one of queries, pairs, original, not 'best'"),
        ({"auto_memory_gb": -1}, "`auto_memory_gb` must be at least 0"),
        ({"clip_length": 0}, "`clip_length` must be at least 1"),
        ({"clip_length": 2.5}, "`clip_length` must be an integer, not 2.5"),
        ({"clip_stride": 0}, "`clip_stride` must be at least 1"),
        ({"max_live_instances": -1}, "`max_live_instances` must be at least 0"),
        ({"num_instances": 0}, "`num_instances` must be at least 1"),
        ({"duplicate_iou": 0.0}, "`duplicate_iou` must be above 0 and at most 1"),
        ({"motion": MotionOptions(weight=0.5), "clip_length": 1}, "`clip_length` must be at least 2"),
    ],
)
def test_invalid_options(options: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        InferenceOptions(**options)
    assert str(error.value).startswith(message)
    with pytest.raises(InputError):
        replace(InferenceOptions(), **options)


def test_derived_options() -> None:
    plain = InferenceOptions()
    assert (plain.by_motion, plain.max_results, plain.num_candidates) == (False, None, 10)
    other = InferenceOptions(protocol="pairs", duplicate_iou=0.5, motion=MotionOptions(weight=0.1))
    assert (other.by_motion, other.max_results, other.num_candidates) == (True, 10, 20)
