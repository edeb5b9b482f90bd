"""Every code block of the documentation is run, or at least parsed by the program that it is for.

Python blocks run, those of a file in one process and in order. Commands are parsed by the parser of their
program; configs must exist and have the keys that the command changes. Commands that take seconds run.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import glob
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from torch.distributed.run import get_args_parser

from seqformer import model_zoo
from seqformer.cli.main import main as seqformer
from seqformer.config import load_config
from seqformer.inference.setup import is_weights_file
from seqformer.model_zoo import SHIPPED_MODEL

REPOSITORY = Path(__file__).resolve().parents[2]
PATTERNS = ("*.md", "benchmarks/*.md", "datasets/*.md", "demo/**/*.md", "docs/**/*.md", "projects/**/*.md")
DOCUMENTS = sorted(
    str(path.relative_to(REPOSITORY)) for pattern in PATTERNS for path in REPOSITORY.glob(pattern)
)

# The commands that take only seconds.
RUN = (
    "seqformer check",
    "seqformer convert annotations",
    "seqformer convert dataset",
    "seqformer convert results",
    "seqformer env",
    "seqformer evaluate",
    "seqformer figure compare",
    "seqformer figure instances",
    "python -m seqformer.data.toy",
)
# Programs that are not ours, and why their commands are not checked.
NOT_CHECKED = {
    ".venv/bin/pre-commit": "changes the clone's hooks",
    "apt-get": "downloads packages",
    "chromium": "may not be installed",
    "dpkg": "needs the packages",
    "scontrol": "needs SLURM",
    **dict.fromkeys(("cd", "done", "for", "head", "mkdir"), "the shell's, and `bash -n` reads them"),
}


# The tests run a module as a program that they have imported.
pytestmark = pytest.mark.filterwarnings("ignore:.* found in sys.modules:RuntimeWarning")


@dataclass(frozen=True)
class Block:
    """A code block, and the number of its first line of code, from 1."""

    language: str
    code: str
    line: int


def blocks(document: str) -> list[Block]:
    """The code blocks of a file; indented ones are commands."""
    tokens = MarkdownIt().parse((REPOSITORY / document).read_text(encoding="utf-8"))
    found = []
    for token in tokens:
        if token.type == "fence":
            found.append(Block(token.info.strip(), token.content, token.map[0] + 2))
        elif token.type == "code_block":
            found.append(Block("bash", token.content, token.map[0] + 1))
    return found


def commands(code: str) -> Iterator[list[str]]:
    """The simple commands of a shell script, without assignments before them."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for token in [*lexer, ";"]:
            if not re.fullmatch(r"[();<>|&]+", token):
                words.append(token)
                continue
            while words and (words[0] in ("do", "srun") or re.match(r"\w+=", words[0])):
                del words[0]
            if words:
                yield words
            words = []


