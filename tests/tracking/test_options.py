from __future__ import annotations

import pytest

from seqformer.errors import InputError
from seqformer.tracking import MotionOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 1.0}, "`weight` must be at least 0 and below 1, not 1.0"),
        ({"weight": float("nan")}, "`weight` must be at least 0 and below 1, not nan"),
        ({"memory": -1}, "`memory` must be at least 0, not -1"),
        ({"memory": 2.0}, "`memory` must be an integer, not 2.0"),
        ({"least_similarity": "0.2"}, "`least_similarity` must be a number, not '0.2'"),
        ({"least_probability": 1.1}, "`least_probability` must be at least 0 and at most 1"),
        ({"probability_weight": -0.1}, "`probability_weight` must be at least 0"),
        ({"same_iou": 0}, "`same_iou` must be above 0 and at most 1"),
        ({"least_cells": 0}, "`least_cells` must be at least 1"),
        ({"search_radius": 0.0}, "`search_radius` must be above 0"),
        ({"window": 1}, "`window` must be at least 2"),
        ({"window": True}, "`window` must be an integer, not True"),
    ],
)
def test_invalid_options(options: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        MotionOptions(**options)
    assert str(error.value).startswith(message)
