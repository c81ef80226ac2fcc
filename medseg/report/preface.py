"""What a study says on its page besides what the runs themselves show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        title: Heading of its section.
        columns: Heads of the columns.
        rows: Cells of each row, the name of the row first.
        caption: What the reader must know to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Preface:
    """Sentences in front of the results, and tables behind them.

    Attributes:
        sentences: What comes first on the page.
        tables: What follows the results; those without a row are not shown.
    """

    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
