#!/usr/bin/env python3
"""Trains the scenes model of 320x320 in PyTorch, for as many minutes as it is given.

usage: train_scenes_model.py OUT MINUTES SCENES... [--start CHECKPOINT] [--dense-minutes N] [--threads N]

SCENES are folders as `eomt-edge scenes` draws them (192x192); CHECKPOINT is in the layout of transformers, with width 192 (`tests/data/nano`). OUT/last.pt lets an interrupted run go
on, OUT/ema is the checkpoint for `eomt-edge convert`: the exponential moving average of the weights. Needs torch, transformers, scipy, safetensors, numpy and pillow; bfloat16 is fast
on CPUs with AMX. Seen with torch 2.15 and transformers 5.24.

What differs from `eomt-edge train` (Mask2Former's loss, as the paper trains): a second head tells the class of each quarter of a patch, from the patch tokens alone. Masks of small
objects are learned soon, their classes are not, and this loss reaches all patches of all pictures instead of 24 queries. The first minutes train it alone; after that a quarter of each
batch has queries and the usual loss too, on all pixels of the masks. The head is thrown away.
"""
import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import nn
from transformers import EomtConfig, EomtForUniversalSegmentation

CLASSES = ["ball", "box", "cone", "star", "ring", "bar", "floor", "wall", "sky"]
THINGS, NOTHING = 6, len(CLASSES)
SIDE, PATCH, LAYERS, WIDTH = 320, 16, 8, 192
GRID, MASK = SIDE // PATCH, SIDE // 4
BATCH, WITH_QUERIES, SEGMENTS = 32, 8, 32
RATE, WARMUP, AVERAGE = 1e-3, 200, 0.998
DENSE, DENSE_BESIDE_QUERIES, CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 4, 10, 4, 5, 5
MEAN, DEVIATION = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def read(folder):
    """Pictures, segments by pixel (0 is none) and their classes, of one folder."""
    described = json.loads((folder / "panoptic.json").read_text())
    names = {category["id"]: CLASSES.index(category["name"]) for category in described["categories"]}  # ids need not begin at 0
    files = {image["id"]: image["file_name"] for image in described["images"]}
    rgb, ids, classes = [], [], []
    for annotation in described["annotations"]:
        rgb.append(np.asarray(Image.open(folder / "images" / files[annotation["image_id"]]).convert("RGB")))
        drawn = np.asarray(Image.open(folder / "panoptic" / annotation["file_name"]).convert("RGB")).astype(int)
        drawn = drawn[..., 0] + 256 * drawn[..., 1]
        here, kinds = np.zeros(drawn.shape, np.uint8), np.full(SEGMENTS, NOTHING, np.uint8)
        for place, segment in enumerate(annotation["segments_info"][: SEGMENTS - 1], 1):
            here[drawn == segment["id"]], kinds[place] = place, names[segment["category_id"]]
        ids.append(here)
        classes.append(kinds)
    return [np.stack(part) for part in (rgb, ids, classes)]


def network(start):
    """Eight blocks; those of `start` are repeated where it has fewer, its positions are resampled."""
    config = json.loads((start / "config.json").read_text())
    before = config["num_hidden_layers"]
    config.update(image_size=SIDE, patch_size=PATCH, num_hidden_layers=LAYERS)
    net = EomtForUniversalSegmentation(EomtConfig(**{k: v for k, v in config.items() if k not in ("transformers_version", "architectures")}))
    from safetensors.torch import load_file

    weights, new = load_file(start / "model.safetensors"), {}
    for key, value in net.state_dict().items():
        source = key
        if key.startswith("layers."):
            layer = int(key.split(".")[1])
            source = key.replace(f"layers.{layer}.", f"layers.{layer * before // LAYERS}.", 1)
        if source in weights and weights[source].shape == value.shape:
            new[key] = weights[source].clone()
        elif key == "embeddings.position_embeddings.weight":
            old = weights[key]
            side = int(len(old) ** 0.5)
            resampled = F.interpolate(old.T.reshape(1, -1, side, side), size=(GRID, GRID), mode="bicubic")
            new[key] = resampled.flatten(2)[0].T.contiguous()
    net.load_state_dict(new, strict=False)
    return net


