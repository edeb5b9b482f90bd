"""Uploads a model to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from seqformer.checkpoints.download import HUB_FILE
from seqformer.errors import InputError

__all__ = ["push_model"]

_CARD = """\
---
{license}library_name: seqformer
pipeline_tag: image-segmentation
tags:
- video-instance-segmentation
---

# {name}

A [SeqFormer](https://arxiv.org/abs/2112.08275) model for video instance segmentation. Classes: {classes}.

```python
from seqformer import VideoPredictor

predictor = VideoPredictor.from_pretrained("{address}")
result = predictor("video.mp4")
```

`{file}` has the config, the class names and the preprocessing in its metadata.
"""


def push_model(
    repo_id: str,
    write: Callable[[Path], None],
    class_names: list[str],
    *,
    license: str = "",
    private: bool = False,
    token: str | None = None,
) -> str:
    """Uploads a model to the Hugging Face Hub, in one commit.

    The repository is created if it does not exist. It gets a model card unless it has one. Needs
    huggingface_hub.

    Args:
        repo_id: "OWNER/REPO".
        write: writes the model as a .safetensors file to the given path.
        class_names: for the model card.
        license: for the model card, such as "Apache-2.0".
        private: make a new repository private.
        token: access token; by default that of ``hf auth login``.

    Returns:
        the address of the model, ``hf://OWNER/REPO``.

    Raises:
        InputError: if huggingface_hub is missing, or the upload fails.
    """
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise InputError("uploading needs huggingface_hub: pip install huggingface_hub") from error
    address = f"hf://{repo_id}"
    with TemporaryDirectory() as folder:
        write(Path(folder, HUB_FILE))
        try:
            api = hub.HfApi(token=token)
            api.create_repo(repo_id, private=private, exist_ok=True)
            if not api.file_exists(repo_id, "README.md"):
                card = _CARD.format(
                    license=f"license: {license.lower()}\n" if license else "",
                    name=repo_id.partition("/")[2],
                    classes=", ".join(class_names),
                    address=address,
                    file=HUB_FILE,
                )
                Path(folder, "README.md").write_text(card, encoding="utf-8")
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload SeqFormer model")
        except Exception as error:  # of the hub, or of its HTTP library, which depends on its version
            raise InputError(f"'{address}' cannot be written: {' '.join(str(error).split())}") from error
    return address
