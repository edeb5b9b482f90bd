"""Draws the instances of a video with supervision's annotators: masks, labels, and the path of each instance.

python examples/annotate_with_supervision.py demo/assets/street.mp4 output/annotated.mp4
"""

from __future__ import annotations

import argparse

import numpy as np
import supervision as sv

from seqformer import VideoPredictor
from seqformer.video import open_source, open_writer


def main(video: str, output: str, threshold: float) -> None:
    result = VideoPredictor.from_pretrained()(video)
    by_instance = sv.ColorLookup.TRACK
    masks = sv.MaskAnnotator(color_lookup=by_instance)
    labels = sv.LabelAnnotator(color_lookup=by_instance)
    traces = sv.TraceAnnotator(color_lookup=by_instance, position=sv.Position.BOTTOM_CENTER)
    with open_source(video) as frames, open_writer(output, frames) as writer:
        for t, frame in enumerate(frames):
            detections = result.to_supervision(t, threshold)
            drawn = np.ascontiguousarray(frame[..., ::-1])  # supervision draws on BGR
            drawn = masks.annotate(drawn, detections)
            drawn = traces.annotate(drawn, detections)
            texts = [
                f"#{id_} {name} {score:.2f}"
                for id_, name, score in zip(
                    detections.tracker_id, detections["class_name"], detections.confidence, strict=True
                )
            ]
            drawn = labels.annotate(drawn, detections, texts)
            writer.write(np.ascontiguousarray(drawn[..., ::-1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", help="video, folder or glob pattern of pictures")
    parser.add_argument("output", help="an .mp4 file, or a folder for pictures")
    parser.add_argument("--threshold", type=float, default=0.4, help="minimum score (default: %(default)s)")
    args = parser.parse_args()
    main(args.video, args.output, args.threshold)
