"""Draws instances on frames, and figures."""

from seqformer.visualization.tracklets import draw_frame, draw_tracklets
from seqformer.visualization.visualizer import draw_instances, instance_color

__all__ = ["draw_frame", "draw_instances", "draw_tracklets", "instance_color"]
