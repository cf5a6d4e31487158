"""What methods inherit: the loss that most of them are trained by, and the ways of those that stand over others."""

from dataclasses import field, replace

import pytest
import torch
import torch.nn.functional as F

from adaptkit import Method, OverBase, Pooled, Task, ZeroShot, adapt, method, predict, unit
from adaptkit.methods.adapt import extend
from adaptkit.methods.ops import as_queries


class Head(ZeroShot):
    """Reads raw views of the support, and unit-norm queries."""

    def support_needs(self):
        return {"views": Pooled(views=3, unit=False)}


class Paired(Method):
    """Reads two features of an image, under the same names of queries and of the support."""

    def needs(self):
        return {"x": Pooled(), "z": Pooled(unit=False)}

    def support_needs(self):
        return {"z": Pooled(views=3, unit=False), "x": Pooled(views=3, unit=False)}


@pytest.fixture
def task():
    torch.manual_seed(1)
    return Task.from_arrays(support=(torch.randn(8, 3, 4), torch.arange(8) % 2), text=torch.randn(2, 4))


def test_the_default_loss_is_the_cross_entropy_of_one_drawn_view_read_as_a_query_is(task):
    head = adapt(Head(), task)
    batch = task.bind(head).support[2:6]
    torch.manual_seed(5)
    got = head.loss(batch)
    torch.manual_seed(5)
    x = unit(batch.views[torch.arange(4), torch.randint(3, (4,))])
    torch.testing.assert_close(got, F.cross_entropy(head.zero_shot(x), batch.labels), msg="one view, of unit norm")
    assert got != head.loss(batch), "and another view at the next step"


def test_one_view_of_an_image_is_drawn_for_all_that_is_read_of_it(task):
    paired = Paired()
    seen = as_queries(task.bind(paired).support, paired.needs())
    torch.testing.assert_close(seen.x, unit(seen.z), msg="both must be of the same view, each read as a query is")
    assert len(seen) == 8 and (seen.labels == task.support.labels).all(), "labels must stay"


def test_a_batch_without_views_and_one_of_a_method_that_reads_views_are_given_as_they_are(task):
    for needs in ({"x": Pooled()}, {"views": Pooled(views=3)}):
        batch = task.support.bind(needs)
        assert as_queries(batch, needs) is batch, f"nothing is to be drawn for {needs}"


class Doubled(OverBase):
    def forward(self, batch):
        return 2 * self.base(batch)


class Wide(Doubled):
    scope = "set"


def test_a_method_over_a_base_takes_the_scope_of_the_base_unless_its_own_is_wider(task):
    assert Doubled().scope == "sample", "zero-shot is the base where none is named"
    assert Doubled(base=method("tda")).scope == "stream", "answers that depend on a stream must be asked as a stream"
    assert Wide(base=method("tda")).scope == "set", "a method that reads all queries does so over any base"
    zero_shot, doubled = adapt(ZeroShot(), task), adapt(Doubled(), task)
    x = torch.randn(3, 4)
    torch.testing.assert_close(predict(doubled, x), 2 * predict(zero_shot, x), msg="the base must be adapted too")
    assert not doubled.needs() and not doubled.support_needs(), "it must read no image itself"


class Seen(ZeroShot):
    """Counts the images that it could learn from, in each task."""

    def fit(self, task):
        super().fit(task)
        self.counts = [*getattr(self, "counts", []), len(task.support)]


class OverFirst(Method):
    """A method that lends its base one image only, and is no `OverBase`."""

    base: Method = field(default_factory=Seen)

    def support_needs(self):
        return {}

    def base_task(self, task):
        return replace(task, support=task.support[:1])

    def fit(self, task):
        self.whole = len(task.support)

    def forward(self, batch):
        return self.base(batch)


def test_any_method_may_say_what_those_below_it_learn_from_at_first_and_of_every_further_task(task):
    lent = adapt(OverFirst(), task)
    assert (lent.base.counts, lent.whole) == ([1], 8), "the base must see what is lent to it, the method the whole"
    assert extend(lent, task).base.counts == [1, 1], "and so of the next task"
    assert Doubled().base_task(task) is task, "which is the task itself where nobody says otherwise"
