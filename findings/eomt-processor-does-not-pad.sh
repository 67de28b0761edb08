#!/usr/bin/env bash
# transformers 5.24.0: the image processor of EoMT does not pad by default, and the network of EoMT takes one size only.
#
# One would guess that `EomtImageProcessor()` makes what `EomtForUniversalSegmentation(EomtConfig())` takes: both say 640. A picture
# of 640x480 becomes 480x640 pixel values (`do_pad` is false unless a checkpoint's file says otherwise, as the published ones for
# panoptic and instance segmentation do), which are 1200 patches for a table of 1600 positions: "The size of tensor a (1200) must
# match the size of tensor b (1600)". Who fine-tunes on square crops and saves the processor as it is ships a `do_pad` of false.
# eomt-edge always pads, and names the setting.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q transformers==5.24.0 numpy==2.3.5 pillow==12.0.0
"$work/venv/bin/python" - <<'PYTHON'
import numpy
from transformers.models.eomt.configuration_eomt import EomtConfig
from transformers.models.eomt.image_processing_pil_eomt import EomtImageProcessorPil

processor, config = EomtImageProcessorPil(), EomtConfig()
picture = numpy.zeros((480, 640, 3), dtype=numpy.uint8)
values = numpy.asarray(processor(images=picture, return_tensors="np")["pixel_values"])
patches = values.shape[-2] // config.patch_size * (values.shape[-1] // config.patch_size)
positions = (config.image_size // config.patch_size) ** 2
print(f"do_pad {processor.do_pad}: a 640x480 picture becomes {list(values.shape)}, {patches} patches for {positions} positions")
assert processor.do_pad is False and values.shape[-2:] == (480, 640) and patches != positions
PYTHON
