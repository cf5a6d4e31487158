"""Methods that read another method's answers instead of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from adaptkit.features.needs import Need
from adaptkit.methods.method import Method
from adaptkit.methods.task import Task
from adaptkit.methods.zero_shot import ZeroShot


class OverBase(Method):
    """A method over the answers of any other: write ``forward``, and read ``self.base(batch)`` in it.

    The base is adapted first and then frozen; a recipe chooses it, ``{mcm: {base: gda}}``. The `scope` is the base's,
    unless the class says a wider one: then ask ``predict(self.base, batch)``, which keeps the base's own. It reads no
    image itself, unless it overrides `needs` (of queries) or `support_needs`.

    >>> import adaptkit as ak
    >>> class Halved(ak.OverBase):
    ...     "The base's logits, halved."
    ...
    ...     def forward(self, batch):
    ...         return self.base(batch) / 2  # (B, C)
    >>> task, test = ak.load("toy", backbone="toy:0", shots=2, seed=1)
    >>> halved, gda = ak.adapt(Halved(base=ak.method("gda")), task), ak.adapt(ak.method("gda"), task)
    >>> bool((ak.predict(halved, test) == ak.predict(gda, test) / 2).all())
    True
    """

    base: Method = field(default_factory=ZeroShot)  # whose answers are read

    def __post_init__(self) -> None:
        if type(self).scope == "sample":
            self.scope = self.base.scope  # type: ignore[misc]

    def needs(self) -> Mapping[str, Need]:
        """Nothing: the base reads what it needs."""
        return {}

    def support_needs(self) -> Mapping[str, Need]:
        """Nothing: it learns from no image."""
        return {}

    def fit(self, task: Task) -> None:
        """Keep the towers, for their logit scale."""
        self.backbone = task.backbone
