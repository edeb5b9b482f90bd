"""Weights by address: downloaded once into a cache, and resumed after an interruption.

Addresses go through iopath's PathManager. ``https://`` needs nothing else; ``hf://OWNER/REPO/FILE`` needs
huggingface_hub, and Google Drive (``gdrive://ID`` or an address of drive.google.com) needs gdown.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import re
import sys
import zipfile
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from types import ModuleType
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from detectron2.utils.file_io import Detectron2Handler
from iopath.common.file_io import (
    OneDrivePathHandler,
    PathHandler,
    PathManager,
    file_lock,
    get_cache_dir,
)
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from seqformer.errors import InputError

__all__ = ["HUB_FILE", "WEIGHT_SUFFIXES", "is_address", "local_file"]

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES = (".pth", ".pkl", ".safetensors")
HUB_FILE = "model.safetensors"  # of a repository on the Hugging Face Hub that is given without a file

_CHUNK = 1 << 18  # bytes
_TIMEOUT = 60  # seconds without a byte
_TITLE = re.compile(rb"<title[^>]*>\s*(.*?)\s*</title>", re.IGNORECASE | re.DOTALL)


def is_address(path: str | Path) -> bool:
    """Whether ``path`` is an address, such as ``https://...``, and not a local file."""
    return "://" in str(path)


def local_file(path: str | Path) -> Path:
    """Returns the local file of an address; it is downloaded if it is not in the cache.

    The cache is iopath's, ``$FVCORE_CACHE`` or ``~/.torch/iopath_cache``, but huggingface_hub has its own. A
    file gets its final name only when it is complete and is a weights file.

    Args:
        path: ``https://...``, ``hf://OWNER/REPO[@REVISION][/FILE]``, ``gdrive://ID`` or an address of
            drive.google.com, ``detectron2://...``, or a local path, which is returned unchanged.

    Raises:
        InputError: if the file cannot be downloaded or is not a weights file, or a package is missing.

    Examples:
        >>> local_file("hf://me/street/model.safetensors")
    """
    address = str(path)
    if not is_address(address):
        return Path(address)
    try:
        return Path(_MANAGER.get_local_path(address))
    except InputError:
        raise
    except (OSError, ValueError) as error:  # Detectron2's handlers, the cache's folder, a malformed address
        raise _failed(address, str(error)) from error


