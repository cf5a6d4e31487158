"""Anomalies: maps of images, and the metric that judges them where next to nothing is falsely seen."""

import dataclasses
import hashlib

import numpy as np
import torch
from adaptkit_plugins.anomaly.mu_sc import pooled

from adaptkit import Images, Task, adapt, method, predict, unit
from adaptkit.features.needs.regions import second_path, squares
from adaptkit.methods.evaluation.maps import image_scores, map_of
from adaptkit.methods.evaluation.pimo import at_or_above, aupimo, between_shares, shared_false
from tests.parity.adaptors.outsiders import near, towers
from tests.parity.golden import adaptor


@adaptor("aupimo", method="core")
def area(golden):
    maps, masks = golden["in_anomaly_maps"].numpy(), golden["in_masks"].numpy().astype(bool)
    bounds, count = tuple(golden.hyper["fpr_bounds"]), golden.hyper["num_thresholds"]
    normal = ~masks.any((1, 2))
    thresholds, false = shared_false(maps[normal], count)
    near(golden, "out_thresholds", thresholds)
    near(golden, "out_shared_fpr", false)
    rows = between_shares(false, bounds)
    golden.equal("out_num_thresholds_in_bounds", rows.stop - rows.start)
    areas = aupimo(maps, masks, bounds, count)
    near(golden, "out_mean_anomalous", np.nanmean(areas))
    seen = [
        np.full(count, np.nan) if plain else at_or_above(m[k], thresholds)
        for m, k, plain in zip(maps, masks, normal, strict=True)
    ]
    for key, got in (("out_aupimos", areas), ("out_per_image_tprs", seen)):
        empty = np.isnan(golden.arrays[key])
        assert (np.isnan(got) == empty).all(), f"{key} must be nan for normal images, and for no other"
        golden.arrays[key] = np.where(empty, 0, golden.arrays[key])
        near(golden, key, np.where(empty, 0, got))


def of_normal(shown, text, **more):
    """A task of maps whose support is normal."""
    count = len(next(iter(shown.values()))) if isinstance(shown, dict) else len(shown)
    task = Task.from_arrays((shown, torch.zeros(count, 2, 2)), text, **more)
    return dataclasses.replace(task, kind="maps")


def scales_of(golden, name):
    """The sides of windows by what the golden has of them."""
    return tuple(sorted(int(k.rpartition("_s")[2]) for k in golden.arrays if k.startswith(name)))


def hold_answers(golden, key, made, images, size):
    """Scores and maps of one of the two methods."""
    made.size = size
    answers = predict(made, images)
    near(golden, f"out_{key}_maps", map_of(answers))
    near(
        golden,
        key.join(("out_", "_image_scores" if f"out_{key}_image_scores" in golden else "_scores")),
        image_scores(answers),
    )


@adaptor("winclip", method="win-clip")
def win_clip(golden):
    hyper, scales = golden.hyper, scales_of(golden, "in_windows_s")
    grid, size = tuple(hyper["grid"]), tuple(hyper["image_size"])
    images = {"x": golden["in_image_embeddings"], "patches": golden["in_patch_embeddings"]}
    images |= {f"windows_{s}": golden[f"in_windows_s{s}"] for s in scales}
    known = {"patches": golden["in_ref_patches"]} | {f"windows_{s}": golden[f"in_ref_windows_s{s}"] for s in scales}
    said = iter([golden["in_text_normal"], golden["in_text_anomalous"]] * 2)
    for s in scales:
        near_masks = squares(grid, s)
        golden.equal(f"out_masks_s{s}", near_masks.T)
    for name, key in (("win-clip", "zs"), ("win-clip-plus", "fs")):
        task = of_normal(known, golden["in_text_normal"][:1])
        task = dataclasses.replace(task, encode=lambda sentences: next(said))
        made = adapt(method(name, scales=scales, temperature=hyper["temperature"]), task)
        made.grid_of = lambda windows, side: grid
        near(golden, "out_text_embeddings", made.text)
        hold_answers(golden, key, made, images, size)
        with torch.no_grad():
            shown = Images.from_arrays(images).bind(made.needs())
            near(golden, "out_zs_grid", made.zero_shot(shown)[1])
            if key == "fs":
                near(golden, "out_fs_association_grid", made.association(shown))