def sample(data, rng):
    """A batch: pixels, masks [B, SEGMENTS, MASK, MASK], classes, which segments count, and the classes of quarters of patches."""
    rgb, ids, classes = data
    chosen = torch.from_numpy(rng.choice(len(rgb), BATCH, replace=False))
    uniform = lambda low, high, *shape: torch.from_numpy(rng.uniform(low, high, shape)).float()
    scale = torch.where(uniform(0, 1, BATCH) < 0.3, torch.ones(BATCH), uniform(0.85, 1.2, BATCH))
    flip = torch.where(uniform(0, 1, BATCH) < 0.5, -1.0, 1.0)
    place = torch.zeros(BATCH, 2, 3)
    place[:, 0, 0], place[:, 1, 1] = flip / scale, 1 / scale
    room = (1 - 1 / scale).abs()
    place[:, 0, 2], place[:, 1, 2] = uniform(-1, 1, BATCH) * room, uniform(-1, 1, BATCH) * room
    look = lambda values, side, mode: F.grid_sample(values, F.affine_grid(place, (BATCH, 1, side, side), align_corners=False), mode=mode, align_corners=False)
    pixels = look(rgb[chosen].permute(0, 3, 1, 2).float() / 255, SIDE, "bilinear")
    segments = look(ids[chosen].float()[:, None], 2 * MASK, "nearest")[:, 0].long()
    tint = torch.where(uniform(0, 1, BATCH, 1, 1, 1) < 0.5, uniform(0.85, 1.15, BATCH, 3, 1, 1), torch.ones(1))
    pixels = (pixels * tint * uniform(0.8, 1.15, BATCH, 1, 1, 1)).clamp(0, 1)
    if rng.random() < 0.15:
        kind = rng.integers(3)
        if kind == 0:
            pixels = (pixels + torch.randn_like(pixels) * rng.uniform(0.01, 0.08)).clamp(0, 1)
        elif kind == 1:
            pixels = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
        else:
            pixels = pixels * rng.uniform(0.35, 0.8)
    kinds = classes[chosen].long()
    masks = F.avg_pool2d(F.one_hot(segments[:WITH_QUERIES], SEGMENTS).permute(0, 3, 1, 2).float(), 2)
    counts = (kinds[:WITH_QUERIES] != NOTHING) & (masks.sum((2, 3)) > 4)
    by_pixel = kinds.gather(1, segments.flatten(1)).view_as(segments)
    dense = F.avg_pool2d(F.one_hot(by_pixel, NOTHING + 1).permute(0, 3, 1, 2).float(), MASK // GRID)
    dense = dense.view(BATCH, -1, GRID, 2, GRID, 2).permute(0, 2, 4, 3, 5, 1).reshape(BATCH, GRID * GRID, 4, -1)
    return (pixels - MEAN) / DEVIATION, masks, kinds[:WITH_QUERIES], counts, dense


class Trained(nn.Module):
    """transformers' network, whose parts are called in another order, and the second head."""

    def __init__(self, net):
        super().__init__()
        self.net, self.head = net, nn.Linear(WIDTH, 4 * (NOTHING + 1))
        self.joins = LAYERS - net.config.num_blocks
        self.prefix = net.embeddings.num_prefix_tokens

    def run(self, tokens, blocks, queries=False, keep=()):
        if queries:
            tokens = torch.cat([self.net.query.weight[None].expand(len(tokens), -1, -1).to(tokens.dtype), tokens], 1)
        kept = []
        for block in blocks:
            if block in keep:
                kept.append(self.net.layernorm(tokens))
            tokens = self.net.layers[block](tokens)
        return kept, tokens

    def forward(self, pixels, queries, keep):
        """Class logits of quarters of patches; normalized tokens of the pictures that have queries, before the blocks in `keep` and at the end."""
        _, tokens = self.run(self.net.embeddings(pixels), range(self.joins))
        last, kept = range(self.joins, LAYERS), []
        if queries:
            kept, asked = self.run(tokens[:WITH_QUERIES], last, True, keep)
            kept.append(self.net.layernorm(asked))
            plain = self.net.layernorm(self.run(tokens[WITH_QUERIES:], last)[1])
            patches = torch.cat([kept[-1][:, self.net.config.num_queries + self.prefix :], plain[:, self.prefix :]])
        else:
            patches = self.net.layernorm(self.run(tokens, last)[1])[:, self.prefix :]
        return self.head(patches).float().view(BATCH, -1, 4, NOTHING + 1), kept


def query_loss(net, tokens, masks, kinds, counts):
    """Mask2Former's loss with all pixels of the masks as its points."""
    mask_logits, class_logits = net.predict(tokens)
    mask_logits, class_logits, masks = mask_logits.float().flatten(2), class_logits.float(), masks.flatten(2)
    with torch.no_grad():
        chance, pixels = mask_logits.sigmoid(), masks.shape[-1]
        by_pair = (F.softplus(mask_logits).sum(-1)[..., None] - mask_logits @ masks.transpose(1, 2)) / pixels
        dice = 1 - (2 * chance @ masks.transpose(1, 2) + 1) / (chance.sum(-1)[..., None] + masks.sum(-1)[:, None] + 1)
        wanted = kinds[:, None].expand(-1, class_logits.shape[1], -1)
        cost = (MASK_WEIGHT * by_pair + DICE_WEIGHT * dice - 2 * class_logits.softmax(-1).gather(2, wanted)).numpy()
    target, pictures, queries, segments = torch.full(class_logits.shape[:2], NOTHING), [], [], []
    for picture in range(len(cost)):
        places = np.nonzero(counts[picture].numpy())[0]
        rows, columns = linear_sum_assignment(cost[picture][:, places])
        pictures += [picture] * len(rows)
        queries += list(rows)
        segments += list(places[columns])
        target[picture, rows] = kinds[picture, places[columns]]
    ours, theirs, count = mask_logits[pictures, queries], masks[pictures, segments], max(len(pictures), 1)
    mask_loss = F.binary_cross_entropy_with_logits(ours, theirs, reduction="none").mean(1).sum() / count
    chance = ours.sigmoid()
    dice_loss = (1 - (2 * (chance * theirs).sum(1) + 1) / (chance.sum(1) + theirs.sum(1) + 1)).sum() / count
    weights = torch.ones(NOTHING + 1)
    weights[NOTHING] = 0.1
    return MASK_WEIGHT * mask_loss + DICE_WEIGHT * dice_loss + CLASS_WEIGHT * F.cross_entropy(class_logits.flatten(0, 1), target.flatten(), weight=weights)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("minutes", type=float)
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--start", type=Path, default=Path(__file__).parent.parent / "tests/data/nano")
    parser.add_argument("--dense-minutes", type=float, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    model, average = Trained(network(options.start)), network(options.start)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.03}, {"params": vectors, "weight_decay": 0}], lr=RATE, betas=(0.9, 0.99))
    state, step, passed = options.out / "last.pt", 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"]), average.load_state_dict(saved["average"]), optimizer.load_state_dict(saved["optimizer"])
        step, passed = saved["step"], saved["passed"]
    data = [torch.from_numpy(np.concatenate(parts)) for parts in zip(*map(read, options.scenes))]
    print(f"{len(data[0])} pictures", flush=True)
    rng, begin = np.random.default_rng([int(time.time()), step]), time.time() - passed

    def save():
        average.save_pretrained(options.out / "ema")
        everything = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "passed": time.time() - begin}
        torch.save(everything, state.with_suffix(".new"))
        os.replace(state.with_suffix(".new"), state)

    while (share := (time.time() - begin) / (60 * options.minutes)) < 1:
        rate = RATE * min(1, (step + 1) / WARMUP) * (0.49 * (1 + math.cos(math.pi * share)) + 0.02)
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels, masks, kinds, counts, dense = sample(data, rng)
        queries = time.time() - begin >= 60 * options.dense_minutes
        keep = [int(rng.integers(model.joins + 1, LAYERS))]
        with torch.autocast("cpu", torch.bfloat16):
            logits, kept = model(pixels, queries, keep)
        weight = 1 + 3 * dense[..., :THINGS].sum(-1)
        dense_loss = -((F.log_softmax(logits, -1) * dense).sum(-1) * weight).sum() / weight.sum()
        loss = (DENSE_BESIDE_QUERIES if queries else DENSE) * dense_loss
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss + sum(query_loss(model.net, tokens, masks, kinds, counts) for tokens in kept)
        optimizer.zero_grad(set_to_none=True)
        if not torch.isfinite(loss):
            continue
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            part = 1 - min(AVERAGE, (step + 1) / (step + 20))
            torch._foreach_lerp_(list(average.parameters()), list(model.net.parameters()), part)
        if step % 50 == 0:
            print(f"{(time.time() - begin) / 60:.1f} minutes, step {step}: dense loss {dense_loss:.3f}, all {loss:.3f}", flush=True)
        if step % 100 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