class _Http(PathHandler):
    """Downloads with resume, which iopath's own handler does not have."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://"]

    def _get_local_path(self, path: str, force: bool = False) -> str:
        parts = urlsplit(path)
        name = re.sub(r"[^\w.-]", "_", PurePosixPath(unquote(parts.path)).name[-100:]) or "weights"
        # The digest separates files of the same name, and queries such as "?id=3".
        folder = Path(parts.hostname or "unknown", hashlib.sha256(path.encode()).hexdigest()[:16])
        return _cached(path, folder, name, _download)


class _GoogleDrive(PathHandler):
    def _get_supported_prefixes(self) -> list[str]:
        return ["gdrive://", "https://drive.google.com/", "https://docs.google.com/"]

    def _get_local_path(self, path: str, force: bool = False) -> str:
        match = re.search(r"^gdrive://([-\w]+)$|/d/([-\w]+)|[?&]id=([-\w]+)", path)
        if match is None:
            raise InputError(f"'{path}' names no file on Google Drive: write gdrive://ID")
        file_id = match[1] or match[2] or match[3]
        return _cached(path, Path("drive.google.com", file_id), "weights", _download_from_drive)


class _HuggingFace(PathHandler):
    def _get_supported_prefixes(self) -> list[str]:
        return ["hf://"]

    def _get_local_path(self, path: str, force: bool = False) -> str:
        match = re.fullmatch(r"hf://([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?", path)
        if match is None:
            raise InputError(f"'{path}' names no file: write hf://OWNER/REPO/FILE")
        hub = _import("huggingface_hub", path)
        try:
            found = str(hub.hf_hub_download(match[1], match[3] or HUB_FILE, revision=match[2]))
        except Exception as error:  # of the hub, or of its HTTP library, which depends on its version
            raise _failed(path, str(error)) from error
        _check_content(path, Path(found))
        return found


def _cached(address: str, folder: Path, name: str, download: Callable[[str, Path], None]) -> str:
    """Returns the file ``name`` in a folder of the cache; it is downloaded if there is none.

    If ``name`` has no suffix of a weights file, the content decides which it gets.
    """
    folder = Path(get_cache_dir(), folder)
    suffixes = ("",) if name.endswith(WEIGHT_SUFFIXES) else WEIGHT_SUFFIXES
    candidates = [folder / f"{name}{suffix}" for suffix in suffixes]
    with file_lock(str(folder / name)):  # other processes of the same job need the same file
        if found := [path for path in candidates if path.is_file()]:
            return str(found[0])
        part = folder / f"{name}.part"
        logger.info("Downloading %s", address)
        download(address, part)
        try:
            suffix = _check_content(address, part)
        except InputError:
            part.unlink()
            raise
        target = folder / (name if suffixes == ("",) else f"{name}{suffix}")
        part.replace(target)
        return str(target)


def _check_content(address: str, path: Path) -> str:
    """Returns the suffix that fits the content of a downloaded file.

    Raises:
        InputError: if it is a web page or something else that is not a weights file.
    """
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    if re.match(rb"\s*<(!doctype|html|head|\?xml)", head, re.IGNORECASE):
        title = _TITLE.search(head)
        named = f" ('{_one_line(title[1].decode(errors='replace'))}')" if title else ""
        raise InputError(
            f"'{address}' returned a web page{named} instead of a file: open the address in a browser to see "
            "why, or download the file there and give its path"
        )
    if zipfile.is_zipfile(path) or head.startswith(b"\x80"):  # PyTorch's format, or a pickle
        return ".pth"
    try:
        with safe_open(str(path), framework="pt"):
            return ".safetensors"
    except SafetensorError as error:
        raise InputError(f"'{address}' is not a weights file, or is incomplete") from error


def _download(address: str, part: Path) -> None:
    """Downloads to ``part``. Continues an earlier download if the server still has the same file.

    After a lost connection it tries again as long as it gets further.

    Raises:
        InputError: if the file cannot be downloaded completely; what was received is kept.
    """
    furthest = 0
    while True:
        try:
            total = _transfer(address, part)
            size = part.stat().st_size
            if total in (None, size):
                _version(part).unlink(missing_ok=True)
                return
            reason = f"the connection was closed after {size} of {total} bytes"
        except HTTPError as error:
            if error.code == 416 and part.exists():  # the server's file has become shorter
                part.unlink()
                continue
            raise _failed(address, f"HTTP {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            size = part.stat().st_size if part.exists() else 0
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if size <= furthest:
            again = "; run the command again to continue" if size and _version(part).exists() else ""
            raise _failed(address, reason + again)
        furthest = size


def _transfer(address: str, part: Path) -> int | None:
    """Makes one request and appends its bytes to ``part``. Returns the size of the whole file, if known."""
    version = _version(part)
    done = part.stat().st_size if part.exists() and version.exists() else 0
    headers = {"User-Agent": "seqformer", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": version.read_text(encoding="utf-8")}
    response: HTTPResponse
    with urlopen(Request(address, headers=headers), timeout=_TIMEOUT) as response:
        resumed = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if response.status == 206 and resumed and int(resumed[1]) == done:
            total: int | None = int(resumed[2])
        else:
            done = 0
            length = response.headers.get("Content-Length")
            total = int(length) if length and length.isdecimal() else None
            etag = response.headers.get("ETag", "")
            strong = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
            version.unlink(missing_ok=True)
            if strong:  # without it, parts of two versions of the file could be joined
                version.write_text(strong, encoding="utf-8")
        with (
            open(part, "ab" if done else "wb") as file,
            tqdm(
                desc=part.name.removesuffix(".part"),
                total=total,
                initial=done,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    return total


def _version(part: Path) -> Path:
    """The file that says which version of the server's file ``part`` is a part of."""
    return part.with_name(f"{part.name}.version")


def _download_from_drive(address: str, part: Path) -> None:
    """Downloads with gdown, which also resumes.

    Raises:
        InputError: if gdown is missing or fails, such as when the file's quota is reached.
    """
    gdown = _import("gdown", address)
    quiet = not sys.stderr.isatty()
    try:
        gdown.download(id=part.parent.name, output=str(part), quiet=quiet, resume=True)
    except Exception as error:  # of gdown or requests, whose classes depend on gdown's version
        raise _failed(address, f"{error}; or download it in a browser and give its path") from error


def _import(package: str, address: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"'{address}' needs the package '{package}', which is not installed: pip install {package}; "
            "or download the file in a browser and give its path"
        ) from error


def _failed(address: str, reason: str) -> InputError:
    return InputError(f"'{address}' cannot be downloaded: {_one_line(reason)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


_MANAGER = PathManager()  # the longest prefix decides
for _handler in (_Http(), _GoogleDrive(), _HuggingFace(), Detectron2Handler(), OneDrivePathHandler()):
    _MANAGER.register_handler(_handler)
