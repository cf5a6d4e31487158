"""What came of it: the classifier, how good it is expected to be, and what else was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adaptkit.automatic.certainty import Expected, choice, expected_of
from adaptkit.automatic.contender import Contender
from adaptkit.automatic.contest import Contest
from adaptkit.methods.calibration import fitted_heat
from adaptkit.methods.evaluation.classification import classification, condensed
from adaptkit.report.significance import OverImages, Verdict, verdicts


@dataclass(frozen=True)
class Tried:
    """A method that was tried.

    Attributes:
        label: its name.
        accuracy: on images that it did not learn from, between 0 and 1; ``None`` where it did not come so far.
        repeats: of the cross-validation that it finished.
        seconds: for one fold.
        verdict: against the chosen one; ``None`` for that itself, and where they were not compared.
        why: it was not tried further.
    """

    label: str
    accuracy: float | None
    repeats: int
    seconds: float
    verdict: Verdict | None = None
    why: str = ""

    @property
    def percent(self) -> str:
        """Its accuracy, e.g. ``"81.2"``."""
        return "-" if self.accuracy is None else f"{100 * self.accuracy:.1f}"

    @property
    def said(self) -> str:
        """How it compares with the chosen one, e.g. ``"-3.1, p = 0.02"``, or why it was not tried further."""
        if self.verdict is None:
            return self.why
        doubt = "" if self.verdict.differs else ", not told apart"
        return f"{100 * self.verdict.difference:+.1f}, p = {self.verdict.p:.3g}{doubt}"


@dataclass(frozen=True, eq=False)
class Chosen:
    """The choice, and what is known of it.

    Attributes:
        entry: the method.
        expected: accuracy on other images; ``None`` where nothing can be estimated.
        tried: every method, the chosen one first, then by accuracy.
        temperature: by which its logits are divided.
        ece: expected calibration errors before and after, between 0 and 1, the latter on folds that it was not fitted
            to.
        confusion: ``(C, C)`` how many images of each class were answered as which.
        answers: ``(N, C)`` logits of the tested images, divided by the temperature.
        rows: ``(N,)`` which of the labelled images these are.
        shared: ``(N,)`` shares of right answers over the repeats.
    """

    entry: Contender
    expected: Expected | None = None
    tried: Sequence[Tried] = ()
    temperature: float = 1.0
    ece: tuple[float, float] | None = None
    confusion: Tensor | None = None
    answers: Tensor | None = field(default=None, repr=False)
    rows: Tensor | None = field(default=None, repr=False)

    @property
    def rivals(self) -> list[str]:
        """Methods that are not told apart from the chosen one."""
        return [one.label for one in self.tried if one.verdict and not one.verdict.differs]


def chosen_of(contest: Contest) -> Chosen:
    """The best of a contest, and how sure that is; the first method that did not fail where nothing was compared.

    Raises:
        ValueError: when all methods failed.
    """
    ranked = contest.ranked
    if not ranked:
        good = [entry for entry in contest.entries if not entry.failed]
        if not good:
            raise ValueError(f"a method must answer; got none: {contest.entries[0].why}")
        return Chosen(good[0], tried=[tried_of(entry) for entry in contest.entries])
    labels, groups = contest.labels[contest.tested], contest.groups[contest.tested]
    options = choice(ranked, labels)
    at = options.chosen()
    entry, logits = ranked[at], ranked[at].logits
    if logits is None:
        raise ValueError("a ranked method must have answered; got no logits")
    heat, errors = temperature(logits, labels, contest.deal(0)[contest.tested])
    confusion = torch.zeros(logits.shape[1], logits.shape[1], dtype=torch.long)
    confusion.index_put_((labels, logits.argmax(1)), torch.ones_like(labels), accumulate=True)
    return Chosen(
        entry,
        expected_of(entry, options, at, groups, contest.compared, contest.seed),
        table_of(contest, entry),
        heat,
        errors,
        confusion,
        logits / heat,
        contest.tested,
    )


def temperature(logits: Tensor, labels: Tensor, folds: Tensor) -> tuple[float, tuple[float, float]]:
    """The temperature by which the negative log-likelihood is least; 1 where one fitted to other folds raises it.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``.
        folds: ``(N,)``.

    Returns:
        it, and expected calibration errors before and after, between 0 and 1; a fold's temperature is the others'.
    """
    cooled = logits.clone()
    for k in folds.unique().tolist():
        if (folds != k).any():
            cooled[folds == k] /= fitted_heat(logits[folds != k], labels[folds != k])
    before, after = (classification(condensed(x, labels)) for x in (logits, cooled))
    if after["nll"] < before["nll"]:
        return fitted_heat(logits, labels), (before["ece"], after["ece"])
    return 1.0, (before["ece"], before["ece"])


def tried_of(entry: Contender, verdict: Verdict | None = None) -> Tried:
    """A line of the table."""
    accuracy = entry.accuracy() if entry.right and not entry.failed else None
    why = f"failed: {entry.why}" if entry.failed else entry.why
    return Tried(entry.label, accuracy, entry.repeats, entry.cost if entry.seconds else 0.0, verdict, why)


def table_of(contest: Contest, best: Contender) -> list[Tried]:
    """Every method, the chosen one first, then by accuracy; with a paired test against the chosen one."""
    known = {entry.label: torch.stack(entry.right).numpy() for entry in contest.ranked}

    def pair(one: str, two: str) -> OverImages:
        count = min(len(known[one]), len(known[two]))
        return OverImages([(known[one][:count], known[two][:count])])

    told = verdicts(pair, [*known], best.label, chosen=True)
    rows = [tried_of(entry, told.get(entry.label)) for entry in contest.entries]
    return sorted(rows, key=lambda row: (row.label != best.label, -(row.accuracy or 0.0), row.accuracy is None))
