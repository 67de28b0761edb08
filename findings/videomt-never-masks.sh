#!/usr/bin/env bash
# VidEoMT in transformers 5.24.0 (PyPI).
# One would guess: `attn_mask_probs`, which its checkpoints hold as EoMT's do (1 in a new network), says which blocks attend inside masks.
# What happens: VidEoMT never reads it. EoMT's mask logits change with it (by a third of the largest with these random weights), VidEoMT's are
#   the same to the bit, in the first frame and in the next. A converter that goes by the buffer would build masks that the reference
#   does not have.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0 scipy==1.17.1
cat >"$work/look.py" <<'END'
import torch
from transformers import (EomtConfig, EomtForUniversalSegmentation, VideomtConfig, VideomtForUniversalSegmentation)

sizes = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, num_queries=6, num_blocks=2, image_size=64, patch_size=16,
             num_register_tokens=1, num_labels=3)
torch.manual_seed(1)
change = {}
for name, model, pixels in [
    ("EoMT", EomtForUniversalSegmentation(EomtConfig(**sizes)), torch.randn(1, 3, 64, 64)),
    ("VidEoMT", VideomtForUniversalSegmentation(VideomtConfig(**sizes)), torch.randn(1, 2, 3, 64, 64)),
]:
    model.eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    assert "attn_mask_probs" in model.state_dict() and model.attn_mask_probs.tolist() == [1.0, 1.0]
    masks = []
    for probability in (1.0, 0.0):
        model.attn_mask_probs.fill_(probability)
        with torch.no_grad():
            key = "pixel_values_videos" if name == "VidEoMT" else "pixel_values"
            masks.append(model(**{key: pixels}).masks_queries_logits)
    change[name] = float((masks[0] - masks[1]).abs().max() / masks[1].abs().max())
    print(f"{name}: mask logits {tuple(masks[0].shape)} change by {change[name]:.1e} of the largest")
assert change["EoMT"] > 0.1 and change["VidEoMT"] == 0.0, change
END
"$work/venv/bin/python" "$work/look.py"
