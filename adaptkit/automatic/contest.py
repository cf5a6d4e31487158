"""Methods against each other on labelled images alone: cross-validation under a budget, by successive halving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil

import torch
from torch import Tensor

from adaptkit.automatic.budget import Budget
from adaptkit.automatic.contender import Contender
from adaptkit.automatic.folds import ALWAYS, dealt, number_of_folds
from adaptkit.automatic.learning import learn
from adaptkit.automatic.portfolio import Candidate
from adaptkit.features.items import Images
from adaptkit.methods.predicting import predict
from adaptkit.methods.task import Task
from adaptkit.runs.failures import cause_of
from adaptkit.towers import threads

REPEATS = 5  # of the cross-validation, where there is time
GUESS, GUESS_TRAINED = 1.0, 15.0  # seconds that the first fold of a method may take, before anything is known
FEWEST = 3  # methods that a halving leaves

NOTHING_KNOWN = "not tried: nothing can be estimated from these images"


class Contest:
    """Who does best on images that it did not learn from.

    Attributes:
        entries: every method, in the order of the portfolio.
        tested: rows of the images that are answered by methods which did not learn from them.
        count: of folds; 0 where there are too few images for any.
        compared: folds that the comparison is made of: all, or the first alone where there was no time for more.
        interrupted: whether it was stopped from outside.
    """

    def __init__(
        self,
        task: Task,
        images: Images,
        groups: Tensor,
        candidates: Sequence[Candidate],
        budget: Budget,
        *,
        seed: int = 1,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.task, self.images, self.groups, self.budget, self.seed, self.say = task, images, groups, budget, seed, say
        self.entries = [Contender(candidate) for candidate in candidates]
        self.labels: Tensor = images.labels.cpu()  # type: ignore[union-attr]
        self.count = number_of_folds(self.labels, groups)
        self.tested = (self.deal(0) != ALWAYS).nonzero()[:, 0] if self.count else torch.zeros(0, dtype=torch.long)
        several = len(self.labels[self.tested].unique()) > 1  # of one class alone a constant answer is right
        self.count = self.compared = self.count if several else 0
        self.interrupted = False

    def deal(self, repeat: int) -> Tensor:
        """The folds of a repeat; which images are tested is the same in all of them."""
        return dealt(self.labels, self.groups, self.count, self.seed * REPEATS + repeat)

    @property
    def ranked(self) -> list[Contender]:
        """The methods that answered every tested image."""
        return [entry for entry in self.entries if entry.right and not entry.failed]

    def run(self) -> None:
        """Try the methods, as long as there is time; an interruption ends it with what is there."""
        if not self.count:
            for entry in self.entries:
                entry.why = NOTHING_KNOWN
            return
        try:
            with threads.sized(len(self.images) * self.task.backbone.dim * len(self.task.classnames)):
                self.rungs()
        except KeyboardInterrupt:
            self.interrupted = True
            for entry in self.entries:
                entry.why = entry.why or ("" if entry.right else "stopped")
        self.settle()

    def rungs(self) -> None:
        """One fold for all, the whole for those that are not far behind, and more repeats for half, and half again.

        What is trained comes last, if its first fold is not far behind either. Whoever leads can always be finished.
        """
        for trained in (False, True):
            new = [entry for entry in self.entries if entry.candidate.trained == trained]
            for entry in new:
                if entry.unlearned:
                    self.answer_once(entry)
                elif self.may(entry, self.guess(trained) + self.finishing()):
                    self.answer_folds(entry, 0, [0])
            alive = self.halved([e for e in self.entries if e.logits is not None and not e.failed], first=True)
            for entry in self.leader_first(alive):
                if not entry.right and self.may(entry, entry.cost * (self.count + trained)):
                    self.answer_folds(entry, 0, range(1, self.count))
        alive = self.ranked
        for repeat in range(1, REPEATS):
            if repeat % 2:
                alive = self.halved(alive)
            for entry in self.cheap_first(alive):
                if len(entry.right) == repeat and self.may(entry, entry.cost * self.count):
                    self.answer_folds(entry, repeat, range(self.count))
            alive = [entry for entry in alive if entry.right and not entry.failed]

    def may(self, entry: Contender, cost: float) -> bool:
        """Whether a method is tried further: nothing is started that would not end in time."""
        if entry.failed:
            return False
        if not self.budget.fits(cost):
            entry.why = entry.why or ("" if entry.right else "no time left")
            return False
        return True

    def learned(self) -> list[Contender]:
        """Methods that learned from images, and answered a fold at least."""
        return [e for e in self.entries if not e.unlearned and not e.failed and e.logits is not None]

    def finishing(self) -> float:
        """Seconds that whoever leads after one fold needs for the others and to learn from all, until one has it."""
        tried = self.learned()
        if not tried or any(entry.right for entry in tried):
            return 0.0
        return self.leader_first(tried)[0].cost * self.count

    def guess(self, trained: bool) -> float:
        """Seconds that a first fold may take: as many as the slowest so far."""
        known = [entry.seconds[0] for entry in self.learned() if entry.candidate.trained == trained]
        return max([GUESS_TRAINED if trained and not known else GUESS, *known])

    def leader_first(self, entries: Sequence[Contender]) -> list[Contender]:
        """Who did best in the first fold, then the others, the cheap ones first."""
        if not entries:
            return []
        leader = max(entries, key=lambda entry: float(self.first_fold(entry).double().mean()))
        return [leader, *self.cheap_first([entry for entry in entries if entry is not leader])]

    def settle(self) -> None:
        """Compare all by the first fold alone, where no method that learns from images came further."""
        tried = self.learned()
        if not tried or any(entry.right for entry in tried):
            return
        first = self.deal(0) == 0
        for entry in [*tried, *self.ranked]:
            logits: Tensor = entry.logits  # type: ignore[assignment]
            entry.logits = logits[first[self.tested] if entry.right else first]
            entry.right = [entry.logits.argmax(1) == self.labels[first]]
            entry.why = ""
        self.tested, self.compared = first.nonzero()[:, 0], 1

    def cheap_first(self, entries: Sequence[Contender]) -> Iterator[Contender]:
        """By what a fold costs."""
        return iter(sorted(entries, key=lambda entry: entry.cost))

    def answer_once(self, entry: Contender) -> None:
        """Answer all images at once by a method that learns from none."""
        before = self.budget.used
        try:
            built = learn(entry.candidate, self.task, self.images[:0], self.groups[:0], self.seed)
            entry.logits = predict(built, self.images[self.tested]).cpu()
            entry.right = [entry.logits.argmax(1) == self.labels[self.tested]] * REPEATS
        except Exception as error:
            entry.failed, entry.why = True, cause_of(error, None, "auto")
        entry.seconds.append(self.budget.used - before)
        self.say(f"{entry.label}: {self.standing(entry)}")

    def answer_folds(self, entry: Contender, repeat: int, numbers: Sequence[int]) -> None:
        """Answer some folds of a repeat, each by a method that learned from all others."""
        folds = self.deal(repeat)
        shape = (len(self.labels), len(self.task.classnames))
        whole = self.whole_logits(entry, repeat, shape)
        for k in numbers:
            before = self.budget.used
            rows, asked = (folds != k).nonzero()[:, 0], (folds == k).nonzero()[:, 0]
            try:
                seed = (self.seed * REPEATS + repeat) * 100 + k
                built = learn(entry.candidate, self.task, self.images[rows], self.groups[rows], seed)
                whole[asked] = predict(built, self.images[asked]).cpu()
            except Exception as error:
                entry.failed, entry.why, entry.right = True, cause_of(error, None, "auto"), []
                self.say(f"{entry.label}: failed: {entry.why}")
                return
            entry.seconds.append(self.budget.used - before)
        if repeat == 0:
            entry.logits = whole
        if self.count - 1 in numbers:
            answers = whole[self.tested]
            self.budget.keep(1.5 * entry.cost)  # it may be chosen, and then learns from all images
            entry.right.append(answers.argmax(1) == self.labels[self.tested])
            entry.logits = answers if repeat == 0 else entry.logits
        self.say(f"{entry.label}: {self.standing(entry)}")

    def whole_logits(self, entry: Contender, repeat: int, shape: tuple[int, int]) -> Tensor:
        """Where the answers of a repeat go: what was begun, or anew."""
        begun = repeat == 0 and entry.logits is not None and not entry.right
        return entry.logits if begun else torch.full(shape, torch.nan)  # type: ignore[return-value]

    def standing(self, entry: Contender) -> str:
        """How well it does so far, in words."""
        if entry.failed:
            return f"failed: {entry.why}"
        if not entry.right:
            return f"{100 * float(self.first_fold(entry).double().mean()):.1f} % of the first fold"
        return f"{100 * entry.accuracy():.1f} %"

    def first_fold(self, entry: Contender) -> Tensor:
        """Whether each image of the first fold was answered right."""
        asked = self.deal(0) == 0
        logits: Tensor = entry.logits  # type: ignore[assignment]
        if entry.right:
            return entry.right[0][asked[self.tested]]
        return logits[asked].argmax(1) == self.labels[asked]

    def halved(self, entries: list[Contender], first: bool = False) -> list[Contender]:
        """The better half, at least `FEWEST`, and whoever is not clearly behind the best."""
        right = {
            id(e): self.first_fold(e).double() if first else torch.stack(e.right).double().mean(0) for e in entries
        }
        order = sorted(entries, key=lambda e: -float(right[id(e)].mean()))
        kept = order[: max(FEWEST, ceil(len(order) / 2))]
        for entry in order[len(kept) :]:
            gap = right[id(order[0])] - right[id(entry)]
            error = float(gap.std(correction=0)) / len(gap) ** 0.5
            if float(gap.mean()) <= error * (2 if first else 1):
                kept.append(entry)
            else:
                entry.why = entry.why or "behind after one fold" * first
        return [entry for entry in entries if entry in kept]
