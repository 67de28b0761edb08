#!/usr/bin/env bash
# attr-eomt 2.0.0 (PyPI) against transformers 5.24.0, whose EoMT's names it mirrors ("loads with zero missing keys and produces numerically
# identical outputs").
# One would guess: its checkpoints compute the same in transformers.
# What happens: they do while every attn_mask_probs is 0, to rounding. While a block still masks, attr-eomt keeps a patch if any of its
#   mask logits is positive (largest of the patch), lets a query without any patch see all, and predicts those masks with two scale blocks
#   at most; transformers resamples bilinearly. With random weights the logits then differ by 0.9 of the largest, without an error.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet attr-eomt==2.0.0 transformers==5.24.0 torch==2.15.0
cat >"$work/look.py" <<'END'
import dataclasses, torch, eomt
from eomt import config
from transformers import EomtForUniversalSegmentation

config.EOMT_CONFIGS["s"] = dataclasses.replace(config.EOMT_CONFIGS["s"], hidden_size=24, num_hidden_layers=2, num_attention_heads=3, num_queries=6, num_blocks=2)
torch.manual_seed(1)
theirs = eomt.build_model("s", nc=3, imgsz=56).eval()
for parameter in theirs.parameters():
    torch.nn.init.normal_(parameter, std=1.0)
ours = EomtForUniversalSegmentation(theirs.config).eval()
x = torch.randn(1, 3, 56, 56)
worst = {}
for probability in (0.0, 1.0):
    theirs.eomt.set_attn_mask_probs([probability, probability])
    missing, unexpected = ours.load_state_dict(theirs.eomt.state_dict(), strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    with torch.no_grad():
        a, b = theirs(x)["masks_queries_logits"], ours(pixel_values=x).masks_queries_logits
    worst[probability] = float((a - b).abs().max() / a.abs().max())
    print(f"probability {probability}: relative difference of the mask logits {worst[probability]:.1e}")
assert worst[0.0] < 1e-4 and worst[1.0] > 0.1
END
"$work/venv/bin/python" "$work/look.py"
