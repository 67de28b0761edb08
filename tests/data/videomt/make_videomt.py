"""Tiny VidEoMT networks with random weights and what transformers computes for clips of them.

usage: make_videomt.py [DIRECTORY]     (transformers 5.24, torch 2.15, f32 on a CPU)

`transformers` is a checkpoint as transformers saves it. `authors` has the names of the authors' repository, which transformers' own
conversion script lists; its logits are those of the same weights in transformers. expected.safetensors: `pixel_values_videos` of five
frames and the logits of all; `restarted.*` those of frames 2 to 4 as a clip of their own, `missed.*` those of a clip without frame 2.
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import VideomtConfig, VideomtForUniversalSegmentation
from transformers.models.videomt.video_processing_videomt import VideomtVideoProcessor

FRAMES = 5


def randomize(model, generator):
    """Every parameter gets a value of its own, so that one that is swapped or left out changes the logits."""
    for name, parameter in model.named_parameters():
        factor = 1.0 if name.endswith("query.weight") else 1.0 / max(parameter[0].numel(), 1) ** 0.5
        values = torch.randn(parameter.shape, generator=generator) * factor
        if parameter.ndim <= 1:
            scales = name.endswith("lambda1") or ("norm" in name and name.endswith("weight"))
            values = 0.2 * torch.randn(parameter.shape, generator=generator) + (1.0 if scales else 0.0)
        parameter.data.copy_(values)


def network(seed, **sizes):
    """The network and a clip: a pattern that moves, under noise."""
    generator = torch.Generator().manual_seed(seed)
    model = VideomtForUniversalSegmentation(VideomtConfig(**sizes)).eval()
    randomize(model, generator)
    side = sizes["image_size"]
    pattern = torch.randn(3, side, side, generator=generator)
    frames = [torch.roll(pattern, 3 * index, dims=2) + 0.5 * torch.randn(3, side, side, generator=generator) for index in range(FRAMES)]
    return model, torch.stack(frames)[None]


def expected(model, clip):
    tensors = {"pixel_values_videos": clip}
    for prefix, frames in [("", range(FRAMES)), ("restarted.", [2, 3, 4]), ("missed.", [0, 1, 3, 4])]:
        with torch.no_grad():
            outputs = model(pixel_values_videos=clip[:, list(frames)])
        for name in ["class_queries_logits", "masks_queries_logits"]:
            tensors[prefix + name] = outputs[name].contiguous()
    return tensors


def of_the_authors(state):
    """The same tensors under the authors' names, where q, k and v are one."""
    names = [
        ("embeddings.cls_token", "encoder.backbone.cls_token"),
        ("embeddings.register_tokens", "encoder.backbone.reg_token"),
        ("embeddings.patch_embeddings.projection.", "encoder.backbone.patch_embed.proj."),
        ("layernorm.", "encoder.backbone.norm."),
        ("query.weight", "q.weight"),
        ("query_updater.", "query_updater."),
        ("class_predictor.", "class_head."),
        ("mask_head.fc1.", "mask_head.0."),
        ("mask_head.fc2.", "mask_head.2."),
        ("mask_head.fc3.", "mask_head.4."),
        ("attn_mask_probs", "attn_mask_probs"),
    ]
    result = {}
    for name, value in state.items():
        for old, new in names:
            if name.startswith(old):
                result["backbone." + new + name[len(old) :]] = value
        if name.startswith("upscale_block.block."):
            result["backbone." + name.replace("upscale_block.block.", "upscale.").replace("layernorm2d", "norm")] = value
        if name.startswith("layers.") and "_proj." not in name.replace("out_proj.", ""):
            inner = name.replace("layers.", "encoder.backbone.blocks.").replace("attention.out_proj", "attn.proj")
            inner = inner.replace("layer_scale1.lambda1", "ls1.gamma").replace("layer_scale2.lambda1", "ls2.gamma")
            result["backbone." + inner] = value
        if ".q_proj." in name:
            parts = [state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            inner = name.replace("layers.", "encoder.backbone.blocks.").replace("attention.q_proj", "attn.qkv")
            result["backbone." + inner] = torch.cat(parts)
    result["backbone.encoder.backbone.pos_embed"] = state["embeddings.position_embeddings.weight"][None]
    return result


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    labels = ["floor", "wall", "ball", "box", "cup"]
    directory = root / "transformers"
    model, clip = network(
        1, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=24, patch_size=8, num_upscale_blocks=1,
        num_blocks=2, num_queries=6, num_register_tokens=2, id2label=dict(enumerate(labels)),
    )  # fmt: skip
    model.save_pretrained(directory)
    VideomtVideoProcessor(size={"height": 24, "width": 24}).save_pretrained(directory)
    save_file(expected(model, clip), directory / "expected.safetensors")

    directory = root / "authors"
    directory.mkdir(exist_ok=True)
    model, clip = network(
        2, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4, num_upscale_blocks=1,
        num_blocks=1, num_queries=5, num_register_tokens=1, num_labels=4,
    )  # fmt: skip
    torch.save({"model": of_the_authors(model.state_dict()), "iteration": 7}, directory / "model_final.pth")
    (directory / "hints.json").write_text(json.dumps({"num_attention_heads": 2, "labels": labels[:4]}) + "\n")
    save_file(expected(model, clip), directory / "expected.safetensors")


if __name__ == "__main__":
    main()
