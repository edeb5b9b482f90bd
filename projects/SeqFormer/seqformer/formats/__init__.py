"""File formats: masks, datasets and results, read, checked and written.

Needs numpy, pycocotools and Pillow; imports neither PyTorch nor Detectron2.
"""
