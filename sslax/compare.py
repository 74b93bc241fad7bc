"""`python -m sslax.compare --runs=A,B`: one page of several runs, by default compare.html.

Their facts, configs, results and curves side by side. `--output=FILE.html` names another file.
"""

from pathlib import Path

from sslax import command, paths
from sslax.command import flags
from sslax.errors import UserError

_RUNS = flags.DEFINE_list("runs", None, "Folders of two or more runs: A,B,C.")
_OUTPUT = command.output_flag()


def main(_: list[str]) -> None:
    """Writes the page."""
    from sslax.report import page
    from sslax.tasks import reports

    workdirs = [Path(run) for run in _RUNS.value]
    if len({workdir.resolve() for workdir in workdirs}) < max(2, len(workdirs)):
        raise UserError(
            f"--runs={','.join(_RUNS.value)} must name two or more runs, each once: --runs=A,B."
        )
    output = Path(_OUTPUT.value or "compare.html")
    if output.suffix != ".html":
        raise UserError(f"--output={output} must end in .html.")
    paths.check_output(output, "--output", folder=False)
    sections = reports.comparison(workdirs)
    output.parent.mkdir(parents=True, exist_ok=True)
    page.write(output, f"{len(workdirs)} runs", sections)
    print(f"Wrote {output}.")


if __name__ == "__main__":
    flags.mark_flag_as_required("runs")
    command.entry(main)
