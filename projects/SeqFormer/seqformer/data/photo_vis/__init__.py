"""PhotoVIS: a small public benchmark in YouTube-VIS format, composed of photographs from Debian packages.

``python tools/make_photo_vis.py`` writes it; docs/photo-vis.md describes it and its limits.
"""

from seqformer.data.photo_vis.dataset import make_photo_vis
from seqformer.data.photo_vis.material import CLASSES, Material
from seqformer.data.photo_vis.scene import SPLITS

__all__ = ["CLASSES", "SPLITS", "Material", "make_photo_vis"]
