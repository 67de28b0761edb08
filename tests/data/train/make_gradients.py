"""Gradients of all weights as transformers computes them, for the tests of `train`.

usage: make_gradients.py    (beside itself; needs torch and transformers; seen with 2.15 and 5.24)

For each network: the gradient of sum(class logits * A) + sum(mask logits * B) with fixed A and B, without masked attention, the network in evaluation (so that
DINOv3's positions are not changed at random). Of each weight about 24 values, evenly spread. Writes gradients.json, and small checkpoints of kinds that
../reference does not have: `dinov3-gated/`, `dinov2-patch32/` (queries in the last block only), `dinov3-all/` (queries in all blocks).
"""
import json
from pathlib import Path

import torch
from transformers import EomtConfig, EomtDinov3Config, EomtDinov3ForUniversalSegmentation, EomtForUniversalSegmentation

HERE = Path(__file__).parent
VALUES = 24


def wave(count, step):
    """The same numbers in any language: sin(step * i)."""
    return torch.sin(torch.arange(count, dtype=torch.float64) * step).float()


def gradients(folder, model):
    model = model.from_pretrained(folder).eval()
    model.attn_mask_probs.zero_()
    size = model.config.image_size
    out = model(pixel_values=wave(3 * size * size, 0.37).view(1, 3, size, size))
    classes, masks = out.class_queries_logits, out.masks_queries_logits
    (classes.flatten() @ wave(classes.numel(), 0.11) + masks.flatten() @ wave(masks.numel(), 0.23)).backward()
    chosen = {}
    for name, weight in model.named_parameters():
        if weight.grad is None or weight.numel() == 0:
            continue
        flat = weight.grad.flatten()
        step = max(1, flat.numel() // VALUES)
        chosen[name] = {"step": step, "largest": float(flat.abs().max()), "values": [float(f"{value:.7g}") for value in flat[::step]]}
    return chosen


def checkpoint(name, kind, config):
    model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.2 + (1.0 if weight.dim() == 1 and weight.std() == 0 and weight.abs().sum() > 0 else 0.0))
        model.attn_mask_probs.zero_()
    model.save_pretrained(HERE / name)


def main():
    torch.manual_seed(5)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3, "num_queries": 5, "num_register_tokens": 2, "num_labels": 4, "layerscale_value": 1.0}
    config = EomtDinov3Config(
        **sizes, num_blocks=2, intermediate_size=24, use_gated_mlp=True, hidden_act="silu", key_bias=True, image_size=32, patch_size=8, num_upscale_blocks=1,
        pos_embed_rescale=None,
    )
    checkpoint("dinov3-gated", EomtDinov3ForUniversalSegmentation, config)
    config = EomtConfig(**sizes, num_blocks=1, image_size=64, patch_size=32, num_upscale_blocks=3, mlp_ratio=2)
    checkpoint("dinov2-patch32", EomtForUniversalSegmentation, config)
    config = EomtDinov3Config(**sizes, num_blocks=3, intermediate_size=32, image_size=48, patch_size=16, num_upscale_blocks=2, pos_embed_rescale=None)
    checkpoint("dinov3-all", EomtDinov3ForUniversalSegmentation, config)
    reference = HERE.parent / "reference"
    cases = {
        "reference/dinov2-patch8": EomtForUniversalSegmentation,
        "reference/dinov2-swiglu": EomtForUniversalSegmentation,
        "reference/dinov3": EomtDinov3ForUniversalSegmentation,
        "train/dinov3-gated": EomtDinov3ForUniversalSegmentation,
        "train/dinov2-patch32": EomtForUniversalSegmentation,
        "train/dinov3-all": EomtDinov3ForUniversalSegmentation,
    }
    found = {case: gradients(reference.parent / case, model) for case, model in cases.items()}
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(weights)}" for case, weights in found.items())
    (HERE / "gradients.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
