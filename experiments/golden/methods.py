"""Golden steps of tests/methods/test_references.py, from lightly and torch in float64.

    python experiments/golden/methods.py tests/methods/golden/steps.npz

needs torch and lightly, and not this package. Each reference trains a network with a few weights by
plain gradient descent, in the order of the papers' algorithms; what lightly lacks is written out
here from the papers' equations. The output holds the loss of each step, the first gradient, and,
after the last step, the parameters (of runs of several steps) and whatever else the method updates:
each as a vector of a tree's leaves, in the order of their paths.
"""

import copy
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
from lightly.models.utils import normalize_mean_var, patchify, update_momentum  # noqa: E402

RATE = 0.2  # of the gradient descent
FEATURES, HIDDEN, EMBEDDING, PROTOTYPES, TILES = 5, 6, 4, 7, 4


def inputs() -> dict[str, np.ndarray]:
    """What both sides start from; images are [steps, B, V, H, W, C] or without the first axes."""
    rng = np.random.default_rng(5)
    shift = rng.standard_normal((4, 6, 1, 3, 3, 3))
    keys = rng.standard_normal((24, EMBEDDING))
    a, b = np.meshgrid([-10.0, 0.0, 10.0], [-10.0, 0.0, 10.0])
    return {
        "images": shift + rng.standard_normal((4, 6, 2, 3, 3, 3)),
        "local": rng.standard_normal((4, 6, 2, 2, 2, 3)),
        "labels": np.array([0, 1, 0, 2, 0, 1]),
        "queue": keys / np.linalg.norm(keys, axis=1, keepdims=True),
        "square": rng.uniform(0, 1, (2, 4, 8, 8, 3)),
        "region": rng.integers(0, 2, (4, 4, 4)).astype(float),  # hidden
        "patches": rng.standard_normal((3, 4, 3, 3, 3)),  # of 3 images: 2 pairs, or 4 tiles
        "direction": rng.integers(0, 8, (3, 2)),
        "order": np.array([5, 0, 2]),
        "cell": rng.integers(0, 4, (3, 4)),
        "lightness": rng.uniform(0, 1, (2, 4, 3, 3, 1)),
        "ab": rng.uniform(-15, 15, (2, 4, 2, 2, 2)),
        "colored": np.array([[True, True, False, True], [False, True, True, True]]),
        "bins": np.stack([a.ravel(), b.ravel()], 1),
        "keep": np.array([[0, 3], [1, 2], [2, 3], [0, 1]]),  # of 4 patches of 2 x 2 pixels
    }


def weights() -> dict[str, dict[str, np.ndarray]]:
    """Parts of networks: leaves by path, kernels [inputs, outputs] and [height, width, in, out]."""
    rng = np.random.default_rng(6)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) * 0.6

    def linear(*shape: int) -> dict[str, np.ndarray]:
        return {"kernel": normal(*shape), "bias": 0.3 * normal(shape[-1])}

    def perceptron(inputs: int, outputs: int) -> dict[str, np.ndarray]:
        layers = enumerate([(inputs, HIDDEN), (HIDDEN, outputs)], start=1)
        return {f"{name}{i}": x for i, shape in layers for name, x in linear(*shape).items()}

    def normalized(inputs: int, outputs: int) -> dict[str, np.ndarray]:
        return {
            "linear1/kernel": normal(inputs, HIDDEN),
            "bn1/scale": 1 + 0.3 * normal(HIDDEN),
            "bn1/bias": 0.3 * normal(HIDDEN),
            "linear2/kernel": normal(HIDDEN, outputs),
        }

    return {
        "encoder": linear(2, 2, 3, FEATURES),
        "projector": perceptron(FEATURES, EMBEDDING),
        "predictor": perceptron(EMBEDDING, EMBEDDING),
        "norm_projector": normalized(FEATURES, EMBEDDING),
        "norm_predictor": normalized(EMBEDDING, EMBEDDING),
        "prototypes": {"kernel": normal(EMBEDDING, PROTOTYPES)},
        "dino_projector": perceptron(FEATURES, EMBEDDING),
        "dino_prototypes": {"kernel": normal(EMBEDDING, PROTOTYPES)},
        "rotation": linear(FEATURES, 4),
        "context_prediction": linear(2 * FEATURES, 8),
        "jigsaw": linear(TILES * FEATURES, 6),
        "absolute_location": linear(FEATURES, 4),
        "painter": linear(FEATURES, 4 * 4 * 3),
        "critic": {
            "kernel1": normal(4 * 4 * 3, HIDDEN),
            "bias1": 0.3 * normal(HIDDEN),
            "kernel2": normal(HIDDEN, 1),
            "bias2": normal(1),
        },
        "gray_encoder": linear(2, 2, 1, FEATURES),
        "colorizer": linear(FEATURES, 9),
        "patch_encoder": {**linear(12, FEATURES), "position": normal(4, FEATURES)},
        "patch_decoder": {**linear(FEATURES, 12), "position": normal(4, FEATURES)},
    }


