"""What a study's page says in front of and behind the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from medseg.report.preface import Preface, Table
from medseg.report.sources import read_source
from medseg.report.tables import run_rows
from medseg.study.cells import Cell, cell_rows
from medseg.study.planned import Planned

FOLD_COLUMNS = ("Run", "Mean foreground Dice [95 % CI]", "Cases", "Missed", "Invented")
CELL_COLUMNS = ("Run", "Choosing Dice", "Reporting Dice [95 % CI]", "Cases")
FAILED_COLUMNS = ("Run", "Step", "Exit status", "Last line of its log")


def preface(variants: Mapping[str, Sequence[Planned]], cells: Sequence[Cell]) -> Preface:
    """Return what the page says besides the scores: missing folds first, failed runs last."""
    folds = [entry for entries in variants.values() if len(entries) > 1 for entry in entries]
    everything = [entry for entries in variants.values() for entry in entries]
    per_fold = Table(
        "Folds",
        FOLD_COLUMNS,
        _fold_rows(folds),
        "Each fold has cases and a network of its own: the folds do not compete.",
    )
    chosen = Table(
        "Choosing and reporting",
        CELL_COLUMNS,
        cell_rows(cells),
        "Settings are chosen by the score of the fold that training validated on; what is reported "
        "comes from a fold that took no part in training or choosing.",
    )
    failed = Table("Failed runs", FAILED_COLUMNS, _failed_rows(everything))
    return Preface(tuple(_sentences(variants)), (per_fold, chosen, failed))


def _sentences(variants: Mapping[str, Sequence[Planned]]) -> Iterator[str]:
    for name, entries in variants.items():
        missing = [entry for entry in entries if entry.state != "scored"]
        if missing and len(entries) > 1:
            words = ", ".join(f"{entry.fold} ({entry.why_not})" for entry in missing)
            where = f"{name}: " if len(variants) > 1 else ""
            yield f"Not complete: {where}no scores of fold {words}."
    if any(len(entries) > 1 for entries in variants.values()):
        yield (
            "Cross-validation: every case is labelled by the network that was not trained on it, "
            "and all cases are pooled. The networks of the folds share most of their training "
            "cases; intervals are over cases and do not cover another training."
        )
    alone = [entries[0] for entries in variants.values() if len(entries) == 1]
    if without := [entry.run.name for entry in alone if entry.state != "scored"]:
        yield f"Runs without scores: {', '.join(without)}."


def _fold_rows(entries: Sequence[Planned]) -> list[tuple[str, ...]]:
    rows = []
    for entry in entries:
        if entry.state == "scored":
            (row,) = run_rows([read_source(entry.files.run_dir)])
            cells = (row["dice"], row["cases"], row["missed"], row["invented"])
            rows.append((entry.run.name, *map(str, cells)))
        else:
            rows.append((entry.run.name, f"missing: {entry.why_not}", "", "", ""))
    return rows


def _failed_rows(entries: Sequence[Planned]) -> list[tuple[str, ...]]:
    records = [(entry.run.name, entry.record) for entry in entries if entry.state != "scored"]
    return [
        (name, *(str(record.get(key, "")) for key in ("command", "exit_code", "last_line")))
        for name, record in records
        if record.get("status") == "failed"
    ]
