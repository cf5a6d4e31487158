"""One example of each command: its ``--help`` ends with it, and the docs' page of the command line has it."""

from __future__ import annotations

EXAMPLES = {
    "run": "adaptkit run quickstart --only gda,tda --shots 4,8 --report csv",
    "extract": "adaptkit extract quickstart --shard 1/4 --batch-size auto",
    "plan": "adaptkit plan quickstart --device cpu",
    "export": "adaptkit export quickstart --method gda --shots 8 --seed 1 --out my_classifier",
    "predict": "adaptkit predict my_classifier photos --top 3 --json",
    "auto": "adaptkit auto folder:photos --minutes 10",
    "compare": "adaptkit compare quickstart --against zero-shot --out page.html",
    "errors": "adaptkit errors quickstart --method gda --shots 8",
    "repro check": "adaptkit repro check quickstart --sample 5",
    "list": "adaptkit list methods",
    "show": "adaptkit show gda",
    "check": "adaptkit check my_method.py",
    "new method": "adaptkit new method my-method --kind trained",
    "completion": "adaptkit completion bash > completion.bash",
    "data check": "adaptkit data check few_shot/dtd",
    "data get": "adaptkit data get dtd",
    "data look": "adaptkit data look folder:photos",
    "data supports": "adaptkit data supports split_zhou_DescribableTextures.json --shots 4 --seed 1",
    "data export": "adaptkit data export split_zhou_DescribableTextures.json --shots 4 --seed 1 --out support.json",
    "cache ls": "adaptkit cache ls",
    "cache verify": "adaptkit cache verify --repair",
    "cache gc": "adaptkit cache gc --older-than 30",
    "doctor": "adaptkit doctor",
}
"""By the words of the command; some may not be here yet."""


def example_of(prog: str) -> str | None:
    """What ends the help of a command, by what it is called with."""
    found = EXAMPLES.get(prog.partition(" ")[2])
    return f"example: {found}" if found else None
