"""File formats: reads, checks and writes masks, datasets and results.

Depends on numpy, pycocotools and Pillow only, not on PyTorch or Detectron2.
"""
