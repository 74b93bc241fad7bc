"""`python -m sslax.plan --config=configs/METHOD.py --topology=v5e:8x16`: what a run will take.

Compiles the training step for devices that need not be here, without data: memory, operations,
collectives, an estimate of images a second, and whether it fits.
"""

from sslax import command
from sslax.command import flags
from sslax.errors import UserError
from sslax.ranges import PositiveInt

command.config_flag()
_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "Chips and their arrangement: v5e:8x16, h100:8, cpu:8; by default those here."
)
_TARGET_CONFIG = flags.DEFINE_string(
    "target_config", "", "Of a GPU that is not here: its description for the compiler, a file."
)
_IMAGE = flags.DEFINE_list(
    "image", [], "Shape of a stored image, H,W,C; of V of a sample, V,H,W,C."
)
_EXAMPLES = flags.DEFINE_integer("examples", None, "Size of the training set.")
_CLASSES = flags.DEFINE_integer("classes", None, "Number of classes of the training set.")
_LINES = flags.DEFINE_integer("lines", 10, "Lines of source to list at most.")
command.check_flag("examples", PositiveInt | None)
command.check_flag("classes", PositiveInt | None)
command.check_flag("lines", PositiveInt)


def main(_: list[str]) -> None:
    """Prints the report."""
    import jax

    from sslax.planning import contents, measure, report, topologies

    # A program for devices that are not here cannot be read back, and a kept one has old lines.
    jax.config.update("jax_enable_compilation_cache", False)
    config, file = command.read_config()
    topology = (
        topologies.find(_TOPOLOGY.value, target_config=_TARGET_CONFIG.value)
        if _TOPOLOGY.value
        else topologies.here()
    )
    found = contents.contents_of(
        config,
        file.partition(":")[2],
        image=_image_shape(_IMAGE.value),
        examples=_EXAMPLES.value,
        classes=_CLASSES.value,
    )
    measurement = measure.measure(config, found, topology)
    print(report.format_report(config, measurement, lines=_LINES.value))


def _image_shape(texts: list[str]) -> tuple[int, ...]:
    """The shape of a stored image.

    Example:
        >>> _image_shape(["256", "256", "3"])
        (256, 256, 3)
    """
    sizes = tuple(int(text) for text in texts if text.isdecimal() and int(text))
    if len(sizes) != len(texts) or len(texts) not in (0, 3, 4):
        raise UserError(
            f"--image={','.join(texts)} is not a shape; write height, width and channels, such as "
            "256,256,3, or for three frames of a sample 3,192,640,3."
        )
    return sizes


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    command.entry(main)
