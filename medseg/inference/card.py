"""The model card of a package: what a person must know before using it, as Markdown."""

from __future__ import annotations

from typing import Any

from medseg.engine.progress import printable
from medseg.networks.checkpoint import Description

_LIMITS = """\
- It was judged on data like its training data only. Other scanners, sequences, organs, diseases and
  ages need a validation of their own; a network answers on every image, also on one it cannot know.
- Images with other channels, or in another order of channels, give nonsense without a warning.
- It is a result of research, not a medical device."""


def model_card(name: str, description: Description, content: dict[str, Any]) -> str:
    """Return the text of README.md.

    Args:
        name: Of the package.
        description: Of the network.
        content: Of model.json.
    """
    task = description.task
    sections = {
        f"# {_cell(name)}": _purpose(task),
        "## Classes": _classes(task),
        "## The network": _network(description, content),
        "## Training": _training(content["training"] or {"record": "fit.json was not there"}),
        "## Scores": _scores(content["scores"]),
        "## Use": _use(content),
        "## Limits": _LIMITS,
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in sections.items()) + "\n"


def _purpose(task: dict[str, Any]) -> str:
    classes = ", ".join(_cell(name) for name in list(task["labels"])[1:])
    channels = ", ".join(_cell(channel) for channel in task["channel_names"])
    return (
        f"Labels {classes} in 3D images with the channels {channels}. "
        f"Trained on {len(task['train_cases'])} cases of {_cell(task['manifest'])}."
    )


def _classes(task: dict[str, Any]) -> str:
    return _table(task["labels"], ("class", "value"))


def _network(description: Description, content: dict[str, Any]) -> str:
    plan, task = description.architecture, description.task
    preprocessing = task["preprocessing"]
    return _table(
        {
            "network": f"3D U-Net, {plan.encoder}, channels {list(plan.channels)}",
            "norm": description.norm,
            "spacing, mm": preprocessing["spacing"] or "each image's own",
            "orientation": preprocessing["orientation"],
            "intensity scaling": preprocessing["intensity"],
            "window, voxels": list(task["patch_size"]),
            "overlap": description.overlap,
            "licence": content["licence"] or "not stated",
            "weights, SHA-256": content["weights"]["sha256"],
            "written by": f"medseg {content['medseg']}",
        }
    )


def _training(record: dict[str, Any]) -> str:
    return _table({key: value for key, value in record.items() if key != "versions"})


def _scores(scores: dict[str, Any] | None) -> str:
    if not scores:
        return "None were found beside the training."
    head = f"{scores['cases']} cases, {_cell(scores['note'])}"
    rows = ["| class | Dice, mean [95 % interval] | cases |", "|---|---|---|"]
    for name, row in scores["classes"].items():
        figures = [row["mean"], row["ci_low"], row["ci_high"]]
        mean, low, high = ("–" if value is None else f"{value:.3f}" for value in figures)
        rows.append(f"| {_cell(name)} | {mean} [{low}, {high}] | {row['n']} |")
    return head + "\n\n" + "\n".join(rows)


def _use(content: dict[str, Any]) -> str:
    text = "```\nmedseg predict --run PACKAGE --input IMAGES --output LABELS\n```"
    for kind, row in content["exports"].items():
        text += (
            f"\n\n`{row['file']}` ({kind}): logits of one preprocessed window, shape "
            f"{row['input']}, float32; same class as torch in {row['agreement']:.6f} of a probe's "
            f"voxels, logits within {row['largest_difference']:.1e} of their range."
        )
    return text


def _table(rows: dict[str, Any], heads: tuple[str, str] = ("what", "value")) -> str:
    lines = [f"| {heads[0]} | {heads[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {_cell(k)} | {_cell(v)} |" for k, v in rows.items())])


def _cell(value: object) -> str:
    """Return text that cannot leave its place in a table or become markup."""
    text = printable(" ".join(str(value).split()))
    return "".join(f"\\{letter}" if letter in "\\|<>`*_[]#" else letter for letter in text)
