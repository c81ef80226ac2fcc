"""The page that lists the reader's codes lists all of them, and no others."""

import re
from pathlib import Path

import medseg.io

SOURCES = {path.name: path.read_text() for path in Path(medseg.io.__file__).parent.glob("*.py")}


def documented(page, heading):
    part = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([a-z-]+)` \|", part, flags=re.MULTILINE))


def test_every_refusal_is_documented(repository):
    source = "\n".join(SOURCES.values())
    raised = set(re.findall(r'VolumeError\(\s*[^,()]+(?:\([^()]*\))?,\s*"([a-z-]+)"', source))
    assert len(raised) > 30
    assert documented((repository / "docs/volumes.md").read_text(), "Refusals") == raised


def test_every_warning_is_documented(repository):
    source = "\n".join(text for name, text in SOURCES.items() if name != "write.py")
    told = set(re.findall(r'f?"([a-z]+(?:-[a-z]+)*): ', source))
    assert documented((repository / "docs/volumes.md").read_text(), "Warnings") == told
