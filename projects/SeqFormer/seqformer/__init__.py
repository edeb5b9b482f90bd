"""SeqFormer (Wu et al., ECCV 2022): video instance segmentation on Detectron2.

Importing the package registers the meta-architecture "SeqFormer" and its backbones with Detectron2.
"""

import sys

try:
    from seqformer.dependencies import import_detectron2

    import_detectron2()

    from seqformer.config import add_seqformer_config
    from seqformer.meta_arch import SeqFormer
except ImportError:
    # `python -m seqformer.env` reports on incomplete installations, so these must not stop it.
    if "seqformer.env" not in sys.orig_argv:
        raise

__all__ = ["SeqFormer", "add_seqformer_config"]
