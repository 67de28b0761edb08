"""Tiny DINOv2 and DINOv3 backbones with random weights, and the tokens that transformers computes with them.

usage: make_backbones.py    (beside itself; torch 2.15, transformers 5.24, f32 on a CPU)

Each folder is as transformers saves the model. expected.safetensors: `pixel_values` of the configuration's size and of another one, and
`last_hidden_state` (after the final norm) of both. `meta-dinov3.pth` has the weights of `dinov3` under the names of Meta's repository.
"""
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

HERE = Path(__file__).parent


def randomize(model, generator):
    """Every parameter gets a value of its own, so that one that is swapped or left out changes the tokens."""
    for name, parameter in model.named_parameters():
        factor = 1.0 / max(parameter[0].numel(), 1) ** 0.5
        values = torch.randn(parameter.shape, generator=generator) * factor
        if parameter.ndim <= 1:
            scales = name.endswith("lambda1") or ("norm" in name and name.endswith("weight"))
            values = 0.2 * torch.randn(parameter.shape, generator=generator) + (1.0 if scales else 0.0)
        parameter.data.copy_(values)


def write(name, model, other, seed):
    generator = torch.Generator().manual_seed(seed)
    model = model.eval()
    randomize(model, generator)
    model.save_pretrained(HERE / name)
    tensors = {}
    for prefix, side in [("", model.config.image_size), ("other.", other)]:
        pixels = torch.randn(2, 3, side, side, generator=generator)
        with torch.no_grad():
            tokens = model(pixel_values=pixels).last_hidden_state
        tensors[prefix + "pixel_values"] = pixels
        tensors[prefix + "last_hidden_state"] = tokens.contiguous()
    save_file(tensors, HERE / name / "expected.safetensors")
    return model


def of_meta(model):
    """The state of a DINOv3 under Meta's names: q, k and v are one, and a mask removes the bias of the keys."""
    state, heads, width = model.state_dict(), model.config.num_attention_heads, model.config.hidden_size
    names = [
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.register_tokens", "storage_tokens"),
        ("embeddings.patch_embeddings.", "patch_embed.proj."),
        ("norm.", "norm."),
    ]
    found = {new + key[len(old) :]: value for key, value in state.items() for old, new in names if key.startswith(old)}
    found["mask_token"] = state["embeddings.mask_token"][0]
    count = width // heads // 4
    found["rope_embed.periods"] = 100.0 ** (torch.arange(count) / count)
    parts = [
        ("norm1", "norm1"),
        ("norm2", "norm2"),
        ("attention.o_proj", "attn.proj"),
        ("mlp.gate_proj", "mlp.w1"),
        ("mlp.up_proj", "mlp.w2"),
        ("mlp.down_proj", "mlp.w3"),
    ]
    for index in range(model.config.num_hidden_layers):
        [prefix] = {key[: key.index(f"layer.{index}.")] + f"layer.{index}." for key in state if f"layer.{index}." in key}
        block = f"blocks.{index}."
        for old, new in parts:
            for end in ["weight", "bias"]:
                found[f"{block}{new}.{end}"] = state[f"{prefix}{old}.{end}"]
        found[f"{block}ls1.gamma"] = state[f"{prefix}layer_scale1.lambda1"]
        found[f"{block}ls2.gamma"] = state[f"{prefix}layer_scale2.lambda1"]
        q, k, v = (state[f"{prefix}attention.{part}_proj.weight"] for part in "qkv")
        found[f"{block}attn.qkv.weight"] = torch.cat([q, k, v])
        biases = [state[f"{prefix}attention.q_proj.bias"], torch.full([width], 9.0), state[f"{prefix}attention.v_proj.bias"]]
        found[f"{block}attn.qkv.bias"] = torch.cat(biases)
        found[f"{block}attn.qkv.bias_mask"] = torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])
    return found


def main():
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    write("dinov2", Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=7)), 42, 1)
    registers = Dinov2WithRegistersConfig(**sizes, image_size=24, patch_size=8, num_register_tokens=3, use_swiglu_ffn=True)
    write("dinov2-registers", Dinov2WithRegistersModel(registers), 40, 2)
    gated = DINOv3ViTConfig(
        **sizes, image_size=24, patch_size=8, num_register_tokens=2, intermediate_size=24, use_gated_mlp=True, hidden_act="silu"
    )
    dinov3 = write("dinov3", DINOv3ViTModel(gated), 40, 3)
    torch.save(of_meta(dinov3), HERE / "meta-dinov3.pth")
    # as the hub's folders have it: mean and deviation of other pictures than ImageNet's
    processor = {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143], "size": {"height": 24, "width": 24}}
    (HERE / "dinov3" / "preprocessor_config.json").write_text(json.dumps(processor) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
