"""Quality by antonyms: QualiCLIP."""

from dataclasses import replace

import torch

from adaptkit import Task, adapt, method, predict
from tests.parity.adaptors.retrieval_composed import close
from tests.parity.golden import adaptor


@adaptor("qualiclip-score", method="quali-clip")
def quali_clip(golden):
    images, prompts = golden["in_images"], golden["in_prompts"]
    nothing = torch.zeros(0, images.shape[1]), torch.zeros(0).long()
    task = Task.from_arrays(nothing, prompts[:2], logit_scale=golden.hyper["logit_scale"], classnames=["bad", "good"])

    def encode(sentences):  # the golden's rows, whatever they say
        return prompts if len(sentences) == len(prompts) else prompts[:2]

    pairs = [f"good {i}|bad {i}" for i in range(len(prompts) // 2)]
    model = adapt(method("quali-clip", pairs=pairs), replace(task, kind="ordinal", encode=encode))
    close(golden, "out_quality", predict(model, images))