@adaptor("winclip-towers", method="win-clip")
def win_clip_towers(golden):
    hyper, scales, backbone = golden.hyper, scales_of(golden, "out_window_embeddings_s"), towers(golden)
    pixels, name = golden["in_pixel_values"], hyper["class_name"]
    task = of_normal(golden["in_reference_images"], torch.eye(1, backbone.dim), classnames=[name], backbone=backbone)
    for method_name, key in (("win-clip", "zs"), ("win-clip-plus", "fs")):
        made = method(method_name, scales=scales, temperature=hyper["temperature"], as_released=True)
        lists = made.sentences([name])
        digests = [hashlib.sha256("\n".join(own).encode()).hexdigest() for own in lists]
        assert digests == hyper["sha256_of_prompts_newline_joined"], "sentences must be the release's"
        for own, ids in zip(lists, ("in_ids_normal", "in_ids_anomalous"), strict=True):
            length = golden[ids].shape[1]
            assert torch.equal(backbone.tokenize(own)["input_ids"][:, :length], golden[ids]), "and so their tokens"
        encode = torch.no_grad()(backbone.encode_text)
        made = adapt(made, dataclasses.replace(task, encode=encode))
        near(golden, "out_text_embeddings", made.text)
        hold_answers(golden, key, made, pixels, pixels.shape[-1])
    with torch.no_grad():
        needs = made.needs()
        near(golden, "out_image_embeddings", needs["x"].compute(backbone, pixels))
        tokens = needs["patches"].compute(backbone, pixels)
        near(golden, "out_patch_embeddings", backbone.points["image.norm"].untapped(tokens))
        for s in scales:
            near(golden, f"out_window_embeddings_s{s}", needs[f"windows_{s}"].compute(backbone, pixels))


@adaptor("musc", method="mu-sc")
def mu_sc(golden):
    hyper, images = golden.hyper, len(golden["in_image_features"])
    layers, x = golden["in_patch_tokens"][:, :, 1:], golden["in_image_features"]
    made = method(
        "mu-sc", degrees=tuple(hyper["r_list"]), most=hyper["topmin"][1], neighbours=tuple(hyper["k_list_rescoring"])
    )
    made = adapt(made, of_normal(x[:1], x[:1]))
    made.size = hyper["image_size"]
    for degree in hyper["r_list"]:
        near(golden, f"out_mutual_scores_r{degree}", made.scored(layers, degree))
    last = torch.stack([pooled(layer, hyper["r_list"][-1]) for layer in layers], 2)  # (N, P, K, W)
    near(golden, "out_aggregated_last_r", last)
    answers = predict(made, {"x": unit(x), "layers": layers.transpose(0, 1)})
    near(golden, "out_anomaly_maps", map_of(answers))
    near(golden, "out_scores_rescored", image_scores(answers))
    near(golden, "out_scores_raw", map_of(answers).flatten(1).amax(1))
    assert len(answers) == images, "each image must be answered"


@adaptor("anovl-vv", method="ano-vl")
def ano_vl(golden):
    hyper, backbone, pixels = golden.hyper, towers(golden), golden["in_pixel_values"]
    depth, chosen = backbone.depth["image"], [i - 1 for i in hyper["features_list"]]
    chosen = [i for i in chosen if i >= depth - hyper["surgery"]]
    path, added = second_path(backbone, hyper["surgery"]), {}
    taps = dict(path.taps)
    for i in range(depth):  # in the release, the next block adds its attention to tokens that were kept
        taps[f"image.block.{i}.norm2"] = lambda x, out, i=i: added.setdefault(i, x.chunk(2)[0]) is None or out
    ends: list[torch.Tensor] = []
    taps[f"image.block.{depth - 1}"] = lambda x, out: (
        ends.append(out.chunk(2)[0]) or path.taps[f"image.block.{depth - 1}"](x, out)
    )
    with torch.no_grad(), backbone.taps(taps):
        backbone.encode_image(torch.cat([pixels, pixels]))
    final = torch.cat([ends[0][:, :1], path.kept[depth - 1][:, 1:]], 1)
    tokens = torch.stack([t for i in chosen for t in (final, added.get(i + 1, ends[0]))])

    def projected(rows):
        normed = backbone.points["image.norm"].untapped(rows)
        return backbone.points["image.projection"].untapped(normed)

    near(golden, "out_tokens", tokens)
    with torch.no_grad():
        near(golden, "out_pooled", projected(final))
        near(golden, "out_projected_tokens", projected(tokens))
        own = method("ano-vl", last=hyper["surgery"], as_released=True).needs()["path"].compute(backbone, pixels)
    near(golden, "out_pooled", torch.cat([golden["out_pooled"][:, :1], own[:, 0]], 1))


