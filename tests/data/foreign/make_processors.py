"""What transformers' EomtImageProcessor makes of pixel levels under configurations of all kinds: processors.json.

pip install torch==2.15.0 transformers==5.24.0 torchvision pillow
python3 make_processors.py
"""

import json
import pathlib
import tempfile

import numpy
from transformers import EomtImageProcessor

HERE = pathlib.Path(__file__).parent
SIZE = {"shortest_edge": 2, "longest_edge": 2}
CASES = [
    ("preprocessor_config.json", {}),
    ("preprocessor_config.json", {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}),
    ("preprocessor_config.json", {"image_mean": 0.5, "image_std": 0.25}),
    ("preprocessor_config.json", {"do_normalize": False}),
    ("preprocessor_config.json", {"do_normalize": False, "do_rescale": False}),
    ("preprocessor_config.json", {"do_normalize": False, "rescale_factor": 1 / 127.5}),
    ("preprocessor_config.json", {"do_rescale": False, "image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]}),
    ("preprocessor_config.json", {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]}),
    ("processor_config.json", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}),
]
# four pixels whose three channels are all different
LEVELS = [[0, 1, 2], [64, 100, 127], [128, 200, 250], [255, 254, 253]]


def main():
    picture = numpy.array(LEVELS, dtype=numpy.uint8).reshape(2, 2, 3)
    cases = []
    for file, settings in CASES:
        settings = {"image_processor_type": "EomtImageProcessor", "size": SIZE, "do_pad": True, **settings}
        text = json.dumps({"image_processor": settings, "processor_class": "Some"} if file == "processor_config.json" else settings)
        with tempfile.TemporaryDirectory() as directory:
            pathlib.Path(directory, file).write_text(text)
            processor = EomtImageProcessor.from_pretrained(directory)
        values = processor(images=picture, return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
        cases.append({"file": file, "text": text, "levels": LEVELS, "values": values.reshape(3, 4).T.astype(float).tolist()})
    (HERE / "processors.json").write_text(json.dumps(cases, indent=1) + "\n")


main()
