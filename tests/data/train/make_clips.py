"""The loss over a clip and the gradients of all weights, as autograd finds them through transformers' VidEoMT, for the tests of `train`.

usage: make_clips.py    (beside itself; seen with torch 2.15 and transformers 5.24)

The network is ../videomt/transformers. transformers refuses labels for clips, so the frames go through its own modules one by one, with a prediction
before each block with queries and one after the last; the loss of each is that of its VideomtLoss, with one assignment for the whole clip: an
object is matched (by the cost of VideomtHungarianMatcher) in the first frame that shows it, among the queries that are still free, and its query must say its class and
an empty mask in frames without it. Random points are those of a sequence that the tests repeat. The predictions behind the last block are
compared with the model's own forward pass. Writes clips.json: of each weight about 24 values of its gradient, evenly spread.
"""
import json
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from transformers import VideomtForUniversalSegmentation
from transformers.models.videomt import modeling_videomt as reference

HERE = Path(__file__).parent
FRAMES, POINTS, VALUES = 4, 40, 24
# (class, frames in which the object is, left edge in the first of them): boxes of 8 x 10 pixels that move to the right
OBJECTS = [(2, [0, 1, 2, 3], 1), (0, [1, 2], 10), (4, [0, 3], 14), (3, [2, 3], 4)]


def wave(count, step):
    """The same numbers in any language: sin(step * i)."""
    return torch.sin(torch.arange(count, dtype=torch.float64) * step).float()


class Sequence:
    """Numbers between 0 and 1 in the order in which they are asked for: the fractions of i * golden ratio."""

    def __init__(self):
        self.at = 0

    def __call__(self, *shape, **_):
        count = torch.Size(shape).numel()
        places = torch.arange(self.at + 1, self.at + 1 + count, dtype=torch.float64)
        self.at += count
        return (places * 0.6180339887498949).frac().float().view(shape)


def targets(side):
    masks = torch.zeros(FRAMES, len(OBJECTS), side, side)
    for place, (_, frames, left) in enumerate(OBJECTS):
        for frame in frames:
            x = left + 2 * (frame - frames[0])
            masks[frame, place, 4 + 3 * place : 12 + 3 * place, x : x + 10] = 1.0
    return torch.tensor([kind for kind, _, _ in OBJECTS]), masks


def predictions(model, clip):
    """By place in the network, then by frame: (class logits, mask logits)."""
    config = model.config
    first = config.num_hidden_layers - config.num_blocks
    tokens = model.embeddings(clip)
    for layer in model.layers[:first]:
        tokens = layer(tokens)
    places = [[] for _ in range(config.num_blocks + 1)]
    carried = None
    for frame in range(len(clip)):
        queries = model.query.weight[None]
        if carried is not None:
            queries = model.query_updater(carried) + queries
        state = torch.cat([queries, tokens[frame : frame + 1]], dim=1)
        for place, layer in enumerate([*model.layers[first:], None]):
            masks, classes = model.predict(model.layernorm(state))
            places[place].append((classes, masks))
            if layer is not None:
                state = layer(state)
        carried = state[:, : config.num_queries]
    return places


def assign(model, frames, classes, masks):
    """Pairs (query, object) for the whole clip, by query."""
    weights, pairs = model.weight_dict, []
    for number, (class_logits, mask_logits) in enumerate(frames):
        seen = masks.flatten(2).any(2)
        new = [place for place in range(len(classes)) if seen[number, place] and not seen[:number, place].any()]
        if not new:
            continue
        points = torch.rand(1, POINTS, 2)
        at = lambda plane: reference.sample_point(plane[:, None], points.repeat(len(plane), 1, 1), align_corners=False).squeeze(1)
        ours, theirs = at(mask_logits[0]), at(masks[number, new])
        cost = weights["loss_mask"] * reference.pair_wise_sigmoid_cross_entropy_loss(ours, theirs)
        cost = cost + weights["loss_dice"] * reference.pair_wise_dice_loss(ours, theirs)
        cost = cost - weights["loss_cross_entropy"] * class_logits[0].softmax(-1)[:, classes[new]]
        cost[[query for query, _ in pairs]] = 1e5
        found = zip(*linear_sum_assignment(cost.detach().numpy()))
        taken = {query for query, _ in pairs}
        pairs += [(int(query), new[place]) for query, place in found if int(query) not in taken]
    return sorted(pairs)


def clip_loss(model, places, classes, masks):
    criterion, total, terms = model.criterion, 0.0, []
    count = torch.tensor(float(FRAMES * len(classes)))
    for frames in places:
        pairs = assign(model, frames, classes, masks)
        query, place = (torch.tensor(side) for side in zip(*pairs))
        indices = [(query, place)] * FRAMES
        class_logits = torch.cat([frame[0] for frame in frames])
        losses = criterion.loss_labels(class_logits, [classes] * FRAMES, indices)
        for number, (_, mask_logits) in enumerate(frames):
            # one frame after the other, so that the order of the random points is that of the frames
            for name, value in criterion.loss_masks(mask_logits, [masks[number]], [(query, place)], count).items():
                losses[name] = losses.get(name, 0.0) + value
        terms.append({"pairs": pairs, **{name: float(value.detach()) for name, value in losses.items()}})
        total = total + sum(model.weight_dict[name] * value for name, value in losses.items())
    return total, terms


def main():
    torch.set_num_threads(1)
    model = VideomtForUniversalSegmentation.from_pretrained(HERE.parent / "videomt" / "transformers").eval()
    model.criterion.num_points = POINTS
    side = model.config.image_size
    clip = wave(FRAMES * 3 * side * side, 0.37).view(FRAMES, 3, side, side)
    classes, masks = targets(side)
    places = predictions(model, clip)
    with torch.no_grad():
        whole = model(pixel_values_videos=clip[None])
    torch.testing.assert_close(torch.cat([frame[0] for frame in places[-1]]), whole.class_queries_logits)
    torch.testing.assert_close(torch.cat([frame[1] for frame in places[-1]]), whole.masks_queries_logits)
    torch.rand = Sequence()
    total, terms = clip_loss(model, places, classes, masks)
    total.backward()
    gradients = {}
    for name, weight in model.named_parameters():
        if weight.grad is None or weight.numel() == 0:
            continue
        flat = weight.grad.flatten()
        step = max(1, flat.numel() // VALUES)
        gradients[name] = {"step": step, "largest": float(flat.abs().max()), "values": [float(f"{value:.7g}") for value in flat[::step]]}
    found = {"frames": FRAMES, "points": POINTS, "objects": OBJECTS, "total": float(total.detach()), "terms": terms}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(gradient)}" for name, gradient in gradients.items())
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
    (HERE / "clips.json").write_text(f'{{\n{head},\n"gradients": {{\n{lines}\n}}\n}}\n')


if __name__ == "__main__":
    main()
