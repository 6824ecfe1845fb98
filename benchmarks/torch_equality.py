"""Are networks of PyTorch the same in JAX? Outputs, gradients and Hessian-vector products, full-sized, in float64.

python benchmarks/torch_equality.py [ResNet-18] [ViT] [BERT] [GPT-2]    (a Markdown table; 12 GB of memory)
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import steppe

with contextlib.suppress(RuntimeError):  # a torchvision for CUDA beside a PyTorch for CPUs lacks these two
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

HASTE: Any = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def resnet() -> tuple[torch.nn.Module, Any]:
    import torchvision

    return torchvision.models.resnet18(), torch.randn(2, 3, 64, 64)


def vit() -> tuple[torch.nn.Module, Any]:
    import timm

    return timm.create_model("vit_small_patch16_224", pretrained=False), torch.randn(2, 3, 224, 224)


def text(ids: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(2, 16, dtype=torch.long)
    mask[1, 9:] = 0
    return {"input_ids": torch.randint(0, ids, (2, 16)), "attention_mask": mask}


def bert() -> tuple[torch.nn.Module, Any]:
    import transformers

    return transformers.BertForSequenceClassification(transformers.BertConfig()), text(30522)


def gpt2() -> tuple[torch.nn.Module, Any]:
    import transformers

    return transformers.GPT2LMHeadModel(transformers.GPT2Config()), text(50257)


NETWORKS: dict[str, Callable[[], tuple[torch.nn.Module, Any]]] = {
    "ResNet-18": resnet,
    "ViT": vit,
    "BERT": bert,
    "GPT-2": gpt2,
}
ABOUT = {
    "ResNet-18": "torchvision's, 1000 classes, 2 images of 64 × 64",
    "ViT": "timm's vit_small_patch16_224, 2 images of 224 × 224",
    "BERT": "base, transformers, classifier, 2 × 16 tokens, masked",
    "GPT-2": "small, transformers, language model, tied, 2 × 16 tokens, masked",
}


def compare(name: str) -> str:
    """One row of the table."""
    torch.manual_seed(0)
    module, inputs = NETWORKS[name]()
    module = module.double()
    inputs = jax.tree.map(lambda t: t.double() if t.is_floating_point() else t, inputs)
    began = time.perf_counter()
    trained = steppe.from_torch(module, inputs)
    seconds = time.perf_counter() - began
    module.eval()
    names, parameters = zip(*module.named_parameters(), strict=True)
    directions = [torch.cos(torch.arange(p.numel(), dtype=p.dtype)).reshape(p.shape) for p in parameters]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # others have no second derivative
        given = module(**inputs) if isinstance(inputs, dict) else module(inputs)
        outputs = given if isinstance(given, torch.Tensor) else given.logits
        slopes = torch.autograd.grad(outputs.logsumexp(-1).mean() + (outputs**2).mean(), parameters, create_graph=True)
        products = torch.autograd.grad(sum((s * d).sum() for s, d in zip(slopes, directions, strict=True)), parameters)
    x = jax.tree.map(lambda t: jnp.asarray(t.numpy()), inputs)
    vector = dict(zip(names, (jnp.asarray(d.numpy()) for d in directions), strict=True))

    def loss(params: Any) -> Any:
        y = trained.apply(params, x)
        return jax.nn.logsumexp(y, axis=-1).mean() + (y**2).mean(), y

    def everything(params: Any, vector: Any) -> Any:
        (slopes, y), (products, _) = jax.jvp(jax.grad(loss, has_aux=True), (params,), (vector,))
        return y, slopes, products

    compiled = jax.jit(everything).lower(trained.params, vector).compile(compiler_options=HASTE)
    y, our_slopes, our_products = compiled(trained.params, vector)
    differences = [
        apart([y], [outputs]),
        apart([our_slopes[key] for key in names], slopes),
        apart([our_products[key] for key in names], products),
    ]
    count = sum(p.numel() for p in parameters) / 1e6
    numbers = " | ".join(f"{value:.0e}" for value in differences)
    return f"| {name}: {ABOUT[name]} | {count:.1f} M | {numbers} | {seconds:.0f} s |"


def apart(ours: Any, theirs: Any) -> float:
    """‖ours − theirs‖ / ‖theirs‖ over all arrays."""
    pairs = [(np.asarray(a), b.detach().numpy()) for a, b in zip(ours, theirs, strict=True)]
    difference = sum(float(np.sum((a - b) ** 2)) for a, b in pairs)
    return (difference / sum(float(np.sum(b**2)) for _, b in pairs)) ** 0.5


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        with jax.enable_x64(True):
            print(compare(sys.argv[2]), flush=True)
        return
    print("| network | parameters | outputs | gradient | Hessian-vector product | from_torch |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in sys.argv[1:] or NETWORKS:  # each in a process of its own, for memory
        subprocess.run([sys.executable, __file__, "--one", name], check=True)


if __name__ == "__main__":
    main()
