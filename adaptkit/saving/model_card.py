"""The card of a saved classifier: what it is, how and on what it was adapted, how good it is, how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.io import safe
from adaptkit.methods.method import Method
from adaptkit.report.cards import first_sentence, module_doc, source

SCOPES = {
    "sample": "Each image is answered alone.",
    "stream": "An answer depends on the images before it in the same call; each call starts from what is saved here.",
    "set": "The images of one call are answered together, each in the light of the others: ask about many at once.",
}
SHOWN = 20  # class names
CONFUSED = 10  # pairs of classes


def model_card(method: Method, config: Mapping[str, Any]) -> str:
    """Markdown, with the front matter that model hubs read.

    Args:
        method: as adapted.
        config: of the saved classifier.
    """
    lines = [*_head(method, config), *_expected(config), *_use(method), *_origin(config)]
    return "\n".join(lines)


def _head(method: Method, config: Mapping[str, Any]) -> list[str]:
    """Front matter, what it is, and how good."""
    names, doc = config["classnames"], module_doc(type(method))
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    what = "items that it searches" if method.gallery_needs() else "classes"
    answer = "logits, one a class" if method.output == "logits" else "a score, higher for in-distribution"
    if method.evaluation.kind == "maps":
        answer = "a map, higher for anomalous pixels, and a score of the whole image"
    return [
        "---",
        "library_name: adaptkit",
        "pipeline_tag: image-classification",
        "---",
        "",
        f"# {type(method).__name__}, {safe.in_markdown(str(config['protocol'].get('dataset', 'features')))}",
        "",
        f"{first_sentence(doc)}. {source(doc)}.",
        "",
        f"- answers with {answer}",
        f"- {len(names)} {what}: {safe.in_markdown(', '.join(names[:SHOWN]))}{more}",
        f"- accuracy: {_accuracy(config)}",
        f"- images it learned from: {safe.in_markdown(config['source'] or 'not stated')}",
        "",
    ]


def _accuracy(config: Mapping[str, Any]) -> str:
    """Accuracy in words, and what takes from its worth."""
    tested = config["tested"]
    if not tested:
        return "estimated below, not measured" if config.get("expected") else "not measured"
    words = f"{100 * tested['accuracy']:.1f} % of {tested['images']} test images"
    chosen = config["protocol"].get("select") == "oracle"
    return f"{words}, on which its hyperparameters were chosen" if chosen else words


def _expected(config: Mapping[str, Any]) -> list[str]:
    """How good it is expected to be where nobody measured, as far as somebody estimated it."""
    said = config.get("expected") or {}
    if not said:
        return []
    low, high, before, after = (100 * said[key] for key in ("low", "high", "ece_before", "ece_after"))
    wrong = [
        (count, config["classnames"][i], config["classnames"][j])
        for i, row in enumerate(said["confusion"])
        for j, count in enumerate(row)
        if count and i != j
    ]
    most = sorted(wrong, key=lambda pair: -pair[0])[:CONFUSED]
    return [
        "## How good it is expected to be",
        "",
        f"{100 * said['accuracy']:.1f} % right, 95 % interval {low:.1f} to {high:.1f}, on images that come as the "
        f"{said['images']:,} labelled ones did. Estimated by {said['repeats']} times {said['folds']}-fold "
        "cross-validation, corrected for the choice among methods; no test image was looked at.",
        "",
        f"Probabilities are softmaxes at the temperature {config.get('temperature', 1.0):.3g}: expected calibration "
        f"error {after:.1f} %, before {before:.1f} %.",
        "",
        *(["Most often confused:", ""] if most else []),
        *(f"- {safe.item(f'{one} taken for {two}: {count}')}" for count, one, two in most),
        *([""] if most else []),
    ]


def _use(method: Method) -> list[str]:
    """How to ask it."""
    searches = bool(method.gallery_needs())
    asked, told = ("queries.txt", "rankings.csv") if searches else ("photos", "labels.csv")
    one = (
        '["a query"])  # texts, or features by name'
        if searches
        else '["photo.jpg"])  # paths, images in memory, or features (N, D)'
    )
    return [
        "## Use",
        "",
        "```bash",
        "pip install adaptkit-vlm",
        f"adaptkit predict THIS_FOLDER {asked} --out {told}",
        "```",
        "",
        "```python",
        "import adaptkit as ak",
        "",
        'classifier = ak.load_classifier("THIS_FOLDER")',
        f"logits = classifier({one}",
        "```",
        "",
        f"{SCOPES[method.scope]} The backbone is not in this folder; it is loaded by its name, and must be the one "
        "adapted. `model.safetensors` may hold features of the images it learned from.",
        "",
    ]


def _origin(config: Mapping[str, Any]) -> list[str]:
    """How it was adapted, and to which towers."""
    how = {
        "backbone": config["backbone"] or "none: it was adapted to features",
        **config["protocol"],
        "adaptkit": config["adaptkit"],
    }
    towers = [
        f"- {safe.code(tower)}: {safe.in_markdown(str(t['fingerprint']))}"
        for tower, t in config["towers"].items()
        if "fingerprint" in t
    ]
    return [
        "## How it was adapted",
        "",
        safe.code(str(config["options"])),
        "",
        *(f"- {safe.item(f'{key}: {value}')}" for key, value in how.items() if value not in (None, [], {}, ())),
        "",
        *(["Fingerprints:", "", *towers, ""] if towers else []),
    ]
