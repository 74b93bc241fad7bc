"""temporary"""

from collections.abc import Mapping, Sequence

from sslax.measures.representation import results_table, write_results  # noqa

TRIVIAL = "_trivial"


def table(results: Mapping[str, float], suffixes: Sequence[str]) -> str:
    """The numbers as aligned text: a row for each, a column for each suffix.

    Example:
        >>> print(table({"epe": 0.5, "epe_trivial": 2.25}, ("", "_trivial")))
              trained   trivial
        epe     0.500     2.250
    """
    names = [n for n in results if not any(s and n.endswith(s) for s in suffixes)]
    head = [suffix.removeprefix("_") or "trained" for suffix in suffixes]
    width = max((len(name) for name in names), default=0)
    lines = [" " * width + "".join(f"{column:>10}" for column in head)]
    for name in names:
        values = [results.get(name + suffix) for suffix in suffixes]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)
