"""The method contract: `fit` what can be solved, `forward` what is asked, `loss` if the rest must be learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, dataclass_transform

import torch
from torch import Tensor, nn

from adaptkit.features.items import Images
from adaptkit.features.needs import Need, Pooled
from adaptkit.io.ranges import hold_options
from adaptkit.methods.declared import check_choices, kinds_answered
from adaptkit.methods.evaluation.base import Evaluation
from adaptkit.methods.evaluation.kinds import evaluation
from adaptkit.methods.ops import as_queries
from adaptkit.methods.schedule import Schedule as Schedule
from adaptkit.methods.search import Linear
from adaptkit.methods.task import Task
from adaptkit.methods.unadapted import adapted_first
from adaptkit.methods.widening import Widening

if TYPE_CHECKING:
    from pytorch_lightning import Callback


@dataclass_transform(kw_only_default=True, eq_default=False)
class Method(nn.Module):
    """Adapts a frozen backbone to a task. Annotated class attributes are its hyperparameters.

    A method is trained if, and only if, `fit` leaves it parameters that require a gradient.

    Attributes:
        scope: what one row of the output may depend on: that ``"sample"`` alone, the ``"stream"`` of samples before
            it, or the whole ``"set"`` of queries (transductive).
        output: ``"logits"``, ``(B, C)`` or what the kind asks for, or ``"score"``, ``(B,)``, high in-distribution.
        answers: the kinds of tasks it answers, see `Splits.kind`; who classifies by logits answers grades, too.
        exempt: contract checks this method fails by design, each with the reason.
        tunable: names of learned prompts, parameters or modules, that may be tuned for each image anew; see `Episodes`.

    >>> import torch, adaptkit as ak
    >>> class NearestMean(ak.Method):
    ...     "Cosine to the mean of each class's support."
    ...     scale: float = 10.0  # from cosine to logit
    ...     def fit(self, task):
    ...         x, y = task.support.x, task.support.labels  # (S, D), (S,)
    ...         means = [x[y == c].mean(0) for c in range(len(task.classnames))]
    ...         self.register_buffer("means", ak.unit(torch.stack(means)))  # (C, D)
    ...     def forward(self, batch):
    ...         return self.scale * batch.x @ self.means.T  # (B, C)
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> ak.predict(ak.adapt(NearestMean(scale=20.0), task), test).shape
    torch.Size([60, 5])
    """

    scope: ClassVar[Literal["sample", "stream", "set"]] = "sample"
    output: ClassVar[Literal["logits", "score"]] = "logits"
    answers: ClassVar[tuple[str, ...]] = ("classification",)
    exempt: ClassVar[Mapping[str, str]] = {}
    tunable: ClassVar[tuple[str, ...]] = ()
    _kind, _width, _classes = "", 0, 0
    _search: Widening = "paper"
    _searched: Mapping[str, Mapping[str, Any]] = MappingProxyType({})  # plain, so that it can be saved; see `Searched`

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 (passed on)
        """Make the annotations hyperparameters."""
        super().__init_subclass__(**kwargs)
        dataclass(kw_only=True, eq=False, repr=False)(cls)
        for f in fields(cls):
            if f.name in RESERVED:
                raise TypeError(f"an option must not be named like an attribute of Method; got {cls.__name__}.{f.name}")
            if isinstance(f.default, nn.Module):
                raise TypeError(f"{cls.__name__}.{f.name} must use field(default_factory=...); got one shared module")
            if f.name in cls.__dict__:
                delattr(cls, f.name)  # the default lives on in __init__; here it would hide a parameter of that name
        check_choices(cls)

    def __new__(cls, *_args: object, **options: object) -> Method:
        """A module that is ready to hold children before its options are set, all of them within their ranges."""
        hold_options(cls, options)
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def needs(self) -> Mapping[str, Need]:
        """What `forward` reads of each query (and of each validation image), by the name it reads it under."""
        return {"x": Pooled()}

    def support_needs(self) -> Mapping[str, Need]:
        """What `fit` and `loss` read of each support image."""
        return self.needs()

    def pool_needs(self) -> Mapping[str, Need]:
        """What `fit` and `loss` read of each unlabelled image, `Task.pool`; one that learns from none says nothing."""
        return {}

    def gallery_needs(self) -> Mapping[str, Need]:
        """What `fit` reads of each item that a ranking searches, `Task.gallery`."""
        return {}

    def base_task(self, task: Task) -> Task:
        """What the methods below it adapt to: the task itself, unless a class changes what is learned from."""
        return task

    def fit(self, task: Task) -> None:
        """Solve what has a closed form; create what must be learned."""
        raise NotImplementedError(f"{type(self).__name__} must define fit(task)")

    def forward(self, batch: Images) -> Tensor:
        """Answer a batch: ``(B, C)`` logits, ``(B,)`` scores, or what the kind of its task asks for."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(batch)")

    def replay(self, stream: Images) -> Tensor:
        """Answer the next images of a stream, in order: one by one, or, where it is known how, the same but sooner."""
        return torch.cat([self(stream[i : i + 1]) for i in range(len(stream))])

    def loss(self, batch: Images) -> Tensor:
        """Training loss on support rows, a scalar; override for any but that of the task's kind.

        For classification the mean cross-entropy of `forward`, nats; see `adaptkit.methods.evaluation`. Each step shows
        `forward` one view of each image, drawn anew, where the support is read in views and a query is not.
        """
        return self.evaluation.loss(self.forward(as_queries(batch, self.needs())), batch.targets)  # type: ignore[arg-type]

    @property
    def evaluation(self) -> Evaluation:
        """What its answers are worth: by the kind of the task it adapted to, before that the first that it answers."""
        return evaluation(self._kind or self.answers[0])

    def set_kind(self, kind: str) -> None:
        """Set the kind of task that it adapts to.

        Raises:
            ValueError: when that is none it answers.
        """
        if kind not in (known := kinds_answered(self)):
            got = f"{type(self).__name__}, which answers {' or '.join(known)}"
            raise ValueError(f"methods must answer {kind} here; got {got}")
        self._kind = kind

    @property
    def joint_width(self) -> int:
        """Width D of the embeddings that it adapted to; 0 before."""
        return self._width

    def set_width(self, task: Task, anew: bool = False) -> None:
        """Set the width of the embeddings that it adapts to; that of a task before must be the same, unless `anew`.

        Raises:
            ValueError: when the task has another than the one before.
        """
        if self._width not in (0, width := getattr(task.backbone, "dim", 0)) and not anew:
            raise ValueError(f"a task must have the width of the one adapted to, {self._width}; got {width}")
        self._width, self._classes = width, len(task.classnames)

    def training_images(self, task: Task) -> Images:
        """What training draws its batches from: the support, unless it learns from the pool, which has no labels."""
        return task.support

    def parameter_groups(self, parameters: list[nn.Parameter]) -> list[Any]:
        """Parameters as torch's optimisers take them, e.g. in groups that decay at other rates."""
        return parameters

    def callbacks(self) -> Sequence[Callback]:
        """Lightning callbacks for what acts inside the training loop."""
        return ()

    def retarget(self, task: Task) -> None:
        """Answer for the classes of `task`, which has no labelled images, keeping what was learned.

        What learned nothing from images is fitted again. What did must say here how it answers for other classes.
        """
        if self.support_needs():
            raise ValueError(f"methods must be able to answer for other classes here; got {type(self).__name__}")
        self.fit(task)

    def extend(self, task: Task) -> None:
        """Learn the next task of a sequence, and answer for the classes of `task` from then on.

        Those are all classes seen so far, in their order; only the new ones, which are the last, have labelled images.
        What learned nothing from images is fitted again. What did must say here how it learns more.
        """
        if self.support_needs():
            raise ValueError(f"methods must define extend(task) to learn another task; got {type(self).__name__}")
        self.fit(task)

    def grid(self) -> Mapping[str, Sequence[float]]:
        """Hyperparameters, with the values to try on the validation set; those that `fit` reads need a `refit`.

        The last varies fastest; of equally good cells the first wins.
        """
        return {}

    def sweep(self, val: Images) -> Iterator[Tensor | Linear] | None:
        """The logits of `val` at every cell of the grid, in order, where cells share work: the same numbers, sooner.

        Logits that are linear in some of the hyperparameters may stay so, and some rows may come before others; see
        `Linear`. ``None`` leaves it to the kit, which sets each cell and answers.
        """
        return None

    def set(self, values: Mapping[str, float]) -> None:
        """Set hyperparameters by name, and nothing else; `refit` is for a method that is adapted.

        Raises:
            ValueError: for a value outside of the range that its annotation states.
        """
        hold_options(type(self), values)
        for name, value in values.items():
            setattr(self, name, value)

    def refit(self, values: Mapping[str, float]) -> None:
        """Set hyperparameters of an adapted method, and solve again what depends on them.

        Every cell of the grid is answered after this, and the best is kept by it. Override where `fit` reads what the
        grid searches: call ``super().refit(values)``, then solve again from what `fit` kept, copying into its buffers.
        What is trained stays as it was trained, with the values the method was made with.
        """
        self.set(values)

    def __call__(self, batch: Images) -> Tensor:
        """Answer a batch, read under this method's own names."""
        with adapted_first(self):
            return super().__call__(batch.bind(self.needs()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in fields(self))})"

    def children_methods(self) -> list[Method]:
        """The methods this one is built over, e.g. its ``base``."""
        return [m for m in self.children() if isinstance(m, Method)]

    def all_needs(self, of_support: bool = False) -> list[Need]:
        """Everything this method and those below it read of an image."""
        own = list((self.support_needs() if of_support else self.needs()).values())
        return [*own, *(need for m in self.children_methods() for need in m.all_needs(of_support))]


RESERVED = {*dir(nn.Module), *nn.Module.__annotations__, *vars(Method)}  # names that options cannot have


def trainable(method: nn.Module) -> int:
    """How many numbers training would change."""
    return sum(p.numel() for p in method.parameters() if p.requires_grad)
