"""The method contract: `fit` what can be solved, `forward` what is asked, `loss` if the rest must be learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, dataclass_transform

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.features.items import Images
from adaptkit.features.needs import Need, Pooled
from adaptkit.io.errors import must_be
from adaptkit.methods.schedule import Schedule as Schedule
from adaptkit.methods.search import Linear
from adaptkit.methods.task import Task

if TYPE_CHECKING:
    from pytorch_lightning import Callback


@dataclass_transform(kw_only_default=True, eq_default=False)
class Method(nn.Module):
    """Adapts a frozen backbone to a task. Annotated class attributes are its hyperparameters.

    A method is trained if, and only if, `fit` leaves it parameters that require a gradient.

    Attributes:
        scope: what one row of the output may depend on: that ``"sample"`` alone, the ``"stream"`` of samples before
            it, or the whole ``"set"`` of queries (transductive).
        output: ``"logits"``, ``(B, C)``, or ``"score"``, ``(B,)``, higher for in-distribution.
        exempt: contract checks this method fails by design, each with the reason.
    """

    scope: ClassVar[Literal["sample", "stream", "set"]] = "sample"
    output: ClassVar[Literal["logits", "score"]] = "logits"
    exempt: ClassVar[Mapping[str, str]] = {}

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

    def __new__(cls, *_args: object, **_options: object) -> Method:
        """A module that is ready to hold children before its options are set."""
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def needs(self) -> Mapping[str, Need]:
        """What `forward` reads of each query (and of each validation and pool image), by the name it reads it under."""
        return {"x": Pooled()}

    def support_needs(self) -> Mapping[str, Need]:
        """What `fit` and `loss` read of each support image."""
        return self.needs()

    def fit(self, task: Task) -> None:
        """Solve what has a closed form; create what must be learned."""
        raise NotImplementedError(f"{type(self).__name__} must define fit(task)")

    def forward(self, batch: Images) -> Tensor:
        """Answer a batch: ``(B, C)`` logits, or ``(B,)`` scores."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(batch)")

    def replay(self, stream: Images) -> Tensor:
        """Answer the next images of a stream, in order: one by one, or, where it is known how, the same but sooner."""
        return torch.cat([self(stream[i : i + 1]) for i in range(len(stream))])

    def loss(self, batch: Images) -> Tensor:
        """Training loss on support rows, a scalar. Override for anything but cross-entropy."""
        return F.cross_entropy(self.forward(batch), batch.labels)  # type: ignore[arg-type]

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

    def grid(self) -> Mapping[str, Sequence[float]]:
        """Hyperparameters that only `forward` reads, with the values to try on the validation set.

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
        """Set hyperparameters by name."""
        for name, value in values.items():
            setattr(self, name, value)

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


CHOICES = {"scope": ("sample", "stream", "set"), "output": ("logits", "score")}
"""What a class may say of itself; a property says it of each instance."""


def check_choices(cls: type[Method]) -> None:
    """Hold what a class says of itself to what may be said.

    Raises:
        ValueError: naming the class, the attribute and the choices.
    """
    for name, allowed in CHOICES.items():
        said = getattr(cls, name)
        if said not in allowed and not isinstance(said, property):
            raise ValueError(must_be(f"{cls.__name__}.{name}", allowed, said))
    exempt = cls.exempt
    if not isinstance(exempt, Mapping) or not all(isinstance(why, str) and why.strip() for why in exempt.values()):
        raise ValueError(
            f"{cls.__name__}.exempt must be a mapping from checks to reasons, {{'class_order': 'why'}}; got {exempt!r}"
        )


class UnadaptedError(ValueError):
    """A method was asked before it was adapted."""


@contextmanager
def adapted_first(method: Method) -> Iterator[None]:
    """Say of a method that is asked before it was adapted that it is so, in place of the attribute that it lacks.

    Raises:
        UnadaptedError: naming the outermost method that was not adapted.
    """
    try:
        yield
    except (AttributeError, UnadaptedError) as error:
        name = type(method).__name__
        lacks = isinstance(error, UnadaptedError) or f"{name!r} object has no attribute" in str(error)
        if not lacks or not as_constructed(method):
            raise
        raise UnadaptedError(f"{name} must be adapted before it answers; call adaptkit.adapt(method, task)") from error


def as_constructed(method: Method) -> bool:
    """Whether a method holds what its constructor gives it and nothing else."""
    try:
        fresh = type(method)(**{f.name: getattr(method, f.name) for f in fields(method)})
    except Exception:  # whatever a stranger's constructor raises; the error that led here is the one to show
        return False
    parts = [(vars(m), m._buffers, m._parameters, m._modules) for m in (method, fresh)]
    return all(set(held) == set(new) for held, new in zip(*parts, strict=True))


RESERVED = {*dir(nn.Module), *nn.Module.__annotations__, *vars(Method), "scope", "output", "exempt"}
"""Names that options cannot have."""
