"""What every page shares: its templates, its styles, and the hashes its policy knows them by."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

HOME = "medseg.report"


def environment(package: str = HOME) -> Environment:
    """Return the templates of a room; what they are given is text and never markup."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def asset(name: str, package: str = HOME) -> str:
    """Return a style or script that lies beside the templates."""
    return (resources.files(package) / "templates" / name).read_text(encoding="utf-8").strip()


def policy_hash(text: str) -> str:
    """Return a style's or script's entry in a content security policy."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
