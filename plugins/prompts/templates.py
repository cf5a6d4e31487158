"""Hand-written sentences: your own, the dataset's, one template, or an ensemble.

``prompts: {templates: "a satellite photo of {}."}`` writes one sentence about each class, or as many as a list there
has; ``{}`` stands for the class's name. Without any, the dataset's own are used.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020, and the
notebook published with it (the seven templates that do best on ImageNet).
Deviations: none known.
"""

from adaptkit import hookimpl
from adaptkit.io.text import template

ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def fill(templates):
    """Sentences for each class, from templates in which ``{}`` stands for its name."""

    def write(classnames, splits):
        chosen = templates or splits.templates
        return [[sentence.replace("{}", name.replace("_", " ")) for sentence in chosen] for name in classnames]

    return write


def own(classnames, splits, *, templates: str | list[str] = ()):
    """One template, or a list of them."""
    return fill(several(templates))(classnames, splits)


def several(templates=()):
    """A template or some, each with ``{}`` in it; none where none were given."""
    if templates == ():
        return ()
    listed = [templates] if isinstance(templates, str) else templates
    if not listed:
        raise ValueError("templates must be a sentence with {} in the place of the class, or a list of them; got none")
    return tuple(template(one, "templates") for one in listed)


own.check = several  # before anything is opened


@hookimpl
def prompts():
    return {"templates": own, "photo": fill(("a photo of a {}.",)), "ensemble": fill(ENSEMBLE)}
