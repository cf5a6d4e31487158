"""DPE once more, image by image with lists and torch's AdamW, from the paper (arXiv:2410.12790) and its release."""

import math

import pytest
import torch
import torch.nn.functional as F

from adaptkit import Task, adapt, method, predict
from tests.reference.by_hand import close, texts_and_images


def entropy(p):
    return -(p * p.log()).sum(-1)


def dpe(text, stream, scale, keep, by="logits", capacity=3, alpha=6.0, beta=5.0, rate=6e-4, align=0.5, gate=0.1):
    """Logits of a stream; `by` says what the class of an image's views is the best of, mean logits or probability."""
    start, seen, cache, answers = text, 1, {}, []
    for views in stream:
        text = F.normalize(start, dim=-1)
        of_views = scale * views @ text.T
        kept = entropy(of_views.softmax(-1)).argsort(stable=True)[: max(1, int(keep * len(views)))]
        x, p = views[kept].mean(0), of_views[kept].softmax(-1).mean(0)
        label = int((of_views[kept].mean(0) if by == "logits" else p).argmax())
        cache[label] = sorted([*cache.get(label, []), (float(entropy(p)), x)], key=lambda one: one[0])[:capacity]
        classes = sorted(cache)
        means = torch.stack([torch.stack([row for _, row in cache[c]]).mean(0) for c in classes])
        residuals = [torch.zeros_like(rows, requires_grad=True) for rows in (start, means)]

        def answer(x, residuals=residuals, start=start, means=means, classes=classes):
            t, m = F.normalize(start + residuals[0], dim=-1), F.normalize(means + residuals[1], dim=-1)
            votes = alpha * scale / 100 * (beta * (m @ x - 1)).exp()
            return scale * t @ x + torch.zeros(len(t)).to(x).index_add(0, torch.tensor(classes), votes), t, m

        optimizer = torch.optim.AdamW(residuals, rate, eps=1e-3, weight_decay=0.1)
        logits, t, m = answer(x)
        agree = F.cross_entropy(m @ t[classes].T / 0.01, torch.arange(len(classes)))
        (entropy(logits.softmax(-1)) + align * agree).backward()
        optimizer.step()
        with torch.no_grad():
            logits, t, _ = answer(views[0])
            answers.append(logits)
            if entropy(logits.softmax(-1)) / math.log2(len(t)) < gate:
                start, seen = (start * seen + t) / (seen + 1), seen + 1
    return torch.stack(answers)


def draw(spread=1.6, n=40, count=6, scale=8.0):
    """Classes and views that differ so much that mean logits and mean probabilities often name another class."""
    text, x, _ = texts_and_images(classes=6, n=n, dim=8, spread=spread)
    noise = torch.randn(n, count, 8, generator=torch.Generator().manual_seed(1)).double()
    return torch.tensor(text), F.normalize(torch.tensor(x)[:, None] + 0.5 * noise, dim=-1), scale


@pytest.mark.fault("a method read again beside its release", "the release's answer, or a line in its card")
@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_dpe_is_the_releases(keep):
    text, stream, scale = draw()
    want, other = (dpe(text, stream, scale, keep, by) for by in ("logits", "probability"))
    assert (want - other).abs().max() > 0.1, "the draw must tell the best mean logit from the best mean probability"
    nothing = torch.zeros(0, 8), torch.zeros(0, dtype=torch.long)
    task = Task.from_arrays(nothing, text.float(), logit_scale=scale)
    got = predict(adapt(method("dpe", keep=keep, views=stream.shape[1]), task), stream.float())
    close(got, want.numpy(), "dpe's logits", 1e-3)