@adaptor("anomalyclip", method="anomaly-clip")
def anomaly_clip(golden):
    hyper, backbone, pixels = golden.hyper, towers(golden), golden["in_pixel_values"]
    chosen = tuple(i - 1 for i in hyper["features_list"])
    task = Task.from_arrays((pixels, golden["in_masks"]), torch.eye(1, backbone.dim), backbone=backbone)
    made = method(
        "anomaly-clip",
        n=golden["in_w.ctx_pos"].shape[-2],
        depth=hyper["depth"],
        deep=hyper["t_n_ctx"],
        blocks=chosen[hyper["feature_map_layer"][0] :],
        last=hyper["DPAM_layer"] - 1,
        temperature=hyper.get("temperature", 0.07),
        sigma=float(hyper["sigma"]),
        as_released=True,
    )
    task = dataclasses.replace(task, kind="maps").bind(made)
    made.fit(task)
    deep = {f"compound_prompts_text.{i}": words for i, words in enumerate(made.deeper)}
    made.context.data = torch.cat([golden["in_w.ctx_pos"][0], golden["in_w.ctx_neg"][0]])
    for name, words in deep.items():
        words.data = golden[f"in_w.{name}"]
    with torch.no_grad():
        shown = Images.from_arrays(pixels)
        shown.rows.backbone = backbone
        x = made.needs()["x"].compute(backbone, pixels)[:, 0, 0]
        near(golden, "out_image_features", backbone.points["image.projection"].untapped(x))
        path = second_path(backbone, made.last)
        with backbone.taps(path.taps):
            backbone.encode_image(torch.cat([pixels, pixels]))
        rows = backbone.points["image.norm"].untapped(torch.stack([path.kept[i] for i in chosen]))
        rows = backbone.points["image.projection"].untapped(rows)
        near(golden, "out_patch_features", rows)
        own = made.needs()["path"].compute(backbone, pixels).transpose(0, 1)
        start = len(chosen) - len(own)
        near(golden, "out_patch_features", torch.cat([rows[:start], torch.cat([rows[start:, :, :1], own], 2)]))
    optimizer = torch.optim.SGD([made.context, *made.deeper], lr=hyper["lr"])
    steps = sum(f"out_map_loss{s}" in golden for s in range(99))
    for s in range(steps + 1):
        if f"out_image_scores{s}" in golden:
            near(golden, f"out_text_features{s}", made.text().detach()[None])
            answers = predict(made, pixels)
            near(golden, f"out_image_scores{s}", image_scores(answers))
            near(golden, f"out_anomaly_map{s}", map_of(answers))
        if s < steps:
            maps, images = made.parts(task.support)
            near(golden, f"out_map_loss{s}", made.map_weight * maps)
            near(golden, f"out_image_loss{s}", images)
            optimizer.zero_grad()
            made.loss(task.support).backward()
            for name, grad in {"ctx_pos": made.context.grad[0], "ctx_neg": made.context.grad[1]}.items():
                if f"out_grad{s}.{name}" in golden:
                    near(golden, f"out_grad{s}.{name}", grad[None, None])
            for name, words in deep.items():
                if f"out_grad{s}.{name}" in golden:
                    near(golden, f"out_grad{s}.{name}", words.grad)
            optimizer.step()
