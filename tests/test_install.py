"""Importing the package, and `make install` with a fake Python that installs nothing."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True)


def test_import_is_quiet():
    process = run_python("import seqformer")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_import_registers_the_meta_architecture():
    code = (
        "import seqformer; from detectron2.modeling import META_ARCH_REGISTRY as r; print(r.get('SeqFormer'))"
    )
    assert "seqformer" in run_python(code).stdout


def test_import_does_not_hide_other_warnings():
    code = "import seqformer, warnings; warnings.warn('`torch.jit.script` is deprecated', FutureWarning)"
    assert "FutureWarning: `torch.jit.script` is deprecated" in run_python(code).stderr


# A clone of Detectron2 in the current folder is importable as an empty package of that name.
EMPTY_PACKAGE = """
import importlib.machinery, sys
class EmptyDetectron2:
    def find_spec(name, path=None, target=None):
        if name == "detectron2":
            return importlib.machinery.ModuleSpec(name, None, is_package=True)
sys.meta_path.insert(0, EmptyDetectron2)
"""


@pytest.mark.parametrize("without", ["import sys; sys.modules['detectron2'] = None", EMPTY_PACKAGE])
def test_import_without_detectron2_says_how_to_install_it(without):
    process = run_python(
        f"{without}\ntry:\n    from seqformer import SeqFormer\nexcept ImportError as e:\n    print(e)"
    )
    assert process.stderr == ""
    assert process.stdout.startswith("Detectron2 is not installed.")
    assert "sal-detectron2==0.7.2" in process.stdout
    assert "git+https://github.com/facebookresearch/detectron2.git" in process.stdout


PUBLIC = """
import seqformer
for name in seqformer.__all__:
    assert getattr(seqformer, name) is not None
"""


@pytest.mark.parametrize("package", ["cv2", "av", "timm", "matplotlib", "supervision"])
def test_the_public_api_needs_no_optional_package(package):
    process = run_python(f"import sys; sys.modules['{package}'] = None\n{PUBLIC}")
    assert (process.returncode, process.stderr) == (0, "")


def test_all_public_names_exist():
    process = run_python("from seqformer import *; print(SeqFormer, load_config, __version__)")
    assert process.returncode == 0 and "seqformer.meta_arch.SeqFormer" in process.stdout
    assert "has no attribute 'nothing'" in run_python("import seqformer; seqformer.nothing").stderr


def test_every_requirement_is_pinned(repository):
    folder = repository / "requirements"
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (folder / "constraints.txt").read_text(), re.MULTILINE))
    pinned = {name.lower().replace("_", "-") for name in pins}

    def listed_in(*names: str) -> set[str]:
        lines = [line for name in names for line in (folder / name).read_text().splitlines()]
        return {line for line in lines if not line.startswith(("#", "-c"))}

    listed, for_docs = (
        listed_in("torch.txt", "runtime.txt", "dev.txt", "no-deps.txt"),
        listed_in("docs.txt"),
    )
    assert listed | for_docs <= pinned

    setup = configparser.ConfigParser()
    setup.read(repository / "setup.cfg")
    extras = [
        setup["options.extras_require"][name]
        for name in ("demo", "timm", "gdrive", "hub", "page", "export", "dev", "trackeval")
    ]  # what `make` installs
    declared = "\n".join([setup["options"]["install_requires"], *extras])
    names = set(re.findall(r"^[a-z][\w.-]*", declared, re.MULTILINE))
    assert names == listed - {"ninja", "wheel"}  # these build; nothing imports them
    assert set(setup["options.extras_require"]["docs"].split()) == for_docs


def test_pre_commit_runs_the_pinned_version_of_ruff(repository):
    pin = re.search(r"^ruff==(\S+)$", (repository / "requirements/constraints.txt").read_text(), re.MULTILINE)
    hooks = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text())
    revisions = {hook["repo"].rpartition("/")[2]: hook["rev"] for hook in hooks["repos"]}
    assert revisions["ruff-pre-commit"] == f"v{pin[1]}"


# A fake Python for install.sh that records its calls in calls.txt. Its pip fails if a file fail-pip exists.
STAND_IN = """#!/usr/bin/env bash
echo "$@" >>calls.txt
if [[ $1 == -m && $2 == venv ]]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
if [[ $1 == -m && $2 == pip && -e fail-pip ]]; then exit 1; fi
"""


class Checkout:
    """A copy of the files that `make install` needs, and the fake Python."""

    def __init__(self, repository: Path, folder: Path):
        self.folder = folder
        shutil.copytree(repository / "requirements", folder / "requirements")
        for name in ("Makefile", "setup.cfg", "pyproject.toml"):
            shutil.copy(repository / name, folder)
        self.python = folder / "stand-in"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)

    def install(self, python: Path | str | None = None) -> subprocess.CompletedProcess[str]:
        # Without MAKE*, since the tests themselves may run under `make test`.
        env = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        command = ["make", "install", f"PYTHON={python or self.python}"]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True)

    def calls(self) -> list[str]:
        """Returns the calls of the fake Python since the last time."""
        log = self.folder / "calls.txt"
        calls = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return calls


@pytest.fixture
def checkout(repository, tmp_path):
    return Checkout(repository, tmp_path)


def test_install_runs_once_until_something_changes(checkout):
    process = checkout.install()
    assert process.returncode == 0, process.stderr
    calls = checkout.calls()
    assert "-m venv .venv" in calls
    assert any("--require-hashes -r requirements/detectron2.txt" in call for call in calls)
    assert any(call.endswith("--no-build-isolation --no-deps -e .") for call in calls)
    assert any(call.endswith("--no-deps -r requirements/no-deps.txt") for call in calls), "no second OpenCV"

    assert checkout.install().returncode == 0
    assert checkout.calls() == []

    newer = (checkout.folder / ".venv/.installed").stat().st_mtime + 5
    os.utime(checkout.folder / "requirements/dev.txt", (newer, newer))
    assert checkout.install().returncode == 0
    calls = checkout.calls()
    assert any("requirements/dev.txt" in call for call in calls)
    assert "-m venv .venv" not in calls


def test_unfinished_install_is_repaired(checkout):
    (checkout.folder / "fail-pip").touch()
    assert checkout.install().returncode != 0
    leftover = checkout.folder / ".venv/bin/half-installed"
    leftover.touch()
    (checkout.folder / "fail-pip").unlink()
    checkout.calls()

    assert checkout.install().returncode == 0
    assert "-m venv .venv" in checkout.calls()
    assert not leftover.exists()


def test_environment_without_working_python_is_recreated(checkout):
    (checkout.folder / ".venv/bin").mkdir(parents=True)
    (checkout.folder / ".venv/bin/python").symlink_to("/nonexistent/python")
    assert checkout.install().returncode == 0
    assert "-m venv .venv" in checkout.calls()


@pytest.mark.parametrize("python", ["/nonexistent/python", "false"])
def test_missing_or_old_python_is_reported_in_one_line(checkout, python):
    process = checkout.install(python)
    assert process.returncode != 0
    errors = [line for line in process.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: no Python 3.11 or newer (tried: {python})")
    assert not (checkout.folder / ".venv").exists()


def test_ci_needs_the_reference_figures(repository):
    env = {**os.environ, "SEQFORMER_REFERENCE_DIR": "/nonexistent"}
    process = subprocess.run([repository / ".ci/run"], env=env, capture_output=True, text=True)
    assert process.returncode != 0
    assert process.stderr.splitlines() == [
        "error: no reference figures in /nonexistent: set SEQFORMER_REFERENCE_DIR to their folder"
    ]
