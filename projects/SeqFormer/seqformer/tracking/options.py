"""Options of the assignment by motion."""

from __future__ import annotations

from dataclasses import dataclass

from seqformer.errors import check_number

__all__ = ["MotionOptions"]


@dataclass(frozen=True)
class MotionOptions:
    """How much motion counts when the instances of a clip are assigned to known ones, and how it is measured.

    Attributes:
        weight: share of motion in the similarity of a known instance and one of the clip; overlap has the
            rest. With 0, the published protocol, instances are assigned by overlap alone.
        memory: for how many clips after the last one that holds it an instance can be found again.
        least_similarity: a pair below is not the same instance.
        least_probability: an instance of a clip whose best class is less probable is left out.
        probability_weight: how much the probability of its best class adds to the similarity of a pair.
        same_iou: if two known instances are continued by masks whose IoU is higher, only one of them is.
        least_cells: a mask with fewer cells of the stride-4 grid does not tell where its instance is.
        search_radius: farthest distance from where a lost instance is expected to where it is found again,
            as a fraction of its extent, which is the longer side of its box.
        window: frames before the last one of an instance over which its velocity is fitted.
    """

    weight: float = 0.0
    memory: int = 6
    least_similarity: float = 0.2
    least_probability: float = 0.1
    probability_weight: float = 0.3
    same_iou: float = 0.9
    least_cells: int = 4
    search_radius: float = 0.4
    window: int = 5

    def __post_init__(self) -> None:
        check_number("weight", self.weight, at_least=0, below=1)
        check_number("memory", self.memory, integer=True, at_least=0)
        check_number("least_similarity", self.least_similarity, at_least=0, at_most=1)
        check_number("least_probability", self.least_probability, at_least=0, at_most=1)
        check_number("probability_weight", self.probability_weight, at_least=0)
        check_number("same_iou", self.same_iou, above=0, at_most=1)
        check_number("least_cells", self.least_cells, integer=True, at_least=1)
        check_number("search_radius", self.search_radius, above=0)
        check_number("window", self.window, integer=True, at_least=2)
