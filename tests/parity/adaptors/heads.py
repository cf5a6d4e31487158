"""Linear heads on features."""

import copy
import re

import torch
import torch.nn.functional as F

from adaptkit import Task, method, predict
from tests.parity.adaptors.adapters import dassl_schedule, raw_task
from tests.parity.adaptors.training_free import few_shot_task, percent
from tests.parity.driving import fitted, steps
from tests.parity.golden import adaptor


@adaptor("lp++", method="lp-plus-plus")
def lp_plus_plus(golden):
    hyper, task = golden.hyper, few_shot_task(golden)
    options = {"iterations": hyper["iterations"], "momentum": hyper["momentum"], "as_released": True}
    model, support = fitted(method("lp-plus-plus", **options), task)
    views = support.views
    x, labels = views.flatten(0, 1), support.labels.repeat_interleave(views.shape[1])
    order = torch.arange(len(x)).view(views.shape[:2]).T.flatten()  # theirs: all of a view, then the next

    def start():
        model.start(x, labels)
        model.bias.copy_(golden["in_bias_init"])

    start()
    centroids = model.weight.clone()
    golden.close("out_lr_w", model.rate, rtol=1e-5)
    golden.close("out_lr_alpha", model.rate_alpha, rtol=1e-5)
    golden.close("out_alpha_init", model.alpha[0], rtol=1e-5)
    losses, rights, gradients = [], [], []
    val = task.bind(model).val
    for step, (logits, gradient) in enumerate(model.descend(x, labels)):
        losses.append(float(F.cross_entropy(logits, labels)))
        gradients.append(gradient)
        rights.append(percent(predict(model, val), val.labels))
        for name in (f"out_train_logits_step{step}", "out_train_logits_last"):
            if name in golden and (step == model.iterations - 1 or not name.endswith("last")):
                golden.close(name, logits[order], atol=2e-4)
    golden.close("out_losses", losses, rtol=2e-5)
    golden.close("out_W_final", model.weight, of_max=2e-5)
    trained = torch.equal(golden["out_centroids"], golden["out_W_final"])  # the release trains in the centroids' memory
    golden.close("out_centroids", model.weight if trained else centroids, of_max=2e-5)
    golden.close("out_b_final", model.bias, of_max=2e-5)
    golden.close("out_alpha_final", model.alpha, rtol=1e-5)
    golden.close("out_alpha_grad_accumulated", gradients[-1], of_max=2e-5)
    best = max(rights)
    golden.equal("out_best_epoch", max(i for i, right in enumerate(rights) if right == best))
    golden.close("out_best_val_acc", best, atol=1e-6)

    start()
    model.solve(x, labels, val)
    logits = predict(model.eval(), golden["in_test_features"])
    golden.close("out_test_logits", logits, atol=2e-4)
    golden.close("out_test_acc", percent(logits, golden["in_test_labels"]), atol=1e-6)


@adaptor("clap", method="clap")
def clap(golden):
    hyper = golden.hyper
    schedule = dassl_schedule(hyper | {"weight_decay": 0.0})  # said in words, with the optimiser
    model, support = fitted(method("clap", schedule=schedule), raw_task(golden))
    golden.close("out_lambda_init", model.multipliers, atol=2e-6)
    entropies, penalties, rates, seen = [], [], [], []
    for rows, loss, rate in steps(golden, model, support, hyper["epochs_run"]):
        penalties.append(model.constraint().item())
        entropies.append(loss - penalties[-1])
        rates.append(rate)
        seen.append(predict(model, golden["in_train_features"][rows]))
    golden.close("out_ce_losses", entropies, rtol=1e-5)
    golden.close("out_constraint_losses", penalties, rtol=1e-4, atol=1e-9)
    golden.close("out_lrs", rates, rtol=1e-9)
    golden.close("out_train_logits_step0", seen[0], atol=5e-4)
    golden.close("out_train_logits_last", seen[-1], atol=5e-4)
    golden.close("out_prototypes_final", model.prototypes, atol=5e-6)
    golden.close("out_test_logits", predict(model.eval(), golden["in_test_features"]), atol=5e-4)
    model.outer_step()
    golden.close("out_lambda_after_outer", model.multipliers, atol=2e-6)
    golden.close("out_penalty_after_outer", model.penalties, rtol=1e-4)
    model.outer_step()
    golden.close("out_lambda_after_outer2", model.multipliers, rtol=1e-4)


