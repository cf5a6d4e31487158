"""The card of a saved classifier: what it is, how and on what it was adapted, how good it is, how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.methods.method import Method
from adaptkit.report.cards import first_sentence, module_doc, source

SCOPES = {
    "sample": "Each image is answered alone.",
    "stream": "An answer depends on the images before it in the same call; each call starts from what is saved here.",
    "set": "The images of one call are answered together, each in the light of the others: ask about many at once.",
}
SHOWN = 20  # class names


def model_card(method: Method, config: Mapping[str, Any]) -> str:
    """Markdown, with the front matter that model hubs read.

    Args:
        method: as adapted.
        config: of the saved classifier.
    """
    name, names, protocol = type(method).__name__, config["classnames"], config["protocol"]
    doc, dataset, tested = module_doc(type(method)), protocol.get("dataset", "features"), config["tested"]
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    answer = "logits, one a class" if method.output == "logits" else "a score, higher for in-distribution"
    how = {
        "backbone": config["backbone"] or "none: it was adapted to features",
        **protocol,
        "adaptkit": config["adaptkit"],
    }
    towers = [f"- `{tower}`: {t['fingerprint']}" for tower, t in config["towers"].items() if "fingerprint" in t]
    accuracy = f"{100 * tested['accuracy']:.1f} % of {tested['images']} test images" if tested else "not measured"
    if tested and protocol.get("select") == "oracle":
        accuracy += ", on which its hyperparameters were chosen"
    return "\n".join(
        [
            "---",
            "library_name: adaptkit",
            "pipeline_tag: image-classification",
            "---",
            "",
            f"# {name}, {dataset}",
            "",
            f"{first_sentence(doc)}. {source(doc)}.",
            "",
            f"- answers with {answer}",
            f"- {len(names)} classes: {', '.join(names[:SHOWN])}{more}",
            f"- accuracy: {accuracy}",
            f"- images it learned from: {config['source'] or 'not stated'}",
            "",
            "## Use",
            "",
            "```bash",
            "adaptkit predict THIS_FOLDER photos --out labels.csv",
            "```",
            "",
            "```python",
            "import adaptkit as ak",
            "",
            'classifier = ak.load_classifier("THIS_FOLDER")',
            'logits = classifier(["photo.jpg"])  # paths, images in memory, or features (N, D)',
            "```",
            "",
            f"{SCOPES[method.scope]} The backbone is not in this folder; it is loaded by its name, and must be the one "
            "adapted. `model.safetensors` may hold features of the images it learned from.",
            "",
            "## How it was adapted",
            "",
            f"`{config['options']}`",
            "",
            *(f"- {key}: {value}" for key, value in how.items() if value not in (None, [], {}, ())),
            "",
            *(["Fingerprints:", "", *towers, ""] if towers else []),
        ]
    )
