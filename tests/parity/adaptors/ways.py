"""Other ways to learn the classes, on features that are there: graphs, transport, retrieved images, other towers."""

import sys

import numpy as np
import torch
import torch.nn.functional as F

from adaptkit import Task, adapt, method, predict
from adaptkit.methods.ops import standardized
from tests.parity.adaptors.given import given_task
from tests.parity.driving import fitted
from tests.parity.golden import adaptor


def held(golden, **values):
    """Outputs by name, each within the tolerance that the sidecar gives it; whole numbers exactly."""
    for name, value in values.items():
        key = f"out_{name}"
        room = golden.meta["outputs"][key].get("tolerance_abs")
        golden.equal(key, value) if room is None else golden.close(key, value, atol=room)


def nothing(text):
    return torch.zeros(0, text.shape[1]), torch.zeros(0, dtype=torch.long)


@adaptor("opta", method="opta")
def opta(golden):
    hyper, features = golden.hyper, golden["in_features"]  # (C, S + N, D)
    options = {"ratio": hyper["ratio_OT"], "epsilon": hyper["epsilon"], "sweeps": hyper["max_iter"]}
    options |= {"one_shot_passes": hyper["one_shot_ot_passes"], "passes": hyper["five_shot_ot_passes"]}
    most, classes, right = max(hyper["n_shots"]), torch.arange(len(features)), []
    x = features[:, most:].flatten(0, 1)
    truth = classes.repeat_interleave(features.shape[1] - most)
    for shots in hyper["n_shots"]:
        support = features[:, :shots].flatten(0, 1), classes.repeat_interleave(shots)
        task = Task.from_arrays(support, torch.eye(len(features), features.shape[-1]))
        model = adapt(method("opta", tolerance=hyper["threshold"], **options), task)
        decided = predict(model, x)
        held(golden, **{f"prototypes_{shots}shot": model.carried(standardized(x))})
        held(golden, **{f"decision_{shots}shot": decided - decided.mean(1, keepdim=True)})
        held(golden, **{f"pred_{shots}shot": decided.argmax(1)})
        right.append(100 * (decided.argmax(1) == truth).double().mean())
    plan, cost = model.plan(golden["in_ot_support"], golden["in_ot_query"])
    carried = plan @ golden["in_ot_query"] / plan.sum(1, keepdim=True)
    held(golden, normalised_query=standardized(x), accuracy=torch.stack(right))
    held(golden, ot_plan=plan, ot_cost_matrix=cost, ot_cost=(plan * cost).sum(), ot_transported=carried)


@adaptor("bayestta", method="bayes-tta")
def bayes_tta(golden):
    stream, text, kinds = golden["in_stream"], golden["in_text"], {"auto": "tested", "lda": "shared", "qda": "own"}
    options = {name: golden.hyper[name] for name in ("alpha", "epsilon", "sigma")}
    options |= {"first": stream.shape[1], "batch": stream.shape[1]}
    for name, covariance in kinds.items():
        task = Task.from_arrays(nothing(text), text)
        model = adapt(method("bayes-tta", covariance=covariance, **options), task)
        logits = predict(model, stream.flatten(0, 1)).view(*stream.shape[:2], -1)
        held(golden, **{f"logits_{name}": logits})
        for x in F.normalize(stream, dim=-1):  # predict leaves the method as it was
            model.answer(x)
        if name == "auto":
            held(golden, use_lda=int(len(model.scatters) == 1))
        else:
            held(golden, **{f"mu_{name}": model.means})
        if name == "lda":
            zero_shot = model.zero_shot(F.normalize(stream[-1], dim=-1))
            held(golden, loss=F.cross_entropy(zero_shot, logits[-1].softmax(-1)))


@adaptor("neural-priming", method="neural-priming")
def neural_priming(golden):
    test, labels, rng = golden["in_test"], golden["in_test_labels"], np.random.RandomState(0)
    pool, train, classes = (golden["in_pool"], golden["in_pool_labels"]), golden["in_train"], golden["in_train_labels"]

    def draw():
        own = [(classes == c).nonzero()[:, 0].numpy() for c in classes.unique()]
        return torch.as_tensor(np.concatenate([rng.choice(rows, golden.hyper["shots"], replace=False) for rows in own]))

    first, second = draw(), draw()
    held(golden, sampled=first)
    both = torch.cat([pool[0], train[second]]), torch.cat([pool[1], classes[second]])
    shots = train[first], classes[first]
    for name, (x, y) in {"prime": pool, "shots": shots, "both": both}.items():
        task = Task.from_arrays((x, y), golden["in_text"])  # images that captions label are a support
        model = adapt(method("neural-priming", alpha=golden.hyper["alpha"], as_released=True), task)
        answers = predict(model, test).argmax(-1)
        held(golden, **{f"weights_{name}": model.text, f"pred_{name}": answers})
        held(golden, **{f"accuracy_{name}": (answers == labels).double().mean()})


