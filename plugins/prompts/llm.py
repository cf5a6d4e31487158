"""Sentences about classes that a language model wrote, from a file: nothing is asked when a recipe runs.

``{llm: {file: openmoji}}`` reads a set that comes with adaptkit; anything else is the path of a JSON file. Either what
the papers' repositories hold, class names with a list of strings each, or our own: a section for each `form` of text,

    {"sentences": {"model": "...", "prompt": "...", "classes": {"bird": ["A bird has ...", ...], ...}},
     "descriptors": ..., "subclasses": ...}

Classes are found by name (case, underscores and punctuation aside) or, where names repeat, by number: ``"0"`` and on.

Source: Pratt et al., CuPL, arXiv:2209.03320, and Roy and Etemad, CoPrompt, arXiv:2306.01195 (sentences); Menon and
Vondrick, Visual Classification via Description from Large Language Models, arXiv:2210.07183 (descriptors); Novack et
al., CHiLS, arXiv:2302.02551 (sub-classes).
Deviations: "which is", "which has" or "which" joins a descriptor by its first word; the released rule looks at first
letters, so that "antlers" become "which is antlers" and a class without descriptors ", which has ";
``as_released: true`` does so too. White space around a text is cut.
"""

import re
from pathlib import Path

from adaptkit import hookimpl
from adaptkit.io.errors import must_be
from adaptkit.io.jsons import read_json
from adaptkit.io.paths import expanded

FORMS = {"sentences": "{}", "descriptors": "{name}, {}", "subclasses": "a photo of a {}."}


def llm(classnames, splits, *, file="", form="sentences", template="", as_released=False):
    """`template` holds an entry in place of ``{}`` and the class in place of ``{name}``; each `form` has its own."""
    if form not in FORMS:
        raise ValueError(must_be("form", FORMS, form))
    entries = find(read(file, form), classnames, file)
    template = template or FORMS[form]
    return [
        [fill(template, name.replace("_", " "), which(e, as_released) if form == "descriptors" else e) for e in own]
        for name, own in zip(classnames, entries, strict=True)
    ]


def fill(template, name, entry):
    """A sentence; an empty entry leaves the class's name alone."""
    return template.replace("{name}", name).replace("{}", entry) if entry else name


def which(descriptor, as_released):
    """A descriptor as a relative clause."""

    def begins(*words):
        return descriptor.startswith(words) if as_released else descriptor.split(maxsplit=1)[0] in words

    if not descriptor and not as_released:
        return ""
    if begins("has", "often", "typically", "may", "can"):
        return f"which {descriptor}"
    return f"which {'is' if begins('a', 'an', 'used') else 'has'} {descriptor}"


def read(file, form):
    """Texts of one form by class, as the file has them."""
    path = Path(__file__).with_name(f"{file}.json") if re.fullmatch(r"\w+", file) else expanded(file)
    if not path.is_file():
        raise ValueError(
            f"file must be a JSON file of texts by class, or 'openmoji'; got {file!r}, which does not exist"
        )
    try:
        texts = read_json(path)
    except ValueError as cause:
        raise ValueError(f"{str(path)!r} must be JSON: {cause}") from None
    if isinstance(texts, dict) and any("classes" in part for part in texts.values() if isinstance(part, dict)):
        if form not in texts:
            raise ValueError(must_be(f"form in {str(path)!r}", texts, form))
        texts = texts[form].get("classes") if isinstance(texts[form], dict) else None
    lists = texts.values() if isinstance(texts, dict) else [None]
    if not all(isinstance(own, list) and all(isinstance(entry, str) for entry in own) for own in lists):
        raise ValueError(f"{str(path)!r} must map each class to a list of texts; got {str(texts)[:60]!r}")
    return texts


def find(texts, classnames, file):
    """The texts of each class; one that the model had nothing to say about has an empty one."""
    keys, plain = [simple(name) for name in classnames], {simple(name): own for name, own in texts.items()}
    numbers = [str(c) for c in range(len(keys))]
    if (len(set(keys)) < len(keys) or not plain.keys() >= set(keys)) and texts.keys() >= set(numbers):
        keys, plain = numbers, texts
    missing = [repr(name) for name, key in zip(classnames, keys, strict=True) if key not in plain]
    if missing:
        raise ValueError(f"{file!r} must have every class; got none of {', '.join(missing[:5])}")
    return [[entry.strip() for entry in plain[key]] or [""] for key in keys]


def simple(name):
    """A name without case, underscores and punctuation."""
    return re.sub(r"[\W_]+", " ", name.lower()).strip()


@hookimpl
def prompts():
    return {"llm": llm}
