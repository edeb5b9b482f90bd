"""Options of assignment by motion."""

from __future__ import annotations

from dataclasses import dataclass

from seqformer.errors import check_number

__all__ = ["MotionOptions"]


@dataclass(frozen=True)
class MotionOptions:
    """How motion is measured and weighted when the instances of a clip are assigned to active ones.

    Attributes:
        weight: weight of motion in the similarity of an active instance and a candidate; overlap has the
            rest. 0 is the published protocol: assignment by overlap alone.
        memory: number of clips during which an instance can be recovered after it was last in a clip.
        least_similarity: minimum similarity of a pair.
        least_probability: candidates whose best class is less probable are dropped.
        probability_weight: weight of the candidate's best class probability, added to the similarity.
        same_iou: IoU threshold above which masks that continue two active instances count as the same, and
            only one of the two is continued.
        least_cells: minimum size, in cells of the stride-4 grid, of a mask whose position is used.
        search_radius: maximum distance between the expected position of a lost instance and a candidate, as a
            fraction of its extent, the longer side of its box.
        window: number of frames before an instance's last frame that its velocity is fitted to.
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