def descend(model, loss, rate):
    """One step of plain gradient descent."""
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p -= rate * p.grad
                p.grad = None


@adaptor("graphadapter", method="graph-adapter")
def graph_adapter(golden):
    hyper, text = golden.hyper, golden["in_text"]
    support = golden["in_support"], golden["in_support_labels"]
    task = given_task(golden, support=support, logit_scale=float(torch.tensor(hyper["log_logit_scale"]).exp()))
    options = {"beta": hyper["beta"], "text_share": hyper["alpha_it"], "as_released": True}
    model, _ = fitted(method("graph-adapter", **options), task)
    means = torch.stack([support[0][support[1] == c].mean(0) for c in range(len(text))])
    held(golden, class_image_means=means)
    same = (F.normalize(support[0], dim=1) - support[0]).abs().max() < 1e-5
    if same:
        golden.close("out_class_image_means", model.means, atol=1e-5)
    names = {"GCN_tt.gcn_weights": "text_weight", "GCN_tt.gcn_bias": "text_bias"}
    names |= {"GCN_it.gcn_weights": "image_weight", "GCN_it.gcn_bias": "image_bias"}
    with torch.no_grad():
        model.of_image.copy_(model.gathered(golden["in_class_image_means"]))
        for theirs, ours in names.items():
            getattr(model, ours).copy_(golden[f"in_w.{theirs}"])
    x, labels = F.normalize(golden["in_images"], dim=1), golden["in_labels"]

    def logits():
        return task.backbone.logits(x, F.normalize(model.refined(), dim=1))

    held(golden, text0=model.refined(), logits0=logits())
    for step in range(2):
        loss = F.cross_entropy(logits(), labels)
        held(golden, **{f"loss{step}": loss})
        if not step:
            grads = torch.autograd.grad(loss, [getattr(model, ours) for ours in names.values()], retain_graph=True)
            held(golden, **{f"grad0.{theirs}": grad for theirs, grad in zip(names, grads, strict=True)})
        descend(model, loss, hyper["lr"])
    held(golden, text2=model.refined(), logits2=logits())


