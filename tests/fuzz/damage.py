"""Ways to damage what a file says: its bytes, or the values in it."""

import copy
import json
import sys
import time
import traceback
from collections import Counter

DEEP = [[[[]]]]
for _ in range(300):
    DEEP = [DEEP]
ODD = [
    *(None, True, False, "", "x", "é\0\n", "\ud800", -1, 0, 1, 1.5, -0.0, 7e300, float("nan"), float("inf")),
    *(10**400, -(10**400), 2**63, 2**64, 3 * 10**18, [], {}, [[]], [1, "a"], {"a": {}}, {"": None}, ["x"] * 70, DEEP),
    *("1" * 400, "../../x", "/dev/zero", "~nobody/x", "=1+1", "\x1b[31m", "x" * 5000, "2024-01-01", "[1", "1e999"),
]
TEXTS = [
    *(
        b"",
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"{",
        b"]",
        b"null",
        b"[]",
        b"{}",
        b"nan",
        b"1",
        b'"x"',
        b"[" * 100_000,
    ),
    *(b'{"a":' * 50_000, b"9" * 5000, b"- " * 9000, b"? " * 9000, b"!!int ''", b"!!timestamp x", b"&a [*a]", b"\r"),
    *(b"<<: 1", b"=", b"!!set {a}", b"2024-01-01", b"!!float x", b"!!bool x", b"!!python/object:os.system x", b"\x1b"),
]


def bytes_of(data, dice):
    """The data with one part of it flipped, cut, repeated, put in or replaced."""
    at, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
    how = dice.randrange(6)
    if how == 0 and data:
        at = min(at, len(data) - 1)
        return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
    if how == 1:
        return data[:at]
    if how == 2:
        return data[:at] + data[end:]
    if how == 3:
        return data[:end] + data[at:end] + data[end:]
    if how == 4:
        return data[:at] + dice.choice(TEXTS) + data[at:]
    return dice.choice(TEXTS)


def value_of(value, dice):
    """A copy of a plain value in which one or more parts are another thing, gone, or under another name."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        spots = [*_spots(value)]
        if not spots:
            return dice.choice(ODD)
        holder, key = dice.choice(spots)
        how = dice.randrange(8)
        if how == 0:
            del holder[key]
        elif how == 1 and isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
        elif how == 2:
            other, there = dice.choice(spots)
            holder[key] = copy.deepcopy(other[there]) if other is holder or there in _keys(other) else None
        elif how == 3 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[key] = copy.deepcopy(dice.choice(ODD))
    return value


def text_of(data, dice):
    """The text of a JSON file with its bytes or its values damaged."""
    if dice.random() < 0.4:
        return bytes_of(data, dice)
    return json.dumps(value_of(json.loads(data), dice)).encode()


def count(name, cases, one):
    """Try so many cases; `one` is told a number and returns what happened; the first lines of whatever else it raises.

    Returns:
        How often each outcome was seen, and the tracebacks that should not be.
    """
    seen, wrong, began = Counter(), {}, time.monotonic()
    for n in range(cases):
        try:
            seen[one(n)] += 1
        except (ValueError, OSError) as error:
            seen["refused"] += 1
            if "\n" in str(error):
                wrong.setdefault("several lines", f"case {n}: {error}")
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}"
            wrong.setdefault(where, f"case {n}: " + "".join(traceback.format_exception(error)[-9:]))
            seen["traceback"] += 1
    took = time.monotonic() - began
    return f"{name}: {cases:,} cases in {took:.0f} s: {dict(seen)}", wrong


def report(line, wrong):
    """Say what was counted; the process fails where there was a traceback."""
    sys.stdout.write("\n".join([line, *(f"--- {where}\n{trace}" for where, trace in wrong.items())]) + "\n")
    return 1 if wrong else 0


def _spots(value):
    if isinstance(value, dict | list) and not _is_deep(value):
        for key in _keys(value):
            yield value, key
            yield from _spots(value[key])


def _keys(holder):
    return list(holder) if isinstance(holder, dict) else range(len(holder))


def _is_deep(value):
    return isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
