"""Cross-validation folds: who belongs together, and the draw."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np

from medseg.core.errors import ManifestError, OptionError, problems
from medseg.core.manifest import Case, Manifest


def name_by_pattern(manifest: Manifest, group: str | None, site: str | None) -> Manifest:
    """Return the manifest with groups and sites taken out of the case ids.

    Args:
        manifest: The cases.
        group: Regular expression searched in each case id; its first capture group, or the whole
            match, is the group. None leaves the groups as they are.
        site: The same for the site.

    Raises:
        OptionError: If a pattern is no regular expression.
        ManifestError: With every case that a pattern does not match.
    """
    patterns = {
        key: _compiled(f"--{key}_pattern", text)
        for key, text in (("group", group), ("site", site))
        if text is not None
    }
    found: list[str] = []

    def named(case: Case) -> Case:
        texts = {key: _part(pattern, case.case_id) for key, pattern in patterns.items()}
        found.extend(
            f"--{key}_pattern {patterns[key].pattern!r} finds nothing in case {case.case_id!r}"
            for key, text in texts.items()
            if not text
        )
        return replace(case, **texts)  # type: ignore[arg-type]

    training, test = tuple(map(named, manifest.training)), tuple(map(named, manifest.test))
    if found:
        raise ManifestError(problems(manifest.path, found))
    return replace(manifest, training=training, test=test)


def _compiled(flag: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise OptionError(f"{flag} {pattern!r} is no regular expression: {error}.") from error


def _part(pattern: re.Pattern[str], case_id: str) -> str:
    match = pattern.search(case_id)
    if match is None:
        return ""
    return match[min(pattern.groups, 1)] or ""


def draw_folds(manifest: Manifest, folds: int, seed: int) -> Manifest:
    """Return the manifest with its training cases in folds of about equal size.

    Cases of one group share a fold, fold sizes differ by no more than the largest group, and the
    cases of each site are spread over the folds. The draw depends on the seed and the names alone,
    not on the order of the cases.

    Raises:
        OptionError: If there are fewer groups than folds, or fewer than two folds.
    """
    sizes = Counter(case.group or case.case_id for case in manifest.training)
    if not 2 <= folds <= len(sizes) or seed < 0:
        raise OptionError(
            f"--folds must be from 2 to the number of groups, {len(sizes)}, and --seed at least 0; "
            f"got {folds} and {seed}."
        )
    order = np.random.default_rng(seed).permutation(sorted(sizes)).tolist()
    fold_of = _placed(order, sizes, _sites(manifest), folds)
    cases = [replace(c, fold=fold_of[c.group or c.case_id]) for c in manifest.training]
    return replace(manifest, training=tuple(cases))


def _sites(manifest: Manifest) -> dict[str, str]:
    """Return the site of each group: the one most of its cases are from."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for case in manifest.training:
        counts[case.group or case.case_id][case.site] += 1
    return {
        group: min(sites, key=lambda site: (-sites[site], site)) for group, sites in counts.items()
    }


def _placed(
    order: list[str], sizes: Counter[str], site_of: dict[str, str], folds: int
) -> dict[str, int]:
    """Give each group a fold, large groups first and the groups of a site one after another."""
    largest, total = max(sizes.values()), sizes.total()
    site_total: Counter[str] = Counter()
    for group, size in sizes.items():
        site_total[site_of[group]] += size
    filled = [0] * folds
    of_site = {site: [0] * folds for site in site_total}
    fold_of: dict[str, int] = {}
    for group in sorted(order, key=lambda name: (-sizes[name], site_of[name])):
        size, site = sizes[group], site_of[group]
        # Within this bound no two folds ever differ by more than the largest group.
        open_folds = [f for f in range(folds) if filled[f] + size - min(filled) <= largest]
        here = of_site[site]
        # The sum of both fill levels, relative to all cases and to those of the site, as integers.
        level = [filled[f] * site_total[site] + here[f] * total for f in range(folds)]
        fold = min(open_folds, key=level.__getitem__)
        fold_of[group] = fold
        filled[fold] += size
        here[fold] += size
    return fold_of
