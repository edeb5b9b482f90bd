"""Downloads of weights, from a server that also does what servers do wrong."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import huggingface_hub
import pytest
import torch
from networks import tiny_model
from safetensors.torch import save_file

from seqformer.checkpoints import SeqFormerCheckpointer, local_file, read_class_names, read_state
from seqformer.errors import InputError

PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Quota\nexceeded</title></head></html>"


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``. ``server.breaks`` limits the bytes of each of the next answers."""

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(self.headers.get("Range"))
        if self.path not in server.files:
            self.send_error(404)
            return
        data, first = server.files[self.path], 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and server.etag and self.headers.get("If-Range") == server.etag:
            first = int(asked[1])
        if first >= len(data) > 0:
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        if first:
            total = server.announced or len(data)
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.announced is not False:
            self.send_header("Content-Length", str((server.announced or len(data)) - first))
        self.end_headers()
        limit = server.breaks.pop(0) if server.breaks else None
        self.wfile.write(data[first:][:limit])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.etag, server.announced = '"1"', None
    server.files, server.breaks, server.requests = {}, [], []
    server.root = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    """A checkpoint of about 40 kB."""
    torch.save({"model": {"weight": torch.randn(10_000)}}, tmp_path / "weights.pth")
    return (tmp_path / "weights.pth").read_bytes()


def cached(tmp_path: Path) -> list[str]:
    """The names of the files in the cache, without locks."""
    files = (path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(path.name for path in files)


def test_a_file_is_downloaded_once(server, tmp_path: Path, weights: bytes) -> None:
    server.files["/a/model.pth"] = weights
    for _ in range(2):
        assert local_file(f"{server.root}/a/model.pth").read_bytes() == weights
    assert server.requests == [None]
    assert cached(tmp_path) == ["model.pth"]
    assert local_file("some/file.pth") == Path("some/file.pth")


def test_files_of_the_same_name_are_kept_apart(server, weights: bytes, tmp_path: Path) -> None:
    save_file({"x": torch.ones(3)}, tmp_path / "other.safetensors")
    other = (tmp_path / "other.safetensors").read_bytes()
    server.files |= {"/a/get?id=1": weights, "/a/get?id=2": other, "/b/get": weights[:100]}
    first, second = (local_file(f"{server.root}/a/get?id={number}") for number in (1, 2))
    assert (first.name, second.name) == ("get.pth", "get.safetensors"), "the content decides"
    assert (first.read_bytes(), second.read_bytes()) == (weights, other)


def test_a_lost_connection_is_continued(server, tmp_path: Path, weights: bytes) -> None:
    server.files["/model.pth"] = weights
    server.breaks = [10_000, 5_000]
    assert local_file(f"{server.root}/model.pth").read_bytes() == weights
    assert server.requests == [None, "bytes=10000-", "bytes=15000-"]
    assert cached(tmp_path) == ["model.pth"]


def test_an_interrupted_download_is_continued_by_the_next_run(server, tmp_path: Path, weights: bytes) -> None:
    server.files["/model.pth"] = weights
    server.breaks = [10_000, 0]
    message = (
        rf"cannot be downloaded: .* after 10000 of {len(weights)} bytes; run the command again to continue"
    )
    with pytest.raises(InputError, match=message):
        local_file(f"{server.root}/model.pth")
    assert cached(tmp_path) == ["model.pth.part", "model.pth.part.version"]
    assert local_file(f"{server.root}/model.pth").read_bytes() == weights
    assert server.requests[2:] == ["bytes=10000-"]
    assert cached(tmp_path) == ["model.pth"]


@pytest.mark.parametrize("etag", ['"2"', "", 'W/"1"'])
def test_parts_of_different_files_are_not_joined(server, weights: bytes, etag: str) -> None:
    """The file changes between two runs; without a strong ETag, nobody can tell."""
    server.files["/model.pth"] = b"x" * 20_000
    server.breaks = [10_000, 0]
    server.etag = '"1"' if etag == '"2"' else etag
    with pytest.raises(InputError):
        local_file(f"{server.root}/model.pth")
    server.files["/model.pth"], server.etag = weights, etag
    assert local_file(f"{server.root}/model.pth").read_bytes() == weights


@pytest.mark.parametrize("etag", ['"1"', ""])
def test_a_body_shorter_than_announced_is_refused(server, tmp_path: Path, weights: bytes, etag: str) -> None:
    server.files["/model.pth"], server.etag = weights, etag
    server.announced = len(weights) + 100
    with pytest.raises(InputError, match=f"closed after .* of {len(weights) + 100} bytes") as error:
        local_file(f"{server.root}/model.pth")
    assert "\n" not in str(error.value)
    assert "model.pth" not in cached(tmp_path)


@pytest.mark.parametrize("announced", [1000, 30_000])
def test_a_body_longer_than_announced_is_refused(
    server, tmp_path: Path, weights: bytes, announced: int
) -> None:
    """HTTP ends it at the announced length, so the file is incomplete."""
    server.files["/model.pth"], server.announced = weights, announced
    with pytest.raises(InputError, match="is not a weights file, or is incomplete"):
        local_file(f"{server.root}/model.pth")
    assert cached(tmp_path) == []


def test_a_body_of_unknown_length(server, weights: bytes) -> None:
    server.files["/model.pth"], server.announced = weights, False
    assert local_file(f"{server.root}/model.pth").read_bytes() == weights


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (PAGE, r"returned a web page \('Google Drive - Quota exceeded'\) instead of a file"),
        (b"\n <html></html>", "returned a web page instead of a file"),
        (b'{"error": "no access"}', "is not a weights file, or is incomplete"),
        (b"", "is not a weights file, or is incomplete"),
    ],
)
def test_something_else_than_weights_is_refused(server, tmp_path: Path, body: bytes, message: str) -> None:
    server.files["/model.pth"] = body
    with pytest.raises(InputError, match=message) as error:
        local_file(f"{server.root}/model.pth")
    assert "\n" not in str(error.value)
    assert cached(tmp_path) == []


