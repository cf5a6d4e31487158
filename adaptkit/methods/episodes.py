"""What test-time tuning shares: for each image anew some steps of AdamW on a prompt, by that image's views alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adaptkit.features.items import Images, InMemory
from adaptkit.features.needs import Need, Pooled
from adaptkit.io.ranges import Share, Size, Steps, Views, Weight
from adaptkit.methods.method import Method
from adaptkit.methods.ops import entropy
from adaptkit.methods.prompt_learner import ContextLearner
from adaptkit.methods.task import Task
from adaptkit.towers.backbone import unit
from adaptkit.towers.once import Once
from adaptkit.towers.prompting import Prompts

State = Mapping[str, Tensor]
Watched = Mapping[str, Tensor]


@dataclass(frozen=True)
class Answer:
    """What B images' views say.

    Attributes:
        logits: ``(B, V, C)``.
        text: class embeddings that gave them, ``(B, C, D)``, where they depend on no image.
        blocks: tokens that left blocks of the image tower, where a method keeps them, ``(B, V, T, W)`` each.

    >>> import torch
    >>> Answer(torch.zeros(2, 8, 5)).text is None
    True
    """

    logits: Tensor
    text: Tensor | None = None
    blocks: Sequence[Tensor] = ()


Begun = tuple[Tensor, Tensor]
Objective = Callable[[Answer, Watched], Tensor]


class Episodes(Method):
    """Tunes a prompt for each image anew, until its surest views agree, and answers with the image itself.

    The prompt is of words, or a trained `base`'s: what its class names as `tunable`. A subclass says by `objective`
    what is to fall. Images are tuned together, each by its own loss, as many as fit: nothing passes between them.

    >>> import adaptkit as ak
    >>> class Surer(Episodes):
    ...     "Lets each view be sure, rather than their mean."
    ...
    ...     def objective(self, answer, seen):
    ...         return ak.methods.ops.entropy(answer.logits).mean(-1)  # (B,)
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.predict(ak.adapt(Surer(views=4, keep=0.5), task), test[:3]).shape
    torch.Size([3, 5])
    """

    n: Size = 4  # context words; ignored with `base`
    init: str = "a photo of a"  # words to start from; ignored with `base`
    views: Views = 64  # the image itself and random views
    augment: Literal["wide-crop-flip", "crop-flip", "augmix"] = "wide-crop-flip"
    keep: Share = 0.1  # share of the views, those of lowest entropy
    steps: Steps = 1  # of AdamW, from its empty state
    lr: Weight = 5e-3  # of AdamW
    weight_decay: Weight = 0.01  # AdamW's own default
    base: Method | None = None  # whose learned prompts are tuned in place of words, e.g. coop or maple

    if TYPE_CHECKING:
        context: Tensor  # no option

    def __post_init__(self) -> None:
        if self.base is not None and (self.base.scope != "sample" or not self.base.tunable):
            raise ValueError(self.wrong_base())

    def wrong_base(self) -> str:
        """What is said of a base without a prompt to tune."""
        name = type(self.base).__name__
        return f"base must be a method that names prompts as tunable, e.g. coop; got {name}"

    def needs(self) -> Mapping[str, Need]:
        """Views of what the base reads, or embeddings of views."""
        if self.base is None:
            return {"views": self.in_views(Pooled())}
        return {name: self.in_views(need) for name, need in self.base.needs().items()}

    def in_views(self, need: Need) -> Need:
        """A need, of the image itself and of random views."""
        if need.views:
            name = type(self.base).__name__
            raise ValueError(f"base must read plain images to be tuned by views; got {name}, which reads {need}")
        return replace(need, views=self.views, plain_first=True, augment=self.augment)

    def support_needs(self) -> Mapping[str, Need]:
        """Nothing: it learns from no labelled image."""
        return {}

    def fit(self, task: Task) -> None:
        """Keep the words to start from, or see that the base has a prompt."""
        self.backbone, self.first = task.backbone, Once()
        if self.base is None:
            self.prompts = Prompts(task.backbone, task.classnames, n=self.n, init=self.init)
            self.register_buffer("context", self.prompts.words())  # (n, W)
        elif not self.first_start():
            raise ValueError(self.wrong_base())

    def words(self) -> Episodes | ContextLearner | None:
        """Whose words alone give the class embeddings, its own or the base's; ``None`` where the base does more."""
        base = self.base
        plain = isinstance(base, ContextLearner) and all(
            getattr(type(base), name) is getattr(ContextLearner, name) for name in ("forward", "text", "needs")
        )
        return base if plain else None if base else self  # type: ignore[return-value]

    def first_start(self) -> State:
        """What is tuned, by name: the words, or what the base's class names as tunable, parameters or modules."""
        if self.base is None:
            return {"context": self.context}
        named = tuple(f"{name}." for name in self.base.tunable)
        return {name: value for name, value in self.base.named_parameters() if f"{name}.".startswith(named)}

    def together(self) -> int:
        """Images that are tuned at once: as many as their sentences are encoded at once; one where not words alone."""
        words = self.words()
        return max(1, words.prompts.chunk // len(words.prompts.places)) if words else 1

    def forward(self, batch: Images) -> Tensor:
        """Logits ``(B, C)`` of each image, by the prompt as its own views tuned it."""
        batch, size = batch.load(), self.together()
        parts = (batch[i : i + size] for i in range(0, len(batch), size))
        begun = self.begun() if len(batch) > 1 else None
        return torch.cat([self.episode({name: getattr(part, name) for name in part.needs}, begun) for part in parts])

    @torch.enable_grad()
    def begun(self) -> Begun | None:
        """The words and the class embeddings that every image starts from: encoded once, and gone back for each.

        ``None`` where not words alone are tuned, or more sentences than are encoded at once.
        """
        words = self.words()
        if words is None or len(words.prompts.places) > words.prompts.chunk:
            return None
        context = words.context.detach().clone().requires_grad_()
        return context, unit(words.prompts.encode(context))

    def episode(self, seen: Watched, begun: Begun | None = None) -> Tensor:
        """Logits ``(B, C)`` of images of which each need is seen in views, ``(B, V, ...)``."""
        chosen = self.choose(seen)
        state = self.tuned(self.start(len(chosen)), picked(seen, chosen), begun)
        return self.see(state, {name: rows[:, :1] for name, rows in seen.items()}).logits[:, 0]

    def start(self, count: int) -> State:
        """What is tuned, as it is before the first step, once for each image: ``(count, ...)`` by name."""
        return {name: value[None].expand(count, *value.shape) for name, value in self.first_start().items()}

    def choose(self, seen: Watched) -> Tensor:
        """Which views to learn from, ``(B, K)``, the surest first: by the prompt as it is before the first step."""
        words = self.words()
        if words is None:
            return self.confident(self.see(self.start(1), seen).logits)
        text = self.first(lambda: words.prompts.encode(words.context), words.context)  # the same for all images
        return self.confident(self.backbone.logits(first_of(seen), unit(text)))

    def confident(self, logits: Tensor) -> Tensor:
        """Which of ``(..., V, C)`` views to keep, ``(..., K)``, by ascending entropy."""
        return self.surest(logits, self.keep)

    def surest(self, logits: Tensor, share: float) -> Tensor:
        """A share of ``(..., V, C)`` views, ``(..., K)``, by ascending entropy; one at least."""
        return entropy(logits).argsort(-1)[..., : max(1, int(share * logits.shape[-2]))]

    def see(self, state: State, seen: Watched) -> Answer:
        """What views say under the prompts of a state."""
        words = self.words()
        if words is None:
            return Answer(self.by_base({name: value[0] for name, value in state.items()}, seen))
        contexts = state["context"]  # (B, n, W), or one for each class, (B, C, n, W)
        text = unit(words.prompts.encode(contexts if contexts.dim() == 4 else contexts[:, None]))  # (B, C, D)
        return Answer(self.backbone.logits(first_of(seen), text), text)

    def by_base(self, state: State, seen: Watched) -> Tensor:
        """The base's logits of one image's views under other prompts, ``(1, V, C)``."""
        needs = self.base.needs()  # type: ignore[union-attr]
        held, rows = {(name, need): seen[name][0] for name, need in needs.items()}, first_of(seen)[0]
        others = Images.from_arrays(torch.zeros(len(rows), 1))  # all is held: these are never read
        views = Images(InMemory(held, others), torch.arange(len(rows)), None, needs, rows.device)
        return functional_call(self.base, dict(state), (views,))[None]  # type: ignore[arg-type]

    @torch.enable_grad()
    def tuned(self, start: State, seen: Watched, begun: Begun | None = None) -> State:
        """The state after the steps, for the views that were chosen, ``(B, K, ...)`` by name."""
        state = {name: nn.Parameter(value.detach().clone()) for name, value in start.items()}
        optimizer = torch.optim.AdamW(state.values(), self.rate(), weight_decay=self.weight_decay)
        for step, objective in enumerate(self.steps * self.stages()):
            first = begun if step == 0 else None
            slopes = self.first_slopes(objective, first, seen) if first else self.slopes(objective, state, seen)
            for value, slope in zip(state.values(), slopes, strict=True):
                value.grad = slope
            optimizer.step()
        return {name: value.detach() for name, value in state.items()}

    def slopes(self, objective: Objective, state: State, seen: Watched) -> Sequence[Tensor]:
        """Gradients of each image's loss by its own state."""
        losses = objective(self.see(state, seen), seen)
        return torch.autograd.grad(losses.sum(), [*state.values()], allow_unused=True)

    def first_slopes(self, objective: Objective, begun: Begun, seen: Watched) -> Sequence[Tensor]:
        """The same where all images have the words that they start from."""
        context, text = begun
        each = text.detach().expand(len(first_of(seen)), *text.shape).requires_grad_()  # (B, C, D)
        losses = objective(Answer(self.backbone.logits(first_of(seen), each), each), seen)
        (by_text,) = torch.autograd.grad(losses.sum(), each)
        return torch.autograd.grad(text, context, by_text, retain_graph=True, is_grads_batched=True)

    def rate(self) -> float:
        """Learning rate of AdamW."""
        return self.lr

    def stages(self) -> tuple[Objective, ...]:
        """What falls in the optimiser's steps, one after the other, `steps` times."""
        return (self.objective,)

    def objective(self, answer: Answer, seen: Watched) -> Tensor:
        """What is to fall for each image, ``(B,)``: how much its views disagree."""
        return self.disagreement(answer.logits)

    def disagreement(self, logits: Tensor) -> Tensor:
        """Entropy of the mean of the views' softmax distributions: ``(..., K, C)`` to ``(...)``, nats."""
        return entropy(logits.log_softmax(-1).logsumexp(-2))


def first_of(seen: Watched) -> Tensor:
    """Views as the first need reads them, ``(B, V, ...)``."""
    return next(iter(seen.values()))


def picked(seen: Watched, chosen: Tensor) -> Watched:
    """Of each image's views those that were chosen, ``(B, K, ...)``, by name."""
    rows = torch.arange(len(chosen), device=chosen.device)[:, None]
    return {name: views[rows, chosen] for name, views in seen.items()}
