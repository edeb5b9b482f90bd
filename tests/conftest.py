"""Shared by all tests: reference figures, threads, seeds, and the markers' conditions."""

from __future__ import annotations

import gc
import os
import random
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# One thread in every process, also in those that tests start: pytest-xdist starts a worker for each core. If
# the variable is set already, it stays. PyTorch reads it when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]

# Examples share the machine with other workers, so how long one takes says nothing. Tests try the same
# examples in every run; `make fuzz` draws new ones, with the second profile and a seed.
settings.register_profile("seqformer", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, derandomize=False, database=None, max_examples=500)
settings.load_profile("seqformer")


# A PyAV object that waits for the garbage collector must not meet it in a forked process (of a data loader or
# of multiprocessing), where the object's threads are missing: freeing it there waits for them forever.
os.register_at_fork(before=gc.collect)


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    """What several tests share does not depend on the test before the first of them."""
    if fixturedef.scope != "function":
        _seed()


@pytest.fixture(autouse=True)
def seed() -> int:
    """Every test starts from the same random state, in whatever order tests run."""
    _seed()
    return 0


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder of the reference figures: SEQFORMER_REFERENCE_DIR, else ../shared/reference.

    Without it a test is skipped, or fails if SEQFORMER_REQUIRE_REFERENCE is 1.
    """
    folder = REPOSITORY / os.environ.get("SEQFORMER_REFERENCE_DIR", "../shared/reference")
    if not folder.is_dir():
        reason = f"no reference figures in {folder} (SEQFORMER_REFERENCE_DIR)"
        if os.environ.get("SEQFORMER_REQUIRE_REFERENCE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


class _Files(SimpleHTTPRequestHandler):
    """Serves files; of one that is called "stops" only the first half ever comes."""

    def log_message(self, *_: object) -> None:
        """Says nothing."""

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
    """Where the files of tmp_path are served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(tmp_path)))
    server.stopped = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.stopped.set()
    server.shutdown()
    server.server_close()
