"""The files of a run as they lie; a part that is absent or damaged reads as empty."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from medseg.core.runs import csv_text, read_json_lines


def read_text(path: Path) -> str:
    """Return the text of a file, whatever its bytes; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    try:
        content = json.loads(read_text(path))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Return the newest line of each case in a file of one JSON object a line."""
    return {str(row["case_id"]): row for row in read_json_lines(path) if "case_id" in row}


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, cells as they were before a spreadsheet's guard."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error):
        return []
    return [{k: csv_text(v) for k, v in row.items() if k and isinstance(v, str)} for row in rows]


def read_curves(path: Path) -> list[dict[str, float]]:
    """Return the finite numbers of each row of metrics.csv that has some."""
    rows = [{name: _number(cell) for name, cell in row.items()} for row in read_table(path)]
    finite = [{k: v for k, v in row.items() if math.isfinite(v)} for row in rows]
    return [row for row in finite if row]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
