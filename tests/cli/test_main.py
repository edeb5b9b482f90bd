"""The ``seqformer`` command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from seqformer import __version__

COMMANDS = ("predict", "train", "evaluate", "figure", "check", "convert", "export", "models", "env")
CALL = "from seqformer.cli.main import main; main()"


def run(*arguments: str, without: str | None = None) -> subprocess.CompletedProcess[str]:
    block = f"import sys; sys.modules['{without}'] = None; " if without else ""
    return subprocess.run([sys.executable, "-c", block + CALL, *arguments], capture_output=True, text=True)


def test_help_lists_the_commands() -> None:
    process = run("--help")
    assert process.returncode == 0
    assert all(f"\n    {command} " in process.stdout for command in COMMANDS)
    assert run("--version").stdout == f"seqformer {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    process = run(command, "--help")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith(f"usage: seqformer {command} ")


def test_a_wrong_command_is_refused() -> None:
    process = run("guess")
    assert process.returncode == 2 and "invalid choice: 'guess'" in process.stderr
    assert run().returncode == 2


@pytest.mark.parametrize("package", ["detectron2", "torch", "av", "cv2"])
def test_a_missing_package_is_one_line(package: str) -> None:
    process = run("predict", "video.mp4", without=package)
    assert process.returncode == 2
    assert process.stderr == (
        f"error: `seqformer predict` needs the package '{package}', which is not installed: "
        "run `seqformer env` to see how to install it\n"
    )
    assert run("env", without=package).returncode == (1 if package in ("detectron2", "torch") else 0)


def test_commands_that_only_read_files_need_no_pytorch() -> None:
    for command in ("check", "convert", "evaluate", "models"):
        assert run(command, "--help", without="torch").returncode == 0
