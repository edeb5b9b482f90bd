"""Shared by all tests: the device, reference figures, threads, seeds, and conditions of the markers."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Use one thread in every process, including those that tests start, since pytest-xdist starts a worker per
# core. PyTorch reads the variable when it is imported. An existing value is kept.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import Phase, settings  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]

# No deadline, since other workers share the machine. Tests use the same examples in every run; `make fuzz`
# draws new ones, with the second profile and a seed.
settings.register_profile("seqformer", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, derandomize=False, database=None, max_examples=500)
# On another device examples that fail are not made smaller, which can take minutes.
settings.register_profile(
    "device", deadline=None, derandomize=True, database=None, max_examples=40, phases=(Phase.generate,)
)
DEVICE = torch.device(os.environ.get("SEQFORMER_TEST_DEVICE", "cpu"))
settings.load_profile("seqformer" if DEVICE.type == "cpu" else "device")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if DEVICE.type == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError(f"SEQFORMER_TEST_DEVICE is {DEVICE}, but there is no CUDA device")
    if DEVICE.type != "cpu":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "device" in getattr(item, "fixturenames", ()):
            item.add_marker("device")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    """Seeds before fixtures that tests share, so that they do not depend on earlier tests."""
    if fixturedef.scope != "function":
        _seed()


@pytest.fixture(autouse=True)
def seed() -> int:
    """Starts every test from the same random state, whatever the order of tests."""
    _seed()
    return 0


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where networks, losses and operators run: SEQFORMER_TEST_DEVICE, a CPU by default."""
    return DEVICE


@pytest.fixture(scope="session")
def slack(device: torch.device) -> float:
    """Multiplies tolerances: 1 on CPUs, 10 on GPUs, whose float32 sums have many orders."""
    return 1.0 if device.type == "cpu" else 10.0


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The folder of the reference figures: SEQFORMER_REFERENCE_DIR or ../shared/reference.

    Without it tests are skipped, or fail if SEQFORMER_REQUIRE_REFERENCE is 1.
    """
    folder = REPOSITORY / os.environ.get("SEQFORMER_REFERENCE_DIR", "../shared/reference")
    if not folder.is_dir():
        reason = f"no reference figures in {folder} (SEQFORMER_REFERENCE_DIR)"
        if os.environ.get("SEQFORMER_REQUIRE_REFERENCE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


class _Files(SimpleHTTPRequestHandler):
    """Serves files, but only the first half of a file named "stops"."""

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    def copyfile(self, source, outputfile) -> None:
        if "stops" in self.path:
            data = source.read()
            outputfile.write(data[: len(data) // 2])
            outputfile.flush()
            self.server.stopped.wait(60)
        else:
            super().copyfile(source, outputfile)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The URL of a server for the files in tmp_path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(tmp_path)))
    server.stopped = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.stopped.set()
    server.shutdown()
    server.server_close()
