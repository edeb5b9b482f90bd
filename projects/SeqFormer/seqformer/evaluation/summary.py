"""All metrics of an evaluation: overall, by category and by video."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqformer.errors import InputError
from seqformer.evaluation.tracking_metrics import (
    TRACKING_METRICS,
    IDSwitches,
    TrackingCounts,
    class_average,
    count_tracklets,
)
from seqformer.evaluation.tracklets import EvalTracklets, read_tracklets
from seqformer.evaluation.ytvis import METRICS, PrecisionFigures, average_precision

__all__ = ["FAMILIES", "Evaluation", "evaluate", "evaluate_tracklets"]

FAMILIES = {"AP": METRICS} | TRACKING_METRICS
"""Names of all figures by the name of their family."""

Figures = dict[str, float]


@dataclass
class Evaluation:
    """Metrics by name, in percent, except the counts. NaN if there is nothing to measure.

    Attributes:
        families: what was computed, see :data:`FAMILIES`.
        score_threshold: results with lower scores were left out of all metrics but AP.
        category_names, video_names: names by id, in the order of ids and in file order.
        class_averaged: means over categories. AP leaves out categories without ground truth; in the others, a
            category without ground truth and results counts as 0, as in TrackEval. ID switches are summed.
        detection_averaged: all categories together: their detections are added first. Without AP.
        categories: by category id.
        videos: by video id, all categories of a video together; AP is the mean over its categories. Empty
            unless asked for.
        id_switches: ID switches and covered instances.
        unused_categories: number of categories without ground truth and results.
    """

    families: tuple[str, ...]
    score_threshold: float
    category_names: dict[int, str]
    video_names: dict[int, str]
    class_averaged: Figures
    detection_averaged: Figures
    categories: dict[int, Figures]
    id_switches: IDSwitches
    unused_categories: int
    videos: dict[int, Figures] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of all figures."""
        return [name for family in self.families for name in FAMILIES[family]]

    def to_json(self) -> dict[str, Any]:
        """Returns everything as JSON; None instead of NaN."""
        content: dict[str, Any] = {
            "score_threshold": self.score_threshold,
            "class_averaged": _plain(self.class_averaged),
            "detection_averaged": _plain(self.detection_averaged),
            "id_switches": vars(self.id_switches),
            "categories": [
                {"id": id_, "name": self.category_names[id_]} | _plain(figures)
                for id_, figures in self.categories.items()
            ],
        }
        if self.videos:
            content["videos"] = [
                {"id": id_, "name": self.video_names[id_]} | _plain(figures)
                for id_, figures in self.videos.items()
            ]
        return content

    def to_csv(self) -> str:
        """Returns a table with one row per average, category and video; empty cells instead of NaN."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ["scope", "id", "name", *self.names], lineterminator="\n")
        writer.writeheader()
        for scope, id_, name, figures in self._rows():
            writer.writerow({"scope": scope, "id": id_, "name": name} | _plain(figures))
        return text.getvalue()

    def _rows(self) -> Iterator[tuple[str, int | None, str, Figures]]:
        yield "class-averaged", None, "", self.class_averaged
        if self.detection_averaged:
            yield "detection-averaged", None, "", self.detection_averaged
        for id_, figures in self.categories.items():
            yield "category", id_, self.category_names[id_], figures
        for id_, figures in self.videos.items():
            yield "video", id_, self.video_names[id_], figures


def evaluate(
    gt: dict[str, Any] | str | Path,
    results: list[dict[str, Any]] | str | Path,
    families: Collection[str] = tuple(FAMILIES),
    score_threshold: float = 0.0,
    per_video: bool = False,
) -> Evaluation:
    """Evaluates results: AP of YouTube-VIS, and HOTA, CLEAR and identity metrics of TrackEval.

    Args:
        gt, results: see :func:`seqformer.evaluation.evaluate_ytvis`.
        families: what to compute: keys of :data:`FAMILIES`.
        score_threshold: results with lower scores are left out of all metrics but AP. AP uses the order of
            scores, the other metrics do not use scores at all, so every result counts alike. 0 keeps all, as
            TrackEval does.
        per_video: compute the metrics for every video as well.

    Raises:
        InputError: if something is missing or malformed, a family is unknown, or the threshold is not from 0
            to 1.

    Example:
        >>> evaluation = evaluate("val.json", "results.json", ["HOTA"], score_threshold=0.3)
        >>> evaluation.detection_averaged["HOTA"]
    """
    return evaluate_tracklets(read_tracklets(gt, results), families, score_threshold, per_video)


def evaluate_tracklets(
    tracklets: EvalTracklets,
    families: Collection[str] = tuple(FAMILIES),
    score_threshold: float = 0.0,
    per_video: bool = False,
) -> Evaluation:
    """:func:`evaluate` of data that are already read."""
    if unknown := sorted(set(families) - FAMILIES.keys()):
        raise InputError(f"there is no metric '{unknown[0]}'; choose from {', '.join(FAMILIES)}")
    ordered = tuple(family for family in FAMILIES if family in families)
    of_tracking = [family for family in ordered if family in TRACKING_METRICS]

    by_category = {category: TrackingCounts() for category in tracklets.names}
    by_video = {video: TrackingCounts() for video in tracklets.videos}
    for (video, category), counts in sorted(count_tracklets(tracklets, score_threshold).items()):
        by_category[category] += counts
        by_video[video] += counts
    total = sum(by_category.values(), TrackingCounts())

    precision = PrecisionFigures({}, dict.fromkeys(by_category, {}), dict.fromkeys(by_video, {}))
    if "AP" in ordered:
        precision = average_precision(tracklets, per_video)
    return Evaluation(
        families=ordered,
        score_threshold=score_threshold,
        category_names=tracklets.names,
        video_names={video.id: video.names[0].rpartition("/")[0] for video in tracklets.videos.values()},
        class_averaged=precision.overall | class_average(by_category.values(), of_tracking),
        detection_averaged=total.figures(of_tracking),
        categories={
            id_: precision.categories[id_] | own.figures(of_tracking) for id_, own in by_category.items()
        },
        id_switches=IDSwitches(total.switches, total.covered, total.instances),
        unused_categories=sum(counts.empty for counts in by_category.values()),
        videos={id_: precision.videos[id_] | own.figures(of_tracking) for id_, own in by_video.items()}
        if per_video
        else {},
    )


def _plain(figures: Figures) -> dict[str, float | None]:
    """Replaces NaN by None, and counts by integers."""
    plain: dict[str, float | None] = {
        name: None if math.isnan(value) else value for name, value in figures.items()
    }
    if "IDSW" in figures:
        plain["IDSW"] = int(figures["IDSW"])
    return plain
