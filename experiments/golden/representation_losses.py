"""Golden values of the representation losses in tests/losses, from lightly and torch in float64.

    python experiments/golden/representation_losses.py tests/losses/golden/representation.npz

needs torch and lightly, and not this package. Losses that lightly lacks are written out here from
their equations, pair by pair.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F

# Some builds of torchvision come without their compiled detection operators, and without their
# declarations its import fails; nothing here uses them.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lightly import loss as lightly  # noqa: E402
from lightly.loss.swav_loss import sinkhorn  # noqa: E402

EXAMPLES, DIMENSIONS, QUEUE, PROTOTYPES = 6, 5, 7, 4


def inputs() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(11)
    a = rng.standard_normal((EXAMPLES, DIMENSIONS))
    arrays = {
        "a": a,
        "b": a + rng.standard_normal((EXAMPLES, DIMENSIONS)),
        "queue": rng.standard_normal((QUEUE, DIMENSIONS)),
        "scores": rng.uniform(-1, 1, (EXAMPLES, 3, PROTOTYPES)),
        "queue_scores": rng.uniform(-1, 1, (QUEUE, 2, PROTOTYPES)),
        "center": rng.standard_normal(DIMENSIONS),
        "hidden": rng.integers(0, 2, (2, 3)).astype(float),
    }
    return {name: torch.tensor(array) for name, array in arrays.items()}


def info_nce(queries, keys, negatives, temperature):
    queries, keys, negatives = (F.normalize(x, dim=1) for x in (queries, keys, negatives))
    positive = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([positive, queries @ negatives.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(queries), dtype=torch.long))


def info_nce_batch(queries, keys, temperature):
    logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / temperature
    return F.cross_entropy(logits, torch.arange(len(queries)))


def sup_con(embeddings, labels, temperature):
    z = F.normalize(embeddings, dim=1)
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        denominator = sum(torch.exp(z[i] @ z[j] / temperature) for j in others)
        positives = [j for j in others if labels[j] == labels[i]]
        logs = [torch.log(torch.exp(z[i] @ z[j] / temperature) / denominator) for j in positives]
        losses.append(-sum(logs) / len(logs) if logs else 0 * denominator)
    return torch.stack(losses).mean()


def sigmoid_contrastive(a, b, temperature, bias):
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    total = 0
    for i in range(len(a)):
        for j in range(len(b)):
            sign = 1 if i == j else -1
            total = total - F.logsigmoid(sign * (a[i] @ b[j] / temperature + bias))
    return total / len(a)


def dino(student, teacher, center):
    loss = lightly.DINOLoss(student.shape[1], teacher_temp=0.07, student_temp=0.2).double()
    loss.center.data[:] = center
    # The pair of the first views is left out; the student's first view is there for that alone.
    return loss([teacher.detach()], [torch.zeros_like(student), student])


def swav(scores, queue):
    views, earlier = list(scores.unbind(1)), list(queue.unbind(1))
    return lightly.SwaVLoss(0.1, 3, 0.05)(views[:2], views[2:], earlier).sum()


def masked(predictions, targets, hidden):
    mean, variance = targets.mean(-1, keepdim=True), targets.var(-1, keepdim=True)
    errors = ((predictions - (targets - mean) / (variance + 1e-6) ** 0.5) ** 2).mean(-1)
    return (errors * hidden).sum() / hidden.sum()


def value_and_gradients(function, *arguments):
    arguments = [x.detach().clone().requires_grad_() for x in arguments]
    value = function(*arguments)
    gradients = torch.autograd.grad(value, arguments, allow_unused=True, materialize_grads=True)
    return [x.detach().numpy() for x in (value, *gradients)]


def main(path: str) -> None:
    given = inputs()
    a, b = given["a"], given["b"]
    labels = torch.tensor([0, 1, 0, 2, 0, 1])
    center, hidden = given["center"], given["hidden"]
    cases = {
        "nt_xent": (lightly.NTXentLoss(temperature=0.2), a, b),
        "decoupled_contrastive": (lightly.DCLLoss(temperature=0.2), a, b),
        "decoupled_contrastive_weighted": (lightly.DCLWLoss(temperature=0.2, sigma=0.4), a, b),
        "info_nce": (lambda a, b: info_nce_batch(a, b, 0.2), a, b),
        "info_nce_queue": (lambda a, b, q: info_nce(a, b, q, 0.2), a, b, given["queue"]),
        "sup_con": (lambda a: sup_con(a, labels, 0.2), a),
        "sigmoid_contrastive": (lambda a, b: sigmoid_contrastive(a, b, 0.2, -3.0), a, b),
        "triplet": (torch.nn.TripletMarginLoss(eps=0.0), a, b, a.flip(0)),
        "barlow_twins": (lightly.BarlowTwinsLoss(), a, b),
        "vicreg": (lightly.VICRegLoss(), a, b),
        "negative_cosine": (lightly.NegativeCosineSimilarity(), a, b),
        "distillation_cross_entropy": (lambda s, t: dino(s, t, center), a, b),
        "swapped_prediction": (swav, given["scores"], given["queue_scores"]),
        "masked_reconstruction": (
            lambda p, t: masked(p, t, hidden),
            a.reshape(2, 3, DIMENSIONS),
            b.reshape(2, 3, DIMENSIONS),
        ),
    }
    arrays = {name: value.numpy() for name, value in given.items()} | {"labels": labels.numpy()}
    for name, (function, *arguments) in cases.items():
        value, *gradients = value_and_gradients(function, *arguments)
        arrays[name] = value
        for i, gradient in enumerate(gradients):
            arrays[f"{name}_gradient_{i}"] = gradient
    arrays["sinkhorn"] = sinkhorn(given["scores"][:, 0], iterations=3, epsilon=0.05).numpy()
    np.savez_compressed(path, **arrays)
    print({name: arrays[name].item() for name in cases})


if __name__ == "__main__":
    main(sys.argv[1])