GIVEN = {name: torch.tensor(array) for name, array in inputs().items()}
WEIGHTS = weights()


class Run:
    """A network trained by plain gradient descent, and its recorded values."""

    def __init__(self, **parts: str) -> None:
        """Parts by the name that the method gives them, and by their name in `WEIGHTS`."""
        self.parts = torch.nn.ModuleDict(
            {
                part: torch.nn.ParameterDict(
                    {leaf: torch.tensor(array) for leaf, array in WEIGHTS[name].items()}
                )
                for part, name in parts.items()
            }
        )
        self.losses: list[float] = []
        self.first: dict[str, torch.Tensor] = {}

    def __getitem__(self, part: str) -> torch.nn.ParameterDict:
        return self.parts[part]

    def named(self) -> dict[str, torch.Tensor]:
        return paths(self.parts)

    def gradients(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        named = self.named()
        knobs = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
        return dict(zip(named, torch.autograd.grad(loss, [*named.values()], **knobs)))

    def step(self, loss: torch.Tensor, gradients: dict | None = None, *, still: str = "") -> None:
        """One step; `still` names a leaf that is not updated, as where its gradient is dropped."""
        gradients = gradients or self.gradients(loss)
        gradients = {k: 0 * g if still and still in k else g for k, g in gradients.items()}
        with torch.no_grad():
            for path, parameter in self.named().items():
                parameter -= RATE * gradients[path]
        self.losses.append(loss.item())
        self.first = self.first or gradients

    def record(self, **state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """The results; `state` holds whatever else was updated, as trees of leaves by path."""
        kept = {"loss": np.array(self.losses), "gradient": vector(self.first)}
        if len(self.losses) > 1:
            kept["parameters"] = vector(self.named())
        return kept | {name: vector(leaves) for name, leaves in state.items()}


def paths(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.replace(".", "/"): leaf for name, leaf in module.named_parameters()}


def vector(leaves: dict[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([leaves[path].detach().numpy().ravel() for path in sorted(leaves)])


def encode(p, images):
    """Features [N, D] of images [N, H, W, C], and their map [N, h, w, D]."""
    stage = torch.tanh(F.conv2d(images.movedim(-1, 1), p["kernel"].permute(3, 2, 0, 1), p["bias"]))
    return stage.mean((2, 3)), stage.movedim(1, -1)


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


def perceptron(p, x):
    return F.relu(x @ p["kernel1"] + p["bias1"]) @ p["kernel2"] + p["bias2"]


def cosines(kernel, x):
    return F.normalize(x, dim=1) @ F.normalize(kernel, dim=0)


def embed(parts, images):
    """Projections of one view."""
    return perceptron(parts["projector"], encode(parts["encoder"], images)[0])


def views(step: int) -> list[torch.Tensor]:
    return list(GIVEN["images"][step].unbind(1))


# Methods of two views.


def simclr():
    run = Run(encoder="encoder", projector="projector")
    a, b = (embed(run, x) for x in views(0))
    run.step(lightly.NTXentLoss(temperature=0.5)(a, b))
    return run.record()


def sup_con():
    """The sum over anchors and positives, pair by pair."""
    run = Run(encoder="encoder", projector="projector")
    z = torch.cat([F.normalize(embed(run, x), dim=1) for x in views(0)])
    labels = GIVEN["labels"].repeat(2)
    total = 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        positives = [j for j in others if labels[j] == labels[i]]
        denominator = sum(torch.exp(z[i] @ z[j] / 0.5) for j in others)
        logs = [torch.log(torch.exp(z[i] @ z[j] / 0.5) / denominator) for j in positives]
        total = total - sum(logs) / len(logs)
    run.step(total / len(z))
    return run.record()


def barlow_twins():
    run = Run(encoder="encoder", projector="projector")
    a, b = (embed(run, x) for x in views(0))
    # Some versions of lightly divide the variances by N - 1 and the products by N; 1.6 both by N.
    run.step(0.25 * lightly.BarlowTwinsLoss(lambda_param=0.01)(a, b))
    return run.record()


def vicreg():
    run = Run(encoder="encoder", projector="projector")
    a, b = (embed(run, x) for x in views(0))
    run.step(lightly.VICRegLoss(lambda_param=20.0, mu_param=15.0, nu_param=2.0)(a, b))
    return run.record()


def simsiam():
    run = Run(encoder="encoder", projector="projector", predictor="predictor")
    a, b = (embed(run, x) for x in views(0))
    p, q = (perceptron(run["predictor"], z) for z in (a, b))
    cosine = lightly.NegativeCosineSimilarity()
    run.step((cosine(p, b.detach()) + cosine(q, a.detach())) / 2)
    return run.record()


def momentum_copy(run, *parts):
    parts = ("encoder", "projector", *parts)
    return copy.deepcopy(torch.nn.ModuleDict({k: run[k] for k in parts}))


def move(run, target, momentum):
    for part in target:
        update_momentum(run[part], target[part], momentum)


def target_leaves(target):
    return {f"momentum/params/{path}": leaf for path, leaf in paths(target).items()}


def byol():
    run = Run(encoder="encoder", projector="projector", predictor="predictor")
    target = momentum_copy(run)
    for step in range(3):
        first, second = views(step)

        def distance(online, other):
            prediction = F.normalize(perceptron(run["predictor"], embed(run, online)), dim=1)
            with torch.no_grad():
                projection = F.normalize(embed(target, other), dim=1)
            return ((prediction - projection) ** 2).sum(1).mean()

        run.step(distance(first, second) + distance(second, first))
        move(run, target, 0.8)
    return run.record(extra=target_leaves(target))


def moco():
    """Keys are computed after the update of the momentum encoder; the queue is a ring buffer."""
    run = Run(encoder="encoder", projector="projector")
    target = momentum_copy(run)
    loss = lightly.NTXentLoss(temperature=0.3, memory_bank_size=(12, EMBEDDING))
    loss.memory_bank.bank = GIVEN["queue"][:12].clone()
    for step in range(3):
        move(run, target, 0.8)
        queries, keys = views(step)
        with torch.no_grad():
            keys = embed(target, keys)
        run.step(loss(embed(run, queries), keys))
    move(run, target, 0.8)
    return run.record(extra={"queue": loss.memory_bank.bank, **target_leaves(target)})


def moco_symmetric():
    """Both views' queries use the same queue, which is then filled with the keys of both."""
    run = Run(encoder="encoder", projector="projector")
    target = momentum_copy(run)
    queue = GIVEN["queue"].clone()  # two batches of both views
    for step in range(3):
        move(run, target, 0.8)
        queries = [F.normalize(embed(run, x), dim=1) for x in views(step)]
        with torch.no_grad():
            keys = [F.normalize(embed(target, x), dim=1) for x in views(step)]
        total = 0.0
        for q, k in zip(queries, keys[::-1]):
            logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.3
            total = total + F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long)) / 2
        run.step(total)
        place = step % 2 * 12  # of image i: the keys of its second and of its first view
        queue[place : place + 12] = torch.stack(keys[::-1], 1).reshape(12, EMBEDDING)
    move(run, target, 0.8)
    return run.record(extra={"queue": queue, **target_leaves(target)})


def moco_v3():
    """A step begins by updating the momentum encoder, with the momentum of that step."""
    run = Run(encoder="encoder", projector="projector", predictor="predictor")
    target = momentum_copy(run)
    temperature = 0.3

    def contrast(queries, keys):
        logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / temperature
        return 2 * temperature * F.cross_entropy(logits, torch.arange(len(queries)))

    def momentum(step):
        return 1 - 0.4 / (1 + step)

    for step in range(3):
        move(run, target, momentum(step))
        queries = [perceptron(run["predictor"], embed(run, x)) for x in views(step)]
        with torch.no_grad():
            keys = [embed(target, x) for x in views(step)]
        run.step(contrast(queries[0], keys[1]) + contrast(queries[1], keys[0]))
    move(run, target, momentum(3))
    return run.record(extra=target_leaves(target))


def swav_scores(run, images):
    embeddings = embed(run, images)
    return embeddings, cosines(run["prototypes"]["kernel"], embeddings)


def swav():
    """Two small crops beside the large ones; the prototypes are frozen in the first step."""
    run = Run(encoder="encoder", projector="projector", prototypes="prototypes")
    loss = lightly.SwaVLoss(temperature=0.2, sinkhorn_iterations=3, sinkhorn_epsilon=0.1)
    for step in range(2):
        large = [swav_scores(run, x)[1] for x in views(step)]
        small = [swav_scores(run, x)[1] for x in GIVEN["local"][step].unbind(1)]
        run.step(loss(large, small).sum(), still="prototypes" if step < 1 else "")
    return run.record()


def swav_queue():
    """The queue holds two batches and is used once it is full."""
    run = Run(encoder="encoder", projector="projector", prototypes="prototypes")
    loss = lightly.SwaVLoss(temperature=0.2, sinkhorn_iterations=3, sinkhorn_epsilon=0.1)
    earlier: list[list[torch.Tensor]] = []  # embeddings of each view, the last step's last
    for step in range(4):
        embeddings, scores = zip(*(swav_scores(run, x) for x in views(step)))
        queue = None
        if step >= 2:
            queue = [
                cosines(run["prototypes"]["kernel"], torch.cat([batch[view] for batch in earlier]))
                for view in range(2)
            ]
        run.step(loss(list(scores), [], queue).sum())
        earlier = [*earlier, [z.detach() for z in embeddings]][-2:]
    # Batches 2 and 3 lie where 0 and 1 lay.
    return run.record(extra={"queue": torch.cat([torch.stack(z, 1) for z in earlier])})


def dino():
    """The last layer is frozen in the first step; the teacher's temperature rises."""
    run = Run(encoder="encoder", projector="dino_projector", prototypes="dino_prototypes")
    target = momentum_copy(run, "prototypes")
    loss = lightly.DINOLoss(PROTOTYPES, student_temp=0.25, center_momentum=0.7).double()

    def logits(parts, images):
        return cosines(parts["prototypes"]["kernel"], embed(parts, images))

    for step in range(3):
        crops = [*views(step), *GIVEN["local"][step].unbind(1)]
        student = [logits(run, x) for x in crops]
        with torch.no_grad():
            teacher = [logits(target, x) for x in views(step)]
        value = loss(teacher, student, teacher_temp=2.0**step / 16)
        run.step(value, still="prototypes" if step < 1 else "")
        move(run, target, 0.8)
    return run.record(extra={"center": loss.center.flatten(), **target_leaves(target)})


# Heads with batch norm.


class Norms:
    """Batch norm of each view by itself, or of all views together, and the running statistics.

    These move by a tenth towards the means over the views; the variance divides by N.
    """

    def __init__(self, together: bool = False) -> None:
        self.together, self.running = together, {}

    def head(self, p, name, xs):
        xs = [x @ p["linear1/kernel"] for x in xs]
        groups = [torch.cat(xs)] if self.together else xs
        found = {
            "mean": torch.stack([x.mean(0) for x in groups]).mean(0),
            "var": torch.stack([x.var(0, correction=0) for x in groups]).mean(0),
        }
        for kind, start in (("mean", 0.0), ("var", 1.0)):
            path = f"{name}/batch_stats/bn1/{kind}"
            old = self.running.get(path, torch.full((HIDDEN,), start).double())
            self.running[path] = 0.9 * old + 0.1 * found[kind].detach()

        def normalize(x):
            return F.batch_norm(x, None, None, p["bn1/scale"], p["bn1/bias"], training=True)

        xs = list(normalize(torch.cat(xs)).chunk(2)) if self.together else map(normalize, xs)
        return [F.relu(x) @ p["linear2/kernel"] for x in xs]


def simclr_norm():
    run, norms = Run(encoder="encoder", projector="norm_projector"), Norms(together=True)
    features = [encode(run["encoder"], x)[0] for x in views(0)]
    a, b = norms.head(run["projector"], "projector", features)
    run.step(lightly.NTXentLoss(temperature=0.5)(a, b))
    return run.record(model_state=norms.running)


def byol_norm():
    run = Run(encoder="encoder", projector="norm_projector", predictor="norm_predictor")
    target, online, slow = momentum_copy(run), Norms(), Norms()
    cosine = lightly.NegativeCosineSimilarity()
    for step in range(2):
        features = [encode(run["encoder"], x)[0] for x in views(step)]
        projections = online.head(run["projector"], "projector", features)
        p, q = online.head(run["predictor"], "predictor", projections)
        with torch.no_grad():
            features = [encode(target["encoder"], x)[0] for x in views(step)]
            a, b = slow.head(target["projector"], "projector", features)
        run.step(4 + 2 * cosine(p, b) + 2 * cosine(q, a))
        move(run, target, 0.8)
    statistics = {f"momentum/model_state/{path}": leaf for path, leaf in slow.running.items()}
    extra = {**target_leaves(target), **statistics}
    return run.record(extra=extra, model_state=online.running)


# Tasks.


def rotation():
    """All images turned k times form batch k of label k; k = 1 brings the right side to the top."""
    run = Run(encoder="encoder", classifier="rotation")
    upright = GIVEN["images"][0, :, 0]
    total = 0.0
    turned = upright
    for k in range(4):
        logits = linear(run["classifier"], encode(run["encoder"], turned)[0])
        total = total + F.cross_entropy(logits, torch.full((len(upright),), k)) / 4
        turned = turned.transpose(1, 2).flip(1)  # rows become columns, the last of them first
    run.step(total)
    return run.record()


def context_prediction():
    run = Run(encoder="encoder", classifier="context_prediction")
    total = 0.0
    for patches, directions in zip(GIVEN["patches"], GIVEN["direction"]):
        for pair, direction in zip((patches[:2], patches[2:]), directions):
            first, second = encode(run["encoder"], pair)[0]
            logits = linear(run["classifier"], torch.cat([first, second]))
            total = total + F.cross_entropy(logits, direction) / GIVEN["direction"].numel()
    run.step(total)
    return run.record()


def jigsaw():
    run = Run(encoder="encoder", classifier="jigsaw")
    total = 0.0
    for tiles, order in zip(GIVEN["patches"], GIVEN["order"]):
        mean = tiles.mean((1, 2), keepdim=True)
        tiles = (tiles - mean) / tiles.std((1, 2), keepdim=True, correction=0)
        logits = linear(run["classifier"], encode(run["encoder"], tiles)[0].flatten())
        total = total + F.cross_entropy(logits, order) / len(GIVEN["order"])
    run.step(total)
    return run.record()


def absolute_location():
    run = Run(encoder="encoder", classifier="absolute_location")
    logits = linear(run["classifier"], encode(run["encoder"], GIVEN["patches"].flatten(0, 1))[0])
    run.step(F.cross_entropy(logits, GIVEN["cell"].flatten()))
    return run.record()


def paint(run, images):
    features = encode(run["encoder"], images)[1].mean((1, 2))
    return linear(run["decoder"], features).reshape(-1, 4, 4, 3)


def adversaries(run, painting, real, squared_error):
    """One step of the generator and of the critic, each on the gradient of its own loss."""

    def cross_entropy(images, label):
        logits = perceptron(run["discriminator"], images.flatten(1))
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    w = 0.3
    painter = (1 - w) * squared_error + w * cross_entropy(painting, 1.0)
    critic = (cross_entropy(real, 1.0) + cross_entropy(painting.detach(), 0.0)) / 2
    of_painter, of_critic = run.gradients(painter), run.gradients(critic)
    gradients = {k: of_critic[k] if "discriminator" in k else g for k, g in of_painter.items()}
    run.step(painter + critic, gradients)


def inpainting():
    """A hole of 2 x 2 pixels in a predicted square of 4 x 4, whose border is weighted ten times."""
    run = Run(encoder="encoder", decoder="painter", discriminator="critic")
    weight = torch.full((4, 4, 1), 10.0).double()
    weight[1:3, 1:3] = 1.0
    for images in GIVEN["square"]:
        real, seen = images[:, 2:6, 2:6], images.clone()
        seen[:, 3:5, 3:5] = torch.tensor([0.5, 0.25, 0.75]).double()
        painting = paint(run, seen)
        mean = (weight * (painting - real) ** 2).sum() / (len(images) * 3 * weight.sum())
        adversaries(run, painting, real, mean)
    return run.record()


def inpainting_region():
    """The decoder predicts the whole image; visible pixels are then put back."""
    run = Run(encoder="encoder", decoder="painter", discriminator="critic")
    real, hidden = GIVEN["square"][0, :, :4, :4], GIVEN["region"][..., None]
    painting = hidden * paint(run, (1 - hidden) * real) + (1 - hidden) * real
    adversaries(run, painting, real, ((painting - real) ** 2).sum() / (3 * hidden.sum()))
    return run.record()


def colorization():
    run = Run(encoder="gray_encoder", decoder="colorizer")
    bins = GIVEN["bins"]
    prior = torch.full((len(bins),), 1 / len(bins), dtype=torch.float64)
    for images, ab, colored in zip(GIVEN["lightness"], GIVEN["ab"], GIVEN["colored"]):
        logits = linear(run["decoder"], encode(run["encoder"], images)[1])
        balance = 1 / (0.6 * prior + 0.4 / len(bins))
        balance = balance / (prior * balance).sum()
        losses, targets = [], []
        for n in range(len(ab)):
            for place in np.ndindex(2, 2) if colored[n] else ():
                distances = ((bins - ab[n][place]) ** 2).sum(1)
                target = torch.exp(-distances / (2 * 5.0**2))
                target[distances.argsort()[3:]] = 0.0
                target = target / target.sum()
                cross_entropy = -(target * F.log_softmax(logits[n][place], dim=0)).sum()
                losses.append(balance[distances.argmin()] * cross_entropy)
                targets.append(target)
        run.step(torch.stack(losses).mean())
        prior = 0.8 * prior + 0.2 * torch.stack(targets).mean(0)
    return run.record(extra={"prior": prior})


def mae(normalize=True):
    run = Run(encoder="patch_encoder", decoder="patch_decoder")
    images, keep = GIVEN["square"][0, :, :4, :4], GIVEN["keep"]
    patches = patchify(images.movedim(-1, 1), 2)
    targets = normalize_mean_var(patches) if normalize else patches
    errors = []
    for n in range(len(images)):
        tokens = linear(run["encoder"], patches[n, keep[n]]) + run["encoder"]["position"][keep[n]]
        context = torch.tanh(tokens).mean(0)
        pixels = linear(run["decoder"], torch.tanh(context + run["decoder"]["position"]))
        hidden = [t for t in range(4) if t not in keep[n]]
        errors.append(F.mse_loss(pixels[hidden], targets[n, hidden]))
    run.step(sum(errors) / len(errors))
    return run.record()


def main(path: str) -> None:
    references = {
        "simclr": simclr,
        "simclr_norm": simclr_norm,
        "sup_con": sup_con,
        "barlow_twins": barlow_twins,
        "vicreg": vicreg,
        "simsiam": simsiam,
        "byol": byol,
        "byol_norm": byol_norm,
        "moco": moco,
        "moco_symmetric": moco_symmetric,
        "moco_v3": moco_v3,
        "swav": swav,
        "swav_queue": swav_queue,
        "dino": dino,
        "rotation": rotation,
        "context_prediction": context_prediction,
        "jigsaw": jigsaw,
        "absolute_location": absolute_location,
        "inpainting": inpainting,
        "inpainting_region": inpainting_region,
        "colorization": colorization,
        "mae": mae,
        "mae_pixels": lambda: mae(normalize=False),
    }
    arrays = {f"inputs {name}": array for name, array in inputs().items()}
    for name, leaves in WEIGHTS.items():
        arrays |= {f"weights {name}/{leaf}": array for leaf, array in leaves.items()}
    for name, reference in references.items():
        kept = reference()
        arrays |= {f"{name} {what}": array for what, array in kept.items()}
        print(name, kept["loss"], {k: (v.size, np.abs(v).max()) for k, v in kept.items()})
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
