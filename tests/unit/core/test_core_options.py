"""Flags from dataclasses: help, values, and what a wrong flag is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from medseg.cli import main
from medseg.core.errors import OptionError
from medseg.core.options import build_parser, field_docs, parse_options


@dataclass(frozen=True)
class Sample:
    """Options of a sample.

    Attributes:
        source: Where it comes
            from, 100 % of it.
        count: How many.
        rates: Some rates.
        kind: What kind.
        fast: Whether to hurry.
        limit: The most.
        share: How much of it.
    """

    source: Path
    count: int = 3
    rates: tuple[float, ...] = (0.5, 1.0)
    kind: Literal["red", "blue"] = "red"
    fast: bool = False
    limit: int | None = None
    share: str = "80%"


def parse(*arguments):
    return parse_options(Sample, arguments, "sample", "take a sample")


def test_defaults_are_the_dataclasses_own():
    assert parse("--source", "x") == Sample(Path("x"))


def test_values_get_their_types():
    got = parse(
        "--source=a b", "--count", "-2", "--rates", "2", "3", "--kind", "blue", "--limit", "9"
    )
    assert got == Sample(Path("a b"), -2, (2.0, 3.0), "blue", limit=9)
    assert isinstance(got.source, Path)


def test_a_flag_can_be_switched_on_and_off():
    assert parse("--source", "x", "--fast").fast is True
    assert parse("--source", "x", "--fast", "--no-fast").fast is False


def test_a_list_given_twice_grows_and_leaves_the_default_behind():
    assert parse("--source", "x", "--rates", "2", "--rates", "3", "4").rates == (2.0, 3.0, 4.0)
    assert parse("--source", "x").rates == (0.5, 1.0)


def test_help_is_the_docstring():
    assert field_docs(Sample)["source"] == "Where it comes from, 100 % of it."
    text = " ".join(build_parser(Sample, "sample", "take a sample").format_help().split())
    for told in (
        "take a sample",
        "--source SOURCE Where it comes from, 100 % of it.",
        "How many. (default: 3)",
        "How much of it. (default: 80%)",
    ):
        assert told in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--sorce", "x"), r"no such flag: --sorce. Did you mean '--source'\?"),
        (("--source", "x", "--cuont=2"), r"no such flag: --cuont. Did you mean '--count'\?"),
        (("--source", "x", "--no-fst"), "no such flag: --no-fst"),
        (("--source", "x", "--cou", "2"), "no such flag: --cou"),
        ((), "required: --source"),
        (("--source", "x", "--count", "two"), "invalid int value: 'two'"),
        (("--source", "x", "--kind", "green"), "invalid choice: 'green'"),
        (("--source", "x", "y"), "unrecognized arguments: y"),
    ],
)
def test_a_wrong_flag_is_refused_with_the_way_out(arguments, told):
    with pytest.raises(OptionError, match=told) as caught:
        parse(*arguments)
    assert "usage: medseg sample" in str(caught.value)


def test_a_wrong_flag_ends_with_status_2_and_one_message(capsys):
    assert main(["phantoms", "--outptu", "x"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("medseg phantoms: no such flag: --outptu. Did you mean '--output'?")
    assert "Traceback" not in said


@pytest.mark.parametrize("verb", ["phantoms", "manifest", "check", "predict", "export"])
def test_help_ends_with_status_0_and_documents_every_flag(verb, capsys):
    assert main([verb, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"usage: medseg {verb}" in said
    assert "--output OUTPUT" in said


@dataclass(frozen=True)
class Several:
    """Options.

    Attributes:
        format: What is written.
    """

    format: tuple[Literal["html", "md", "csv"], ...] = ("html",)


@pytest.mark.parametrize("words", [["html", "md"], ["html,md"], ["html", "--format", "md"]])
def test_several_choices_are_separated_by_blanks_or_commas(words):
    assert parse_options(Several, ["--format", *words], "v", "s").format == ("html", "md")


def test_a_wrong_one_of_several_choices_is_named():
    with pytest.raises(
        OptionError, match=r"invalid choice: 'pfd' \(choose from 'html', 'md', 'csv'"
    ):
        parse_options(Several, ["--format", "html,pfd"], "v", "s")
