"""What every page shares: its templates, its styles, and the hashes its policy knows them by."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from medseg import __version__

HOME = "medseg.report"


def environment(package: str = HOME) -> Environment:
    """Return the templates of a room; what they are given is text and never markup.

    They extend `layout.html` of this room, whichever room they lie in.
    """
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(HOME)]),
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


def still_page(templates: Environment, template: str, style: str, /, **content: Any) -> str:
    """Return a self-contained page that loads and runs nothing.

    Args:
        templates: From `environment`, with the filters of the page.
        template: Its name.
        style: Its styles.
        content: What its template is given besides `style`, `policy`, `version` and `made`.
    """
    page = templates.get_template(template).render(
        style=style,
        # No text of the data can run, whatever it holds.
        policy=f"default-src 'none'; img-src data:; style-src {policy_hash(style)}; "
        "base-uri 'none'; form-action 'none'",
        version=__version__,
        made=now(),
        **content,
    )
    return page.encode("utf-8", "replace").decode()  # a name may hold half a surrogate pair


def now() -> str:
    """Return the time as pages show it."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