@adaptor("cross-modal-linear", method="cross-modal")
def cross_modal(golden):
    hyper, sentences, owners = golden.hyper, golden["in_text_features"], golden["in_text_labels"]
    classes = int(owners.max()) + 1
    task = Task.from_arrays(
        (golden["in_train_features"], golden["in_train_labels"]),
        [sentences[owners == c] for c in range(classes)],
        val=(golden["in_val_features"], golden["in_val_labels"]),
        logit_scale=float(torch.tensor(float(re.search(r"exp\((.+)\)", hyper["logit_scale"])[1])).exp()),
    )
    schedule = {"steps": hyper["release"]["iterations"], "lr": hyper["lr"], "weight_decay": hyper["weight_decay"]}
    model, support = fitted(method("cross-modal", schedule=schedule), task)
    golden.close("out_zero_shot_weights", model.weight, atol=2e-6)
    row_of = torch.empty(len(owners), dtype=torch.long)  # where the method has a sentence: all of a class together
    row_of[owners.argsort(stable=True)] = torch.arange(len(owners))
    images, texts = golden["in_image_batches"], golden["in_text_batches"]
    optimizer, losses, rates, rights, states = schedule_of(model), [], [], [], []
    for i in range(hyper["iterations"]):
        rates.append(model.schedule.rate(i, len(images), hyper["release"]["iterations"]))
        optimizer.param_groups[0]["lr"] = rates[-1]
        batch = support[images[i % len(images)]]
        loss = model.joint(batch.views[:, 0], batch.labels, row_of[texts[i % len(texts)]])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if i % hyper["eval_freq"] == 0:
            rights.append(percent(predict(model, task.val), task.val.labels) / 100)
            states.append(copy.deepcopy(model.state_dict()))
    golden.close("out_losses", losses, rtol=2e-5)
    golden.close("out_lrs", rates, rtol=1e-9)
    golden.close("out_val_accs", rights, atol=1e-9)
    best = rights.index(max(rights))
    golden.equal("out_best_iter", best * hyper["eval_freq"])
    golden.close(f"out_W_step{hyper['iterations']}", model.weight, atol=2e-6)
    model.load_state_dict(states[best])
    golden.close("out_W_best", model.weight, atol=2e-6)
    golden.close("out_test_logits", predict(model, golden["in_test_features"]), atol=5e-4)
    model.ensemble = 0.5
    golden.close("out_test_logits_wiseft", predict(model, golden["in_test_features"]), atol=5e-4)


def schedule_of(model):
    return model.schedule.make([p for p in model.parameters() if p.requires_grad])


@adaptor("reg-linear-adapter", method="reg-linear-adapter")
def reg_linear_adapter(golden):
    hyper, epochs = golden.hyper, golden.hyper["train_epoch"]
    views = (golden["in_train_pre"] @ golden["in_proj"]).transpose(0, 1)  # (S, V, D)
    labels, x = golden["in_train_labels"], golden["in_test_pre"] @ golden["in_proj"]
    task = Task.from_arrays((views, labels), golden["in_clip_weights"].T)
    penalty = hyper["lambda_"] * len(labels) / len(task.classnames)
    eps = float(re.search(r"eps ([\de.-]+)", hyper["optimizer"])[1])
    schedule = {"epochs": epochs, "lr": hyper["lr"], "eps": eps}
    model, support = fitted(method("reg-linear-adapter", penalty=penalty, schedule=schedule), task)
    optimizer, entropies, distances, rates, seen = schedule_of(model), [], [], [], []
    for epoch in range(epochs):
        rates.append(model.schedule.rate(epoch, 1, epochs))
        optimizer.param_groups[0]["lr"] = rates[-1]
        distances.append(model.distance().item())
        seen.append(predict(model, views[:, (epoch + 1) % views.shape[1]]))
        loss = model.loss(support)
        entropies.append(loss.item() - hyper["lambda_"] * distances[-1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    golden.close("out_ce_losses", entropies, rtol=2e-5)
    golden.close("out_reg_losses", distances, rtol=1e-4, atol=1e-9)
    golden.close("out_lrs", rates, rtol=1e-9)
    golden.close("out_train_logits_step0", seen[0], atol=5e-4)
    golden.close("out_train_logits_last", seen[-1], atol=5e-4)
    golden.close("out_weight_final", model.weight, atol=2e-6)
    logits = predict(model.eval(), x)
    golden.close("out_test_logits", logits, atol=5e-4)
    golden.close("out_test_acc", percent(logits, golden["in_test_labels"]), atol=1e-6)
