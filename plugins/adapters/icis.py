"""ICIS: the rows of a head for classes without images are predicted from their texts, as other classes' rows teach.

Source: Christensen et al., Image-free Classifier Injection for Zero-Shot Classification, arXiv:2308.10599.
Deviations: the head that is there is a logistic regression on the support's raw embeddings, solved here; theirs is
given. Classes are described by their embeddings; the paper also has attributes. Rows are predicted for the classes of a
task that have no images, and where an adapted method is asked for others, as in ``base-to-new``; the networks are
trained then, and texts of new classes are made again beside the known, which the release does on request. Predicted
rows get the mean norm of the known ones, for the loss says nothing of it; the release has that as an option, off by
default: ``rescaled: false``. How wide the networks are and how long they train is ours; the release's command has a
width of 1,000 and 1,000 epochs at a rate of 0.0001.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adaptkit import Method, Pooled, hookimpl
from adaptkit.io.ranges import Positive, Size, Steps, Weight
from adaptkit.methods.logistic import SoftmaxRegression


class ICIS(Method):
    """Logistic regression; for classes without images, what networks make of texts."""

    inverse_penalty: Positive = 0.316  # of the logistic regression, scikit-learn's C
    hidden: Size = 2048  # width of what texts and rows have in common
    epochs: Steps = 100  # passes over the classes when rows are predicted
    batch_size: Size = 16  # classes
    lr: Weight = 1e-3
    rescaled: bool = True  # bring predicted rows to the mean norm of known ones

    def needs(self):
        return {"x": Pooled(unit=False)}

    def fit(self, task):
        task.require_support("icis")
        classes, labels = task.support.labels.unique(return_inverse=True)  # those that have images
        regression = SoftmaxRegression(task.support.x, labels, len(classes), tol=1e-5)
        weight, bias = regression.solve(self.inverse_penalty)
        self.learned = nn.Buffer(torch.cat([weight, bias[:, None]], 1).to(task.support.x))  # (K, D + 1)
        self.known, self.known_text = tuple(task.labelnames[c] for c in classes), nn.Buffer(task.text[classes].clone())
        self.retarget(task)

    def forward(self, batch):
        return F.linear(batch.x, self.rows[:, :-1], self.rows[:, -1])

    @torch.enable_grad()
    def retarget(self, task):
        names = sorted(set(task.labelnames) - set(self.known))  # whatever their order
        text = task.text[[task.labelnames.index(name) for name in names]]
        new = self.predicted(text) if names else self.learned[:0]
        own = dict(zip((*self.known, *names), torch.cat([self.learned, new]), strict=True))
        self.rows = nn.Buffer(torch.stack([own[name] for name in task.labelnames]))  # (C, D + 1)

    def predicted(self, text):
        """Head rows for new texts, ``(U, D)`` to ``(U, D + 1)``."""
        joint = self.joint(text.shape[1], self.learned.shape[1]).to(text)
        every = torch.cat([self.known_text, text])
        order = (torch.randperm(len(every)) for _ in range(self.epochs))
        joint.learn(every, self.learned, [part for rows in order for part in rows.split(self.batch_size)], self.lr)
        rows = joint.across(text).detach()
        norm = self.learned.norm(dim=1).mean() if self.rescaled else rows.norm(dim=1, keepdim=True)
        return F.normalize(rows) * norm

    def joint(self, text, row):
        """The networks before training, of texts and rows so wide."""
        return Joint(text, row, self.hidden)


class Joint(nn.Module):
    """Two networks that have their middle in common: of texts, ``(C, A)``, and of head rows, ``(C, R)``."""

    def __init__(self, text, row, hidden):
        super().__init__()
        self.text_in, self.row_in = nn.Linear(text, hidden), nn.Linear(row, hidden)
        self.text_out, self.row_out = nn.Linear(hidden, text), nn.Linear(hidden, row)

    def across(self, text):
        """Rows from texts."""
        return self.row_out(self.text_in(text).relu())

    def learn(self, text, rows, batches, lr):
        """Train on batches of classes, of which the first have rows; the others' texts are only made again."""
        optimizer = torch.optim.Adam(self.parameters(), lr, betas=(0.5, 0.999))
        for batch in batches:
            seen = batch[batch < len(rows)]
            known, row = self.text_in(text[seen]).relu(), self.row_in(rows[seen]).relu()
            pairs = [(self.row_out(known), rows), (self.text_out(row), text), (self.row_out(row), rows)]
            loss = apart(self.text_out(self.text_in(text[batch]).relu()), text[batch]).mean()
            for made, want in pairs if len(seen) else ():
                loss = loss + apart(made, want[seen]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def apart(made, want):
    """One less the cosine, ``(B,)``."""
    return 1 - F.cosine_similarity(made, want)


@hookimpl
def methods():
    return {"icis": ICIS}
