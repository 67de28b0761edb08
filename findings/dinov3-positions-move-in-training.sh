#!/usr/bin/env bash
# EomtDinov3 in transformers 5.24.0 (PyPI).
# One would guess: without dropout, drop path and masked attention, a network in training gives the same picture the same logits, as EoMT on DINOv2 does; and that
#   fine-tuning sees the positions that inference will use.
# What happens: in training mode, DINOv3's rotary positions are scaled at random on every call (`pos_embed_rescale`, 2.0 unless the configuration says otherwise: a
#   factor between a half and two). Class logits of one picture differ from call to call, here by 0.15 of the largest; in evaluation and with
#   `pos_embed_rescale` None they are the same to the bit. A gradient compared with one of this reference must be taken in evaluation mode.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.15.0 scipy==1.17.1
cat >"$work/look.py" <<'END'
import torch
from transformers import EomtConfig, EomtDinov3Config, EomtDinov3ForUniversalSegmentation, EomtForUniversalSegmentation

sizes = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, num_queries=6, num_blocks=2, image_size=64, patch_size=16,
             num_register_tokens=1, num_labels=3)
assert EomtDinov3Config().pos_embed_rescale == 2.0
torch.manual_seed(1)
pixels = torch.randn(1, 3, 64, 64)
apart = {}
for name, kind, config in [
    ("DINOv2, training", EomtForUniversalSegmentation, EomtConfig(**sizes)),
    ("DINOv3, training", EomtDinov3ForUniversalSegmentation, EomtDinov3Config(intermediate_size=64, **sizes)),
    ("DINOv3, training, no rescale", EomtDinov3ForUniversalSegmentation, EomtDinov3Config(intermediate_size=64, pos_embed_rescale=None, **sizes)),
    ("DINOv3, evaluation", EomtDinov3ForUniversalSegmentation, EomtDinov3Config(intermediate_size=64, **sizes)),
]:
    assert config.hidden_dropout_prob == config.attention_dropout == config.drop_path_rate == 0.0
    model = kind(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.attn_mask_probs.zero_()
    model.train("training" in name)
    with torch.no_grad():
        first, second = (model(pixel_values=pixels).class_queries_logits for _ in range(2))
    apart[name] = float((first - second).abs().max() / first.abs().max())
    print(f"{name}: two calls on one picture differ by {apart[name]:.1e} of the largest class logit")
moved = apart.pop("DINOv3, training")
assert moved > 0.01 and set(apart.values()) == {0.0}, (moved, apart)
END
"$work/venv/bin/python" "$work/look.py"
