#!/usr/bin/env bash
# LightlyTrain 0.18.0 (PyPI lightly-train), EoMT with a DINOv2 backbone of patch 14 and an input of 640x640.
# One would guess from the EoMT authors' code, from which it is derived: the position table in the checkpoint is that of the input's grid,
#   patch 14 has one ScaleBlock (floor(log2 14) - 2), its norm has timm's epsilon of 1e-6, there is a buffer attn_mask_probs, and the
#   input of 640x640 is cut to whole patches, 45x45.
# What happens: the table is that of pre-training (16x16 for the test backbone) and is resampled in every forward pass, there are two
#   ScaleBlocks (ceil), their epsilon is 1e-5, no attn_mask_probs is saved, and the input is resized to 46x46 patches inside of the
#   network. A reader that goes by the authors' rules fails, or computes something else without an error.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet lightly-train==0.18.0 torch==2.15.0
cat >"$work/look.py" <<'END'
import torch
from lightly_train._task_models.dinov2_eomt_panoptic_segmentation.task_model import DINOv2EoMTPanopticSegmentation

model = DINOv2EoMTPanopticSegmentation(
    model_name="dinov2/_vittest14-eomt", thing_classes={0: "person"}, stuff_classes={1: "sky"}, image_size=(640, 640),
    image_normalize={"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}, num_queries=5, num_joint_blocks=2, load_weights=False).eval()
state = model.state_dict()
positions = state["backbone.pos_embed"].shape[1]
blocks = len({name.split(".")[1] for name in state if name.startswith("upscale.")})
eps = model.upscale[0].norm.eps
masks = model.forward_train(torch.zeros(1, 3, 640, 640), return_logits_per_layer=False)[0][-1].shape[-2:]
print(f"positions {positions}, scale blocks {blocks}, epsilon {eps}, attn_mask_probs {'attn_mask_probs' in state}, masks {tuple(masks)}")
assert positions == 16 * 16 + 1 and blocks == 2 and eps == 1e-5 and "attn_mask_probs" not in state and tuple(masks) == (46 * 4, 46 * 4)
END
"$work/venv/bin/python" "$work/look.py"
