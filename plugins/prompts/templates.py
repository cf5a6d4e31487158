"""Hand-written sentences: one template, the dataset's own, or an ensemble.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020, and the
notebook published with it (the seven templates that do best on ImageNet).
Deviations: none known.
"""

from adaptkit import hookimpl

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
        return [[template.format(name.replace("_", " ")) for template in chosen] for name in classnames]

    return write


@hookimpl
def prompts():
    return {"templates": fill(()), "photo": fill(("a photo of a {}.",)), "ensemble": fill(ENSEMBLE)}
