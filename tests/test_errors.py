"""Error messages for bad input, from functions and from commands."""

from __future__ import annotations

import pytest

from seqformer.errors import InputError, exit_on_bad_input, name_flags, one_line


def test_commands_name_their_flags() -> None:
    error = InputError("`threshold` 7: too high, unlike `other` and 'threshold'")
    with pytest.raises(InputError) as raised, name_flags({"threshold": "--score"}):
        raise error
    assert str(raised.value) == "--score 7: too high, unlike `other` and 'threshold'"
    assert raised.value.__cause__ is error


def test_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, exit_on_bad_input():
        raise InputError("no file\n'a.mp4'")
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", "error: no file 'a.mp4'\n")


def test_other_errors_are_not_changed() -> None:
    with (
        pytest.raises(ValueError, match="a `threshold`"),
        exit_on_bad_input(),
        name_flags({"threshold": "-t"}),
    ):
        raise ValueError("a `threshold`")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n\x1b[31mb\x07", "a \\x1b[31mb\\x07"),
        ("a\u2028b\r\nc", "a b c"),
        ("\ud800 \0 \u202e", "\\ud800 \\x00 \\u202e"),
        ("Straße 道路", "Straße 道路"),
        ("a" * 4000 + "b" * 4000, "a" * 3000 + " ... " + "b" * 1000),
    ],
)
def test_names_of_others_cannot_write_on_the_terminal(text: str, line: str) -> None:
    assert one_line(text) == line