class Parsed(BaseException):
    """Ends a program once its arguments are parsed."""


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command of this project in this process."""
    program, *arguments = words
    if program == "seqformer":
        seqformer(arguments)
        return
    as_module = arguments[0] == "-m"
    name, *arguments = arguments[as_module:]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    if as_module:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        # As Python does for a program, which can then import the files next to it.
        monkeypatch.setattr(sys, "path", [str(Path(name).resolve().parent), *sys.path])
        runpy.run_path(name, run_name="__main__")


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace | None:
    """The parsed arguments of a command; None if it only asks for help."""
    parsed = []
    real = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        parsed.append(real(self, args, namespace))
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        try:
            run(words, patch)
        except Parsed:
            return parsed[0]
        except SystemExit as exit_:
            assert exit_.code in (None, 0), "the program refuses the arguments"
            return None
    raise AssertionError("the program does not parse arguments")


def check_make(words: list[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in words[1:]:
        name = target.partition("=")[0]
        pattern = rf"^{name} \?=" if "=" in target else rf"^{name}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile has no {name}"


def check_pip(words: list[str]) -> None:
    """Nothing is installed, but the extras must exist."""
    assert words[1] in ("install", "download")
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    for word in words:
        if extras := re.fullmatch(r"\.\[(.+)\]", word):
            assert set(extras[1].split(",")) <= set(setup["options.extras_require"])


def config_of(args: argparse.Namespace) -> str | Path:
    """The config that a command uses; that of the shipped model if it is in a weights file."""
    if file := getattr(args, "config_file", None):
        return file
    model = getattr(args, "model", None)
    return model_zoo.get_config_file(SHIPPED_MODEL if model is None or is_weights_file(model) else model)


def check_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for word in words:
        if re.match(r"(configs|tools|demo|benchmarks)/", word):
            assert (REPOSITORY / word).exists(), f"there is no {word}"
    if words[0] in NOT_CHECKED:
        return
    if words[0] == "make":
        check_make(words)
    elif words[0] == "pip":
        check_pip(words)
    elif words[0] == "torchrun":
        launched = get_args_parser().parse_args(words[1:])
        check_command(["python", launched.training_script, *launched.training_script_args], monkeypatch)
    elif words[0] in ("seqformer", "python"):
        args = parse(words, monkeypatch)
        if hasattr(args, "opts"):
            load_config(config_of(args), args.opts)
    else:
        raise AssertionError(
            f"'{words[0]}' is not known here: add it, or add it to NOT_CHECKED with a reason"
        )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_are_of_known_kinds_and_commands_are_right(
    document: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    problems = []
    for block in blocks(document):
        where = f"{document}, line {block.line}"
        if block.language == "bash":
            shell = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True)
            if shell.returncode:
                problems.append(f"{where}: {shell.stderr}")
            for words in commands(block.code):
                try:
                    check_command(words, monkeypatch)
                except (AssertionError, ValueError, SystemExit) as error:
                    problems.append(f"{where}: {shlex.join(words)}: {error}\n{capsys.readouterr().err}")
        elif block.language == "json":
            json.loads(block.code)
        elif block.language not in ("python", "text"):
            problems.append(f"{where}: mark the block as python, bash, json or text, not '{block.language}'")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "command, problem",
    [
        ("seqformer predict video.mp4 --nothing", "refuses the arguments"),
        ("seqformer nothing", "refuses the arguments"),
        ("python tools/figure.py nothing", "refuses the arguments"),
        ("python tools/nothing.py", "there is no tools/nothing.py"),
        ("torchrun --nproc_per_node 2 train_net.py --nothing 1", "refuses the arguments"),
        ("seqformer train --config-file configs/nothing.yaml", "there is no configs/nothing.yaml"),
        ("seqformer train --config-file configs/ytvis19/seqformer_R50.yaml MODEL.NOTHING 1", "NOTHING"),
        ("seqformer predict video.mp4 --model released/nothing", "no config 'released/nothing'"),
        ("make nothing", "the Makefile has no nothing"),
        ("pip install '.[nothing]'", "'nothing'"),
        ("nothing --at-all", "'nothing' is not known here"),
    ],
)
def test_wrong_commands_are_noticed(command: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    (words,) = commands(command)
    with pytest.raises((AssertionError, ValueError), match=problem):
        check_command(words, monkeypatch)


def runnable(document: str) -> list[list[str]]:
    """The commands of a file that test_commands_run runs."""
    scripts = [block.code for block in blocks(document) if block.language == "bash"]
    found = [words for script in scripts for words in commands(script)]
    return [words for words in found if shlex.join(words).startswith(RUN)]


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if runnable(document)])
def test_commands_run(
    document: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in runnable(document):
        expanded = [path for word in words for path in sorted(glob.glob(word)) or [word]]
        try:
            run(expanded, monkeypatch)
        except SystemExit as exit_:
            assert exit_.code in (None, 0), f"{shlex.join(words)}: {capsys.readouterr().err}"
        if "--output" in words:
            assert (workspace / words[words.index("--output") + 1]).stat().st_size


def run_python(document: str) -> str:
    """Runs the Python blocks of a file and returns what they print.

    Each block is at its own line, so that a traceback names the line of the file.
    """
    program: list[str] = []
    for block in blocks(document):
        if block.language == "python":
            program += [""] * (block.line - 1 - len(program)) + block.code.splitlines()
    process = subprocess.run(
        [sys.executable, "-c", f"exec(compile({chr(10).join(program)!r}, {document!r}, 'exec'))"],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, f"{document}: {process.stderr}"
    return process.stdout


WITH_PYTHON = [name for name in DOCUMENTS if any(block.language == "python" for block in blocks(name))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", [name for name in WITH_PYTHON if name not in ("README.md", "docs/pretrained.md")]
)
def test_python_blocks_run(document: str, workspace: Path) -> None:
    run_python(document)


@pytest.mark.slow
def test_the_python_example_of_the_readme_finds_people(
    workspace: Path, read_video: Callable, stand_ins: Path
) -> None:
    printed = re.findall(r"^person (0\.\d+) \[", run_python("README.md"), re.MULTILINE)
    assert len(printed) >= 4
    drawn, source = (read_video(Path(name, "street.mp4")) for name in ("output", "demo/assets"))
    assert len(drawn) == len(source)
    assert all((abs(a.astype(int) - b) > 60).any() for a, b in zip(drawn, source, strict=True))


@pytest.mark.slow
def test_the_command_of_the_readme_writes_a_video_and_results(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, read_video: Callable
) -> None:
    words = ["seqformer", "predict", "video.mp4", "--output", "out.mp4"]
    assert words in [words for block in blocks("README.md") for words in commands(block.code)]
    (workspace / "out.json").unlink()
    run(words, monkeypatch)
    assert len(read_video(Path("out.mp4"))) == len(read_video(Path("video.mp4")))
    assert isinstance(json.loads(Path("out.json").read_text()), list)


@pytest.mark.slow
def test_the_page_of_the_released_models_runs(
    workspace: Path, made_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command and its Python give the same results."""
    monkeypatch.setenv("FVCORE_CACHE", str(made_release))
    words = [
        "seqformer",
        "predict",
        "video.mp4",
        "--model",
        "released/seqformer_R50_joint",
        "--output",
        "out.mp4",
    ]
    page = "docs/pretrained.md"
    assert words in [words for block in blocks(page) for words in commands(block.code)]
    (workspace / "out.json").unlink()
    run(words, monkeypatch)
    classes, *tracklets = run_python(page).splitlines()
    assert len(ast.literal_eval(classes)) == 40 and "giant_panda" in classes
    scores = [entry["score"] for entry in json.loads(Path("out.json").read_text())]
    assert [float(tracklet.rpartition(" ")[2]) for tracklet in tracklets] == scores != []