def test_a_missing_file_and_a_missing_server(server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/none.pth' cannot be downloaded: HTTP 404 Not Found"):
        local_file(f"{server.root}/none.pth")
    with pytest.raises(InputError, match=r"'http://127.0.0.1:1/x.pth' cannot be downloaded: .*refused"):
        local_file("http://127.0.0.1:1/x.pth")
    for malformed in ("http://[x/a.pth", "http://a b/c.pth", "http://"):
        with pytest.raises(InputError, match="cannot be downloaded: "):
            local_file(malformed)
    server.files["/%00%2F..%2F.."] = PAGE
    with pytest.raises(InputError, match="returned a web page"):
        local_file(f"{server.root}/%00%2F..%2F..")
    assert cached(tmp_path) == []


def test_a_file_that_became_shorter(server, weights: bytes) -> None:
    """The server answers 416 when the part is longer than its file."""
    server.files["/model.pth"] = weights
    server.breaks = [10_000, 0]
    with pytest.raises(InputError):
        local_file(f"{server.root}/model.pth")

    def refuse(handler: Handler) -> None:
        monkeypatch.undo()
        handler.send_error(416)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Handler, "do_GET", refuse)
        assert local_file(f"{server.root}/model.pth").read_bytes() == weights


def test_every_reader_takes_addresses(server, tmp_path: Path) -> None:
    model, other = tiny_model(NUM_CLASSES=2), tiny_model(NUM_CLASSES=2)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "m.safetensors", {"thing_classes": '["cat", "dog"]'})
    torch.save({"model": state}, tmp_path / "m.pth")
    server.files |= {f"/{name}": (tmp_path / name).read_bytes() for name in ("m.safetensors", "m.pth")}
    assert read_class_names(f"{server.root}/m.safetensors") == ["cat", "dog"]
    assert read_state(f"{server.root}/m.pth").keys() == state.keys()
    for name in ("m.safetensors", "m.pth"):
        for parameter in other.parameters():
            torch.nn.init.zeros_(parameter)
        SeqFormerCheckpointer(other, strict=True).load(f"{server.root}/{name}")
        assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    with pytest.raises(InputError, match="HTTP 404"):
        SeqFormerCheckpointer(other).load(f"{server.root}/none.pth")


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """gdown, faked at its boundary: ``download`` writes ``answer``, or raises it."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    gdown, fake = ModuleType("gdown"), SimpleNamespace(answer=b"", ids=[])
    gdown.DownloadError = type("DownloadError", (Exception,), {})

    def download(*, id: str, output: str, quiet: bool, resume: bool) -> str:
        fake.ids.append(id)
        assert resume and quiet  # stderr is not a terminal
        if isinstance(fake.answer, Exception):
            raise fake.answer
        Path(output).write_bytes(fake.answer)
        return output

    gdown.download, fake.error = download, gdown.DownloadError
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    return fake


@pytest.mark.parametrize(
    "address",
    [
        "gdrive://1fI8_1h_UDaZiwOup-45",
        "https://drive.google.com/uc?id=1fI8_1h_UDaZiwOup-45",
        "https://drive.google.com/uc?export=download&id=1fI8_1h_UDaZiwOup-45",
        "https://drive.google.com/file/d/1fI8_1h_UDaZiwOup-45/view?usp=sharing",
    ],
)
def test_google_drive(drive: SimpleNamespace, tmp_path: Path, weights: bytes, address: str) -> None:
    drive.answer = weights
    for _ in range(2):
        path = local_file(address)
        assert path.read_bytes() == weights
    assert path.relative_to(tmp_path / "cache") == Path("drive.google.com/1fI8_1h_UDaZiwOup-45/weights.pth")
    assert drive.ids == ["1fI8_1h_UDaZiwOup-45"]


def test_google_drive_refuses(drive: SimpleNamespace, tmp_path: Path) -> None:
    drive.answer = PAGE
    with pytest.raises(InputError, match="returned a web page .'Google Drive - Quota exceeded'"):
        local_file("gdrive://1fI8")
    for error in (
        drive.error("Cannot retrieve\nthe public link"),
        ConnectionError("Cannot retrieve the public link"),
    ):
        drive.answer = error
        message = "'gdrive://1fI8' cannot be downloaded: Cannot retrieve the public link; or download it in a"
        with pytest.raises(InputError, match=message) as raised:
            local_file("gdrive://1fI8")
        assert "\n" not in str(raised.value)
    assert cached(tmp_path) == []
    with pytest.raises(InputError, match="names no file on Google Drive: write gdrive://ID"):
        local_file("https://drive.google.com/drive/my-drive")


@pytest.mark.parametrize(
    ("address", "package"), [("gdrive://1fI8", "gdown"), ("hf://me/model/a.pth", "huggingface_hub")]
)
def test_a_missing_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, package: str
) -> None:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, package, None)
    message = f"'{address}' needs the package '{package}', which is not installed: pip install {package}; or"
    with pytest.raises(InputError, match=message):
        local_file(address)


def test_hugging_face_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: bytes) -> None:
    asked = []

    def hf_hub_download(repo_id: str, filename: str, *, revision: str | None = None) -> str:
        asked.append((repo_id, filename, revision))
        if "none" in filename:
            raise huggingface_hub.errors.LocalEntryNotFoundError("no file\nand no network")
        return str(tmp_path / "weights.pth")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    for address in ("hf://me/street", "hf://me/street/a/b.pth", "hf://me/street@v1/b.pth"):
        assert local_file(address).read_bytes() == weights
    assert asked == [
        ("me/street", "model.safetensors", None),
        ("me/street", "a/b.pth", None),
        ("me/street", "b.pth", "v1"),
    ]
    with pytest.raises(
        InputError, match="'hf://me/street/none.pth' cannot be downloaded: no file and no network"
    ):
        local_file("hf://me/street/none.pth")
    with pytest.raises(InputError, match="names no file: write hf://OWNER/REPO/FILE"):
        local_file("hf://street")
    (tmp_path / "weights.pth").write_bytes(PAGE)
    with pytest.raises(InputError, match="returned a web page"):
        local_file("hf://me/street")
