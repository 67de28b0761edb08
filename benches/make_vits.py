#!/usr/bin/env python3
"""Writes a random EoMT ViT-S checkpoint in Hugging Face layout, for timing and for comparing kernels.

    make_vits.py OUT_DIR SIZE SEED [--outliers] [--quiet-scaleblocks]

Makes OUT_DIR/config.json and OUT_DIR/model.safetensors (f32), which `eomt-edge convert OUT_DIR -o FILE` reads: a DINOv2-style ViT of
width 384 with 12 layers, 6 heads, patch 16 and 4 registers; 200 queries, which join for the last 3 layers; 133 classes; 2 ScaleBlocks.
SIZE is the side of the square input in pixels, a multiple of 16. The same arguments give the same numbers (with the same NumPy).

The numbers mean nothing, but their scale is that of a network that keeps its signal: matrices and convolutions N(0,1)/sqrt(fan-in),
queries N(0,1), vectors 0.2 N(0,1), around 1 where they multiply (norm weights, layer scales) and around 0 elsewhere. Trained ViTs
have a few channels far larger than the rest, which is hard on int8; --outliers imitates that: ten random channels of every layer
scale are 30 times as large. --quiet-scaleblocks halves the transposed convolutions, as generators do that count the
four outputs of an input pixel as inputs; masks then depend more on the biases and less on the patch tokens.

Needs numpy and safetensors.
"""

import argparse
import json
import math
import pathlib

import numpy as np
from safetensors.numpy import save_file

WIDTH = 384
LAYERS = 12
HEADS = 6
PATCH = 16
QUERY_LAYERS = 3
QUERIES = 200
CLASSES = 133
REGISTERS = 4
SCALE_BLOCKS = 2
MLP_RATIO = 4

OUTLIER_CHANNELS = 10
OUTLIER_FACTOR = 30


def checkpoint(size, rng, outliers, scaleblock_fan_in):
    """All tensors by name."""
    tensors = {}

    def normal(name, shape, scale, center=0.0):
        tensors[name] = (center + scale * rng.standard_normal(shape)).astype(np.float32)

    def matrix(name, shape, fan_in):
        normal(name, shape, 1 / math.sqrt(fan_in))

    def vector(name, center=0.0, length=WIDTH):
        normal(name, (length,), 0.2, center)

    def linear(name, outputs, inputs):
        matrix(f"{name}.weight", (outputs, inputs), inputs)
        vector(f"{name}.bias", length=outputs)

    def norm(name):
        vector(f"{name}.weight", center=1.0)
        vector(f"{name}.bias")

    def layer_scale(name):
        vector(name, center=1.0)
        if outliers:
            tensors[name][rng.choice(WIDTH, OUTLIER_CHANNELS, replace=False)] *= OUTLIER_FACTOR

    matrix("embeddings.cls_token", (1, 1, WIDTH), WIDTH)
    matrix("embeddings.register_tokens", (1, REGISTERS, WIDTH), WIDTH)
    matrix("embeddings.position_embeddings.weight", ((size // PATCH) ** 2, WIDTH), WIDTH)
    matrix("embeddings.patch_embeddings.projection.weight", (WIDTH, 3, PATCH, PATCH), 3 * PATCH * PATCH)
    vector("embeddings.patch_embeddings.projection.bias")

    for layer in range(LAYERS):
        prefix = f"layers.{layer}"
        norm(f"{prefix}.norm1")
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{prefix}.attention.{projection}", WIDTH, WIDTH)
        layer_scale(f"{prefix}.layer_scale1.lambda1")
        norm(f"{prefix}.norm2")
        linear(f"{prefix}.mlp.fc1", MLP_RATIO * WIDTH, WIDTH)
        linear(f"{prefix}.mlp.fc2", WIDTH, MLP_RATIO * WIDTH)
        layer_scale(f"{prefix}.layer_scale2.lambda1")
    norm("layernorm")

    normal("query.weight", (QUERIES, WIDTH), 1.0)
    # One more than the classes: no object.
    linear("class_predictor", CLASSES + 1, WIDTH)
    for layer in ("fc1", "fc2", "fc3"):
        linear(f"mask_head.{layer}", WIDTH, WIDTH)

    for block in range(SCALE_BLOCKS):
        prefix = f"upscale_block.block.{block}"
        # Transposed (inputs, outputs, 2, 2) with stride 2: every output pixel sees one input pixel.
        matrix(f"{prefix}.conv1.weight", (WIDTH, WIDTH, 2, 2), scaleblock_fan_in)
        vector(f"{prefix}.conv1.bias")
        # Depthwise, without a bias.
        matrix(f"{prefix}.conv2.weight", (WIDTH, 1, 3, 3), 3 * 3)
        norm(f"{prefix}.layernorm2d")

    # Not drawn: masked attention is annealed away, and the weights of the loss are those of training (no object counts a tenth).
    tensors["attn_mask_probs"] = np.zeros(QUERY_LAYERS, np.float32)
    tensors["criterion.empty_weight"] = np.array([1.0] * CLASSES + [0.1], np.float32)
    return tensors


def config(size):
    labels = [f"LABEL_{i}" for i in range(CLASSES)]
    return {
        "architectures": ["EomtForUniversalSegmentation"],
        "model_type": "eomt",
        "dtype": "float32",
        "image_size": size,
        "num_channels": 3,
        "patch_size": PATCH,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_register_tokens": REGISTERS,
        "mlp_ratio": MLP_RATIO,
        "hidden_act": "gelu",
        "use_swiglu_ffn": False,
        "layer_norm_eps": 1e-6,
        "layerscale_value": 1.0,
        "attention_dropout": 0.0,
        "hidden_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "num_blocks": QUERY_LAYERS,
        "num_queries": QUERIES,
        "num_upscale_blocks": SCALE_BLOCKS,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def image_size(text):
    size = int(text)
    if size <= 0 or size % PATCH:
        raise argparse.ArgumentTypeError(f"{size} is not a positive multiple of {PATCH}")
    return size


def main():
    parser = argparse.ArgumentParser(description="Writes a random EoMT ViT-S checkpoint in Hugging Face layout.")
    parser.add_argument("out_dir", metavar="OUT_DIR", type=pathlib.Path)
    parser.add_argument("size", metavar="SIZE", type=image_size, help="side of the input in pixels, a multiple of 16")
    parser.add_argument("seed", metavar="SEED", type=int)
    parser.add_argument("--outliers", action="store_true", help="ten channels of every layer scale 30 times as large")
    parser.add_argument("--quiet-scaleblocks", action="store_true", help="transposed convolutions at half the scale")
    args = parser.parse_args()

    fan_in = 4 * WIDTH if args.quiet_scaleblocks else WIDTH
    tensors = checkpoint(args.size, np.random.default_rng(args.seed), args.outliers, fan_in)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out_dir / "model.safetensors", metadata={"format": "pt"})
    (args.out_dir / "config.json").write_text(json.dumps(config(args.size), indent=2) + "\n")


if __name__ == "__main__":
    main()
