"""Instances drawn on frames, and figures."""

from seqformer.visualization.visualizer import draw_instances, instance_color

__all__ = ["draw_instances", "instance_color"]
