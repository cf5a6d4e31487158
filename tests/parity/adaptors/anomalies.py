"""Anomalies: maps of images, and the metric that judges them where next to nothing is falsely seen."""

import numpy as np

from adaptkit.methods.evaluation.pimo import at_or_above, aupimo, between_shares, shared_false
from tests.parity.adaptors.outsiders import near
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
