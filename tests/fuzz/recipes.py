"""Recipes and ``--set`` values: mutations of those that come with adaptkit, read, checked and built, but not run."""

import copy
import json
import random
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

import yaml

from adaptkit import cli
from adaptkit.commands import requested
from adaptkit.runs import build, plugins, recipe, shelf
from tests.fuzz import damage

TAGS = ("!!int", "!!float", "!!bool", "!!timestamp", "!!null", "!!set", "!!omap", "!!pairs", "!!binary", "!!str", "!x")
WORDS = ("x", "''", "~", ".nan", ".inf", "-.inf", "1e400", "0x", "0b", "1_0", "190:20:30", "2024-01-01", "[", "{", "- ")
KEYS = ("schedule.epochs", "trainer.max_epochs", "support.few-shot.x", "methods", "a..b", ".", "", "name", "folder")


def chosen(dice):
    """A recipe's plain values, whole or from its chain, with methods of its own."""
    raw = copy.deepcopy(chain(dice.choice(NAMES)))
    if dice.random() < 0.5:
        names = dice.sample(METHODS, dice.randrange(1, 4))
        raw["methods"] = [name if dice.random() < 0.3 else {name: options(name, dice)} for name in names]
    return raw


@cache
def chain(name):
    """The plain values of a recipe that comes with adaptkit."""
    return recipe.read_chain(shelf.find_recipe(name))[0]


def options(name, dice):
    """Some options of a method, with values of their own or odd ones."""
    from dataclasses import fields

    declared = [f.name for f in fields(plugins.table("methods")[name])] or ["x"]
    return {dice.choice(declared): dice.choice(damage.ODD[:-20]) for _ in range(dice.randrange(3))}


def text(raw, dice):
    """A recipe's text, damaged as values or as bytes."""
    made = raw if dice.random() < 0.2 else damage.value_of(raw, dice)
    try:
        data = (
            json.dumps(made, default=str) if dice.random() < 0.7 else yaml.safe_dump(made, sort_keys=False)
        ).encode()
    except (yaml.YAMLError, RecursionError, ValueError):
        return repr(made).encode(errors="replace")
    if dice.random() < 0.4:
        data = damage.bytes_of(data, dice)
    if dice.random() < 0.2:
        lines = data.split(b"\n")
        lines[dice.randrange(len(lines))] += f" {dice.choice(TAGS)} {dice.choice(WORDS)}".encode()
        data = b"\n".join(lines)
    return data


def setting(dice):
    """A ``--set``."""
    key = dice.choice([*KEYS, *FIELDS])
    value = dice.choice(
        [f"{dice.choice(TAGS)} {dice.choice(WORDS)}", dice.choice(WORDS), "", str(dice.choice(damage.ODD[:30]))]
    )
    return f"{key}={value}" if dice.random() < 0.98 else key + value


def fuzz(cases, root, seed=0):
    """Read, check and build so many recipes."""
    path = root / "x.yaml"

    def one(n):
        dice = random.Random(f"{seed}/{n}")
        words = ["plan", str(path)]
        if dice.random() < 0.6:
            path.write_bytes(text(chosen(dice), dice))
        else:
            words[1] = dice.choice(NAMES)
        for _ in range(dice.choice((0, 0, 1, 1, 2))):
            words += [f"--set={setting(dice)}"]
        if dice.random() < 0.2:
            words += [f"--{dice.choice(('shots', 'seeds', 'only'))}={dice.choice((*WORDS, '1,2', '9' * 400, '-1'))}"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for found in requested.recipes(PARSER.parse_args(words)):
                found.describe()
                built = [build.method(spec) for spec in found.labels().values()]
                [repr(each) for each in built]
        return "read"

    return damage.count("damaged recipes and settings", cases, one)


PARSER = cli.parser()
NAMES, METHODS = shelf.names(), sorted(plugins.table("methods"))
FIELDS = sorted(recipe.Recipe.__dataclass_fields__)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(damage.report(*fuzz(int(sys.argv[1]), Path(folder), *sys.argv[2:])))
