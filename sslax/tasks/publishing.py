"""A run as a folder to give away: weights, what they are, and a card that says it to people."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import jax
from ml_collections import ConfigDict

from sslax import paths
from sslax.data.files.text import write_text
from sslax.errors import UserError
from sslax.inference import exported
from sslax.inference.run import Run, open_run, read_state
from sslax.report import run as facts_of_run
from sslax.tasks import tables
from sslax.training import description, sharding, weights
from sslax.types import Depth, Flow, Representation

# What a run learned, in the words of the hub; it has none for flow.
_PIPELINES = {Representation: "image-feature-extraction", Depth: "depth-estimation"}
_USES = {  # images and pairs: uint8, or float in [0, 1]
    Representation: "features = network(images)  # [N, H, W, C] -> [N, D]",
    Depth: "maps = network(images)  # [N, H, W, C] -> maps.depth or maps.disparity, [N, H, W]",
    Flow: "maps = network(pairs)  # [N, 2, H, W, C] -> maps.flow, [N, H, W, 2]",
}
_PREDICTIONS = {Representation: "features.npz", Depth: "maps", Flow: "maps"}


def publish(
    workdir: str | Path, output: str | Path, *, which: str = "latest", license: str = ""
) -> list[Path]:
    """Writes a folder that `sslax.load` reads without the run, and that a model hub takes.

    It has the weights that predictions need, `config.json` and `data.json` without the paths of
    this machine, the results of the evaluation, and `README.md`, a card in the form of Hugging
    Face's hub.

    Args:
        workdir: the run's folder.
        output: the folder to write.
        which: `latest` or `best` checkpoint.
        license: of the weights, such as "apache-2.0"; for the card.

    Returns:
        The files.

    Raises:
        UserError: there is no such run, or the folder cannot be written or has something in it.
    """
    output = paths.expand(output, "--output")
    paths.check_output(output, "--output", folder=True)
    if output.exists() and any(output.iterdir()):
        raise UserError(f"--output={output} is not empty; name another folder.")
    run = open_run(workdir)
    state = jax.device_get(
        read_state(run, sharding.make_mesh(jax.local_devices()[:1]), which=which)
    )
    output.mkdir(parents=True, exist_ok=True)
    described = description.without_places(run.workdir)
    config, step = ConfigDict(described["config"]), int(state.step)
    file = output / exported.file_of(run.plan)
    if file.name == weights.ENCODER:
        shape = run.plan.batch["image"].shape[1:]
        weights.save_encoder(
            file, config, run.plan.method, state.variables, image_shape=shape, step=step
        )
    else:
        weights.save_network(file, config, state.variables, step=step)
    for part, values in described.items():
        write_text(output / f"{part}.json", json.dumps(values, indent=2, sort_keys=True) + "\n")
    results = tables.read_results(run.workdir)
    if results:
        shutil.copy(run.workdir / "results.json", output)
    write_text(output / "README.md", card(output.name, run, step, license, results))
    return sorted(output.iterdir())


def card(name: str, run: Run, step: int, license: str, results: Mapping[str, float] | None) -> str:
    """The text of a model card.

    Args:
        name: of the folder.
        run: what was trained.
        step: after how many steps.
        license: of the weights; "" for none that is known.
        results: of the evaluation, if there was one.
    """
    task = type(run.plan.method.task)
    head = {
        "library_name": "sslax",
        **({"license": license} if license else {}),
        **({"pipeline_tag": _PIPELINES[task]} if task in _PIPELINES else {}),
        "tags": ["self-supervised-learning", "jax", run.config.method.replace("_", "-")],
    }
    facts = facts_of_run.facts(run.workdir) | {"Weights": f"after step {step:,}"}
    rows = [f"| {key} | {value} |" for key, value in facts.items()]
    results = {name: value for name, value in (results or {}).items() if name != "step"}
    numbers = tables.table(results, tables.ALL_SUFFIXES) if results else "It was not evaluated."
    return _CARD.format(
        head="".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items()),
        name=name,
        method=run.config.method,
        rows="\n".join(rows),
        numbers=numbers,
        use=_USES[task],
        predictions=_PREDICTIONS[task],
    )


_CARD = """\
---
{head}---

# {name}

Trained by sslax with `{method}`, without labels unless the method's name says otherwise.

| | |
|---|---|
{rows}

## Numbers

```
{numbers}
```

See docs/evaluation.md and docs/geometric-evaluation.md of sslax for what they mean.

## Use

```python
import sslax

network = sslax.load("{name}")  # this folder
{use}
```

```bash
python -m sslax.predict --weights={name} --input=IMAGES --output={predictions}
```
"""
