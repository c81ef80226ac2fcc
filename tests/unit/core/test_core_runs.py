"""Score files, strict JSON, and writing whole or not at all."""

import csv
import json
import math
import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.core.errors import OptionError
from medseg.core.runs import (
    RunFiles,
    Score,
    ScoreFiles,
    atomic_text,
    csv_cell,
    csv_text,
    read_json_lines,
    read_scores,
    strict_json,
    write_json,
    write_scores,
)

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(WORDS)
def test_no_cell_is_a_formula_and_every_text_comes_back(text):
    cell = csv_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert csv_text(cell) == text


# A lone carriage return is left out: Python's csv quotes it only since 3.13.
LINES = WORDS.filter(lambda text: "\r" not in text)


@given(st.lists(st.tuples(LINES, LINES, LINES, st.floats(allow_nan=False)), max_size=5))
def test_scores_come_back_as_they_were(tmp_path_factory, rows):
    scores = [Score(*words, "dice", value) for *words, value in rows]
    path = tmp_path_factory.mktemp("scores") / "scores.csv"
    write_scores(path, scores)
    assert read_scores(path) == scores


def test_formulas_are_text_in_the_file(tmp_path):
    write_scores(tmp_path / "s.csv", [Score('=HYPERLINK("x")', "-1", "@a", "dice", 0.5)])
    rows = list(csv.reader((tmp_path / "s.csv").open(newline="")))
    assert rows[1] == ['\'=HYPERLINK("x")', "'-1", "'@a", "dice", "0.5"]


def test_missed_and_undefined_survive(tmp_path):
    write_scores(
        tmp_path / "s.csv", [Score("a", "", "x", "hd95_mm", v) for v in (math.inf, math.nan)]
    )
    missed, undefined = read_scores(tmp_path / "s.csv")
    assert missed.value == math.inf
    assert math.isnan(undefined.value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"case_id,group\n",
        b"case_id,group,class_name,metric,value\na,,x,dice\n",
        b"case_id,group,class_name,metric,value\na,,x,dice,high\n",
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_score_file_is_refused_in_words(tmp_path, text):
    (tmp_path / "s.csv").write_bytes(text)
    with pytest.raises(
        OptionError, match="is not a score file: it needs the columns case_id,group"
    ):
        read_scores(tmp_path / "s.csv")


def test_columns_may_come_in_any_order_and_with_others(tmp_path):
    (tmp_path / "s.csv").write_text(
        "value,note,metric,class_name,group,case_id\n0.5,n,dice,x,g,a\n"
    )
    assert read_scores(tmp_path / "s.csv") == [Score("a", "g", "x", "dice", 0.5)]


def test_a_score_file_that_is_absent_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"s\.csv: no such score file"):
        read_scores(tmp_path / "s.csv")


def test_json_knows_neither_nan_nor_infinity(tmp_path):
    value = {"a": [math.nan, math.inf, np.float64(-np.inf), 1.5], 2: (True, None, "x")}
    assert strict_json(value) == {"a": [None, None, None, 1.5], "2": [True, None, "x"]}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == strict_json(value)


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "deep" / "x.txt"
    with atomic_text(path) as file:
        file.write("old")

    def fail():
        with atomic_text(path) as file:
            file.write("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.txt"]
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OptionError, match=r"x\.txt cannot be written .* Choose another place"),
        atomic_text(tmp_path / "file" / "x.txt"),
    ):
        pass


def test_an_evaluation_keeps_its_files_together(tmp_path):
    folder = ScoreFiles.at(tmp_path / "out")
    assert [p.name for p in (folder.scores, folder.cases, folder.summary)] == [
        "scores.csv",
        "cases.csv",
        "summary.json",
    ]
    named = ScoreFiles.at(tmp_path / "out" / "nnunet.csv")
    assert named.cases == tmp_path / "out" / "nnunet_cases.csv"
    assert named.summary == tmp_path / "out" / "nnunet_summary.json"


def test_a_checkpoint_that_is_absent_is_refused_with_those_there_are(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    files = RunFiles(tmp_path)
    assert files.checkpoint("last") == tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(OptionError, match=r"no checkpoint 'best' .*; it has: last\."):
        files.checkpoint("best")
    with pytest.raises(OptionError, match="no such run directory"):
        RunFiles(tmp_path / "none").checkpoint("best")


def test_a_line_separator_within_a_record_does_not_split_it(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"case_id": "a\u2028b"}\n[1]\n{"case_id": "torn', encoding="utf-8")
    assert read_json_lines(path) == [{"case_id": "a\u2028b"}]
    assert read_json_lines(tmp_path / "absent") == []
