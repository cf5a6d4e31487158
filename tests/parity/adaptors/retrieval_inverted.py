"""Queries inverted into tokens of the other tower: Cross the Gap."""

from dataclasses import replace

import torch

from adaptkit import Task, method
from tests.parity.adaptors.retrieval_composed import close
from tests.parity.golden import adaptor
from tests.parity.tiny_clip import tiny_clip


@adaptor("cross-the-gap", method="cross-the-gap-oti")
def cross_the_gap(golden):
    backbone, hyper = tiny_clip(golden), golden.hyper
    with torch.no_grad():
        images = backbone.encode_image(golden["in_pixel_values"])
        texts = backbone.encode_text({"input_ids": golden["in_input_ids"]})
    task = replace(Task.from_pairs(None, {"item": images}), backbone=backbone)
    schedule = {"lr": hyper["lr"], "weight_decay": hyper["weight_decay"]}
    for n in hyper["tokens"]:
        for way, aim, shown in (("oti", images, "text"), ("ovi", texts, "image")):
            options = {"template": hyper["template"]} if way == "oti" else {}
            model = method(f"cross-the-gap-{way}", n=n, as_released=True, schedule=schedule, **options)
            model.fit(task.bind(model))
            start, losses = golden[f"in_{way}_init_{n}"], []
            for steps in range(hyper["steps"] + 1):
                model.schedule = replace(model.schedule, steps=steps)
                tokens = model.inverted(aim, start)
                losses.append(model.apart(tokens, aim).mean().detach())
            close(golden, f"out_{way}_losses_{n}", torch.stack(losses[:-1]))
            close(golden, f"out_{way}_tokens_{n}", tokens)
            close(golden, f"out_{way}_{shown}_features_{n}", model.encode(tokens))
            if way == "oti":
                ids = model.prompts.tokens["input_ids"].expand(len(aim), -1)
                golden.equal(f"out_oti_ids_{n}", ids)
