"""For each image anew, one step of prompt tuning towards views that agree: no labels, no memory of earlier images.

Source: Shu et al., Test-Time Prompt Tuning for Zero-Shot Generalization in Vision-Language Models, arXiv:2209.07511.
Deviations: float32 instead of mixed precision. The views of an image are drawn once and cached. The authors mix their
views by AugMix on fine-grained datasets only: ``augment: augmix``. Over CoCoOp the authors tune the words that an
image's embedding gives; here ``base: cocoop`` tunes the words that all images share.
Interactions: ``base`` is trained first, e.g. CoOp or MaPLe; then its prompts are tuned in place of the words in `init`,
for MaPLe the maps from text to image tokens with them. Images are tuned several at once where words alone are tuned.
"""

from adaptkit import hookimpl
from adaptkit.methods.episodes import Episodes


class TPT(Episodes):
    """Tunes the prompt's context words, for each image anew, until its sure views agree.

    Minimises the entropy of the mean prediction over the most confident views, by the prompt alone.
    """


@hookimpl
def methods():
    return {"tpt": TPT}