@adaptor("real-linear", method="real-linear")
def real_linear(golden):
    hyper = golden.hyper
    schedule = {
        "lr": hyper["lr"],
        "weight_decay": hyper["wd"],
        "steps": hyper["iters"],
        "warmup_steps": hyper["warmup"],
    }
    task = Task.from_arrays(
        (golden["in_images"], golden["in_image_labels"]),
        golden["in_zero_shot"],
        logit_scale=float(torch.tensor(hyper["log_logit_scale"]).exp()),
    )
    model = method("real-linear", ensemble=hyper["wise_ft_alpha"])
    model.schedule = type(model.schedule)(**{**vars(model.schedule), **schedule})
    model, support = fitted(model, task)
    with torch.no_grad():
        model.weight.copy_(golden["in_zero_shot"]), model.start.copy_(golden["in_zero_shot"])
    model.sentences, model.owners = F.normalize(golden["in_prompts"], dim=1), golden["in_prompt_labels"]
    optimizer, rates = model.schedule.make([model.weight]), []
    images, prompts = golden["in_image_batches"], golden["in_text_batches"]
    for step in range(hyper["iters"]):
        rates.append(model.schedule.rate(step, 1, hyper["iters"]))
        optimizer.param_groups[0]["lr"] = rates[-1]
        batch = support[images[step % len(images)]]
        loss = model.joint(batch.views[:, 0], batch.labels, prompts[step % len(prompts)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held(golden, lrs=rates, head=model.weight, merged=torch.lerp(model.weight, model.start, model.ensemble))


@adaptor("icis", method="icis")
def icis(golden):
    hyper, text, rows = golden.hyper, golden["in_seen_attributes"], golden["in_seen_weights"]
    model = method("icis", hidden=hyper["embed"])  # its texts are attributes here, of a width of their own
    joint = model.joint(text.shape[1], rows.shape[1])
    with torch.no_grad():
        for ours, theirs in {"text": "ae1", "row": "ae2"}.items():
            for end, coder in {"in": "encoder", "out": "decoder"}.items():
                layer = getattr(joint, f"{ours}_{end}")
                layer.weight.copy_(golden[f"in_w.{theirs}.{coder}.0.weight"])
                layer.bias.copy_(golden[f"in_w.{theirs}.{coder}.0.bias"])
    text_middle, row_middle = joint.text_in(text).relu(), joint.row_in(rows).relu()
    held(golden, att_att0=joint.text_out(text_middle), att_weight0=joint.text_out(row_middle))
    held(golden, weight_weight0=joint.row_out(row_middle), weight_att0=joint.across(text))
    unseen = golden["in_unseen_attributes"]
    batches = [rows for _ in range(hyper["epochs"]) for rows in golden["in_batches"]]
    joint.learn(torch.cat([text, unseen]), rows, batches, hyper["lr"])
    held(golden, predicted_unseen=joint.across(unseen), predicted_seen=joint.across(text))


@adaptor("text-to-concept", method="text-to-concept")
def text_to_concept(golden):
    hyper, source, target = golden.hyper, golden["in_source"], golden["in_target"]
    pairs = {"x": target, "z": source}, torch.zeros(len(source), dtype=torch.long)
    task = Task.from_arrays(pairs, golden["in_concepts"], logit_scale=1.0)
    schedule = {"epochs": hyper["epochs"], "batch_size": hyper["batch"]}
    model = method("text-to-concept", variance=hyper["target_variance"], as_released=True)
    model.schedule = type(model.schedule)(**{**vars(model.schedule), **schedule})
    model, support = fitted(model, task)
    with torch.no_grad():
        model.map.weight.copy_(golden["in_W0"]), model.map.bias.copy_(golden["in_b0"])
    optimizer = model.schedule.make(model.map.parameters())
    step = 0
    for order in golden["in_order"][1:-1]:  # evaluations read the first and the last
        batches = order.split(hyper["batch"])
        for rows in batches:
            optimizer.param_groups[0]["lr"] = model.schedule.rate(step, len(batches), hyper["epochs"] * len(batches))
            loss = model.loss(support[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    scale = model.scale_z / model.scale_x
    held(golden, W=model.map.weight * scale, b=model.map.bias * scale, aligned=model.aligned(golden["in_query"]))
    held(golden, zero_shot=predict(model.eval(), {"z": golden["in_query"]}))


@adaptor("smote", method="smote")
def smote(golden):
    model, x = method("smote", k=golden.hyper["k"], seed=golden.hyper["seed"]), golden["in_features"]
    labels, names = golden["in_labels"], [f"class {c}" for c in range(int(golden["in_labels"].max()) + 1)]
    task = Task.from_arrays((x, labels), torch.eye(len(names), x.shape[1]), classnames=names)
    balanced = model.base_task(task).support
    name, need = next(iter(model.base.support_needs().items()))
    rows = getattr(balanced.bind({name: need}), name)
    held(golden, features=rows, labels=balanced.labels)
    drawn = sys.modules[type(model).__module__].drawn
    _, base, neighbour, step = drawn(x, labels, golden.hyper["k"], golden.hyper["seed"])
    within = torch.stack([(labels[:i] == c).sum() for i, c in enumerate(labels)])  # place of a row in its class
    held(golden, new_base=within[base], new_neighbour=within[neighbour], new_step=step)


@adaptor("swat-cutmix", method="swat")
def swat(golden):
    hyper, labels, order = golden.hyper, golden["in_labels"], golden["in_permutation"]
    module = sys.modules[type(method("swat")).__module__]
    mixed, share, box = module.pasted(golden["in_images"], order, hyper["lam"], golden["in_randint"])
    held(golden, mixed=mixed, lam=share, box=box)
    x = F.normalize(mixed.flatten(1) @ golden["in_projection"], dim=1)
    task = Task.from_arrays(
        nothing(golden["in_head"]),
        golden["in_head"],
        logit_scale=float(torch.tensor(hyper["log_logit_scale"]).exp()),
    )
    for name, balance in {"ce": "none", "balanced": "softmax"}.items():
        model = method("swat", balance=balance)
        model.backbone, model.head = task.backbone, torch.nn.Parameter(golden["in_head"])
        model.frequencies = torch.tensor(hyper["counts"], dtype=torch.float)
        logits = model.logits(x)
        loss = (share * model.losses(logits, labels) + (1 - share) * model.losses(logits, labels[order])).mean()
        held(golden, **{f"loss_{name}": loss, f"grad_head_{name}": torch.autograd.grad(loss, model.head)[0]})
        if name == "ce":
            weight = torch.where(golden["in_source"] > 0, hyper["fewshot_weight"], 1.0)
            held(golden, loss_weighted=(weight * model.losses(model.logits(x), labels)).mean())
