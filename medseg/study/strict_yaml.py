"""YAML as it was meant: `1e-3` is a number, and a key given twice is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from medseg.core.errors import OptionError


class _Loader(yaml.SafeLoader):
    """Reads plain YAML; adds what YAML 1.1 leaves out."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, each key of it given once."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.MarkedYAMLError(
                problem=f"{', '.join(twice)} is given twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


# YAML 1.1 wants a point and a signed exponent in a number; 1.2 and the command line do not.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        OptionError: If it is not YAML, or gives a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read as YAML: {error}") from error


def canonical(value: Any) -> Any:
    """Return a value such that two that mean the same are equal: numbers as numbers."""
    if isinstance(value, list):
        return tuple(canonical(item) for item in value)
    if isinstance(value, dict):
        return tuple(sorted((str(key), canonical(item)) for key, item in value.items()))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    try:
        return float(value)
    except ValueError:
        return value
