"""`python -m sslax.watch --workdir=RUN`: a run's page, live, for this machine's browsers alone.

The curves follow the run while it trains, and the pictures come with its evaluation. `--port` is
that of 127.0.0.1, by default a free one; the address is printed. The devices are left to the run.
"""

from typing import Annotated

from sslax import command, paths
from sslax.command import flags
from sslax.ranges import Interval

_WORKDIR = command.workdir_flag()
_PORT = flags.DEFINE_integer("port", 0, "Port of 127.0.0.1; 0 for one that is free.")
command.check_flag("port", Annotated[int, Interval(0, 65535)])


def main(_: list[str]) -> None:
    """Serves the page until Ctrl-C."""
    from sslax.report import server
    from sslax.tasks import reports

    workdir = paths.expand(_WORKDIR.value, "--workdir")
    reports.news(workdir)  # a mistake in the folder is said here, not in the browser
    with server.make(
        lambda: reports.render(workdir, live=True),
        lambda: reports.news(workdir),
        port=_PORT.value,
    ) as serving:
        print(f"http://{server.ADDRESS}:{serving.server_port}  Ctrl-C ends it.", flush=True)
        serving.serve_forever()


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    command.entry(main)
