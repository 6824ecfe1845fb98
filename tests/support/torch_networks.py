"""Small networks of PyTorch, as its users write them and as its libraries make them."""

import contextlib
import warnings

import torch
from torch import nn


def _import_torchvision() -> None:
    """A torchvision for CUDA beside a PyTorch for CPUs lacks two operations; only there they are declared."""
    with contextlib.suppress(RuntimeError):
        import torchvision  # noqa: F401

        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)  # what it declares goes with it


_libraries: list[torch.library.Library] = []
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what libraries say of themselves when they are imported
    _import_torchvision()
    import timm
    import torchvision
    import transformers

IDS = torch.arange(14).reshape(2, 7) * 3 % 11
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
IMAGES = torch.sin(torch.arange(2 * 3 * 16 * 16.0)).reshape(2, 3, 16, 16)


class Convolutional(nn.Module):
    """BatchNorm, dropout, a frozen layer, a constant that is no buffer, a group convolution and one with stride."""

    def __init__(self, momentum=0.1):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, momentum=momentum)
        self.second = nn.Conv2d(4, 4, 3, stride=2, groups=2)
        self.frozen, self.head = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 3)
        self.dropout, self.scale = nn.Dropout(0.5), torch.tensor([1.0, 2.0, 3.0])

    def forward(self, x):
        x = nn.functional.gelu(self.norm(self.first(x)))
        x = torch.tanh(self.frozen(self.second(x).mean((2, 3))))
        return self.head(self.dropout(x)) * self.scale.to(x.dtype)


class Recurrent(nn.Module):
    """Two layers in both directions, on embedded words."""

    def __init__(self, kind=nn.LSTM, **settings):
        super().__init__()
        self.words = nn.Embedding(11, 5)
        self.layers = kind(5, 6, num_layers=2, batch_first=True, bidirectional=True, dropout=0.3, **settings)
        self.head = nn.LazyLinear(3)

    def forward(self, x):
        return self.head(self.layers(self.words(x))[0][:, -1])


def recurrent(kind=nn.LSTM, **settings):
    network = Recurrent(kind, **settings)
    network(IDS)
    return network


def gpt2(**sizes):
    sizes = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2} | sizes
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def bert():
    sizes = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=12, max_position_embeddings=8, num_labels=3)
    return transformers.BertForSequenceClassification(config)


def vit():
    return timm.models.VisionTransformer(
        img_size=16,
        patch_size=8,
        embed_dim=8,
        depth=2,
        num_heads=2,
        num_classes=3,
        drop_path_rate=0.2,
        class_token=True,
    )


TEXT = {"input_ids": IDS, "attention_mask": MASK}
NETWORKS = {
    "hand-written": (Convolutional, IMAGES),
    "LSTM": (recurrent, IDS),
    "timm's ViT": (vit, IMAGES),
    "GPT-2": (gpt2, TEXT),
    "BERT": (bert, TEXT),
    "ResNet-18": (lambda: torchvision.models.resnet18(num_classes=3), IMAGES),
}
"""Functions that make a network, and inputs of it."""


def make(name):
    """One of `NETWORKS` with the same values every time, and its inputs."""
    function, inputs = NETWORKS[name]
    torch.manual_seed(0)
    return function(), inputs
