"""File formats: reads, checks and writes masks, datasets and results.

Depends on numpy, pycocotools, Pillow and PyYAML only, not on PyTorch or Detectron2.
"""
