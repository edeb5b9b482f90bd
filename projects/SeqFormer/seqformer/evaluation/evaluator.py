"""A Detectron2 evaluator: collects and writes the results of a model, and computes metrics."""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from seqformer.evaluation.summary import FAMILIES, evaluate_tracklets
from seqformer.evaluation.table import format_evaluation
from seqformer.evaluation.tracking_metrics import TRACKING_METRICS, check_score_threshold
from seqformer.evaluation.tracklets import read_tracklets
from seqformer.formats.files import read_json
from seqformer.formats.results import write_results, write_submission
from seqformer.formats.rle import encode_masks
from seqformer.structures import RLE, Tracklet, VideoResult

__all__ = ["YTVISEvaluator"]


class YTVISEvaluator(DatasetEvaluator):
    """Evaluates on a dataset registered with :func:`seqformer.data.register_ytvis_instances`.

    Masks are kept as RLEs, so memory use grows with the number of results and not with pixels. With several
    processes, each handles a share of the videos, and the first gathers the results in the order of the
    dataset. So the files do not depend on the number of processes.

    Args:
        dataset_name: the registered name.
        output_dir: folder for results.json and, if the dataset has no annotations, results.zip for the
            evaluation server; None for no files.
        tracking_metrics: compute HOTA, MOTA and IDF1 in addition to AP and ID switches.
        score_threshold: results with lower scores are left out of all metrics but AP.

    Raises:
        InputError: if the threshold is not from 0 to 1.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path | None = None,
        *,
        tracking_metrics: bool = False,
        score_threshold: float = 0.0,
    ):
        check_score_threshold(score_threshold)
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("thing_dataset_id_to_contiguous_id") is None:
            DatasetCatalog.get(dataset_name)  # sets it
        contiguous = metadata.thing_dataset_id_to_contiguous_id
        self._category_ids = sorted(contiguous, key=contiguous.__getitem__)
        self._json_file = Path(metadata.json_file)
        self._output_dir = Path(output_dir) if output_dir is not None else None
        self._families = tuple(FAMILIES) if tracking_metrics else ("AP",)
        self._score_threshold = score_threshold
        self._logger = logging.getLogger(__name__)
        self._results: list[dict[str, Any]] = []

    def reset(self) -> None:
        self._results = []

    def process(self, inputs: list[dict[str, Any]], outputs: dict[str, Any]) -> None:
        """Adds the results of one video.

        Args:
            inputs: a list of one dict with video_id.
            outputs: a dict with video_result (a VideoResult), as SeqFormer returns, or with image_size,
                pred_scores, pred_labels and pred_masks (list of (T, H, W) bool).

        Raises:
            InputError: if the model predicts a class that the dataset does not have.
        """
        if len(inputs) != 1:
            raise ValueError(f"expected one video, not {len(inputs)}")
        video = outputs.get("video_result") or _encoded(outputs, inputs[0]["length"])
        self._results += video.to_json(inputs[0]["video_id"], self._category_ids)

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Writes the results and, if the dataset has annotations, computes the metrics.

        Returns:
            {"segm": metrics}: the protocol's metrics and "AP-<class>" of every class, in percent, and
            "id_switches", a count. With tracking metrics also {"tracking": metrics}, over all detections and,
            for every class, as "HOTA-<class>", and {"tracking_class_averaged": metrics}. Empty without
            annotations. None in processes other than the first.

        Raises:
            InputError: if the dataset's JSON is malformed, or a file cannot be written.
        """
        if comm.get_world_size() > 1:
            comm.synchronize()
            gathered = comm.gather(self._results, dst=0)
            if not comm.is_main_process():
                return None
            self._results = list(itertools.chain.from_iterable(gathered))
        ground_truth = read_json(self._json_file)
        places = {video["id"]: place for place, video in enumerate(ground_truth["videos"])}
        self._results.sort(key=lambda result: places[result["video_id"]])
        annotated = bool(ground_truth.get("annotations"))
        if self._output_dir is not None:
            path = self._output_dir / "results.json"
            write_results(path, self._results)
            self._logger.info("%d results written to %s", len(self._results), path)
            if not annotated:
                write_submission(path.with_suffix(".zip"), path)
                self._logger.info("for the evaluation server: %s", path.with_suffix(".zip"))
        if not annotated:
            self._logger.info("%s has no annotations: no metrics are computed", self._json_file)
            return OrderedDict()
        tracklets = read_tracklets(self._json_file, self._results)
        evaluation = evaluate_tracklets(tracklets, self._families, self._score_threshold)
        self._logger.info("\n%s", format_evaluation(evaluation))
        averages = evaluation.class_averaged
        classes = {evaluation.category_names[id_]: own for id_, own in evaluation.categories.items()}
        segm = {name: averages[name] for name in FAMILIES["AP"]}
        segm |= {f"AP-{name}": own["AP"] for name, own in classes.items()}
        segm["id_switches"] = float(evaluation.id_switches.switches)
        figures = OrderedDict(segm=segm)
        if evaluation.detection_averaged:
            by_class = {f"HOTA-{name}": own["HOTA"] for name, own in classes.items()}
            figures["tracking"] = evaluation.detection_averaged | by_class
            names = [name for family in TRACKING_METRICS.values() for name in family]
            figures["tracking_class_averaged"] = {name: averages[name] for name in names}
        return figures


def _encoded(outputs: dict[str, Any], length: int) -> VideoResult:
    """Converts bool masks to the result of one video. A tensor shared by several classes is encoded once."""
    encoded: dict[int, list[RLE | None]] = {}
    for masks in outputs["pred_masks"]:
        if id(masks) not in encoded:
            encoded[id(masks)] = encode_masks(torch.as_tensor(masks).cpu().numpy())
    instances = {key: number for number, key in enumerate(encoded)}
    results = zip(outputs["pred_masks"], outputs["pred_labels"], outputs["pred_scores"], strict=True)
    tracklets = [
        Tracklet(instances[id(masks)], label, score, encoded[id(masks)]) for masks, label, score in results
    ]
    height, width = outputs["image_size"]
    return VideoResult(height, width, length, tracklets)
