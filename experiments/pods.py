"""What the configs of a paper's scale take on TPU pods and on eight H100s that are not here.

    python experiments/pods.py --output=pods.jsonl [--only CONFIG ...] [--topologies NAME ...]
    python experiments/pods.py --output=pods.jsonl --topologies h100:8 --target-config=FILE
    python experiments/pods.py --output=pods.jsonl --table

Compiles each step as `python -m sslax.plan` does and appends a line to the output. Rows already in
it are skipped, so that an interrupted run goes on. A batch that the chips do not divide is rounded
down. JAX_OPTIMIZATION_LEVEL=O1 in the environment compiles several times faster, with the same
collectives and slower code; a row says which level it is of. `--table` prints the table of
experiments/README.md.
"""

import argparse
import json
import os
import runpy
import time
from pathlib import Path

import jax

from sslax.errors import UserError
from sslax.planning import hlo
from sslax.planning.contents import contents_of
from sslax.planning.measure import measure
from sslax.planning.report import verdict
from sslax.planning.topologies import find

CONFIGS = Path(__file__).parents[1] / "configs"
TOPOLOGIES = ("v5e:8x16", "v5p:4x4x2", "v6e:4x8", "h100:8")
PAPERS = ("imagenet", "kitti", "chairs", "sintel")  # variants, up to the first underscore


def names() -> list[str]:
    """The configs of a paper's scale: METHOD:VARIANT."""
    found = []
    for file in sorted(CONFIGS.glob("*.py")):
        variants = runpy.run_path(str(file))["VARIANTS"]
        found += [f"{file.stem}:{v}" for v in variants if v.partition("_")[0] in PAPERS]
    return found


def row(name: str, topology_name: str, target_config: str) -> dict:
    """The figures of a config on a topology, or the error in the way."""
    method, _, variant = name.partition(":")
    config = runpy.run_path(str(CONFIGS / f"{method}.py"))["get_config"](variant)
    topology = find(topology_name, target_config=target_config)
    count = len(topology.devices)
    config.batch_size = max(config.batch_size // count, 1) * count
    if "teacher_from" in config.get(method, {}):
        return {"error": "starts from the weights of another run"}
    try:
        found = measure(config, contents_of(config, variant), topology)
    except (UserError, jax.errors.JaxRuntimeError) as error:
        return {"error": str(error).splitlines()[0]}
    memory, estimate = found.memory, found.estimate
    return {
        "batch": config.batch_size,
        "devices": count,
        "parameters": found.parameters,
        "peak": memory and memory.peak,
        "limit": memory and memory.limit,
        "operations": found.operations,
        "images_per_second": estimate and config.batch_size / estimate.seconds,
        "bound": estimate and estimate.bound,
        "collectives": hlo.totals(found.collectives),
        "sent": found.sent,
        "verdict": verdict(config, found).splitlines()[0],
        "compile_seconds": round(sum(found.seconds)),
    }


def table(rows: list[dict]) -> str:
    """Markdown."""
    head = ("config", "chips", "level", "batch a chip", "peak GiB", "TFLOP a chip")
    lines = ["| " + " | ".join([*head, "images/s", "collectives, MB"]) + " |", "|---" * 8 + "|"]
    for found in sorted(rows, key=lambda r: (r["name"], TOPOLOGIES.index(r["topology"]))):
        if "error" in found:
            cells = ["", found["error"], "", "", ""]
        else:
            rate = found["images_per_second"]
            moved = (
                f"{count} {kind} {size / 1e6:.0f}"
                for kind, (count, size) in found["collectives"].items()
            )
            peak = f"{found['peak'] / 2**30:.2f}" if found["peak"] else "more than it has"
            fits = found["verdict"].startswith("fits")
            cells = [
                f"{found['batch'] / found['devices']:g}",
                peak if fits else f"**{peak}**",
                f"{found['operations'] / 1e12:.2f}" if found["operations"] else "",
                f"{'≤ ' if found['bound'] else ''}{rate:,.0f}" if rate else "",
                "; ".join(moved),
            ]
        lines.append("| " + " | ".join([found["name"], found["topology"], found["level"], *cells]))
        lines[-1] += " |"
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=names(), default=names(), metavar="CONFIG")
    parser.add_argument("--topologies", nargs="*", choices=TOPOLOGIES, default=TOPOLOGIES)
    parser.add_argument("--target-config", default="")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no row after")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    lines = arguments.output.read_text().splitlines() if arguments.output.exists() else []
    rows = [json.loads(line) for line in lines]
    if arguments.table:
        print(table(rows))
        return
    began, level = time.monotonic(), os.environ.get("JAX_OPTIMIZATION_LEVEL", "")
    done = {(r["name"], r["topology"]) for r in rows}
    for topology in arguments.topologies:
        for name in arguments.only:
            if (name, topology) in done or time.monotonic() - began > 60 * arguments.minutes:
                continue
            found = {"name": name, "topology": topology, "level": level or "default"}
            found |= row(name, topology, arguments.target_config)
            print(found, flush=True)
            with arguments.output.open("a") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
