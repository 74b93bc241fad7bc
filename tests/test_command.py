"""Flags of the commands: each number has its range, and there is nothing but flags."""

import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from sslax import (
    command,
    compare,
    evaluate,
    export,
    main,
    plan,
    predict,
    publish,
    submission,
    sweep,
    watch,
)
from sslax.errors import UserError
from sslax.testbed import __main__ as testbed

COMMANDS = (
    compare,
    evaluate,
    export,
    main,
    plan,
    predict,
    publish,
    submission,
    sweep,
    testbed,
    watch,
)  # imported, so that their flags are defined


@flagsaver.flagsaver
def parsed(*arguments):
    return command._parse(["command", *arguments])


@pytest.mark.parametrize(
    ("flag", "values", "allowed"),
    [
        ("fps", ("0", "-1", "nan", "inf", "many"), "2.5"),
        ("reach", ("-1", "nan", "inf", "far"), "0"),
        ("baseline", ("0", "-0.5", "nan", "inf", "wide"), "0.54"),
        ("batch_size", ("0", "-1", "1.5", "nan", "many"), "3"),
        ("learning_rate", ("0", "-1", "nan", "inf", "high"), "0.1"),
        ("process_id", ("-1", "0.5", "first"), "0"),
        ("num_processes", ("0", "-2", "two"), "2"),
        ("examples", ("0", "-1", "all"), "1281167"),
        ("classes", ("0", "-1", "many"), "1000"),
        ("lines", ("0", "-1", "all"), "3"),
        ("port", ("-1", "65536", "1.5", "any"), "8080"),
        ("index", ("-1", "0.5", "first"), "0"),
        ("seeds", ("0", "-1", "all"), "3"),
    ],
)
def test_numbers_have_their_range(flag, values, allowed):
    for value in values:
        with pytest.raises(UserError, match=f"--{flag}") as error:
            parsed(f"--{flag}={value}")
        assert "\n" not in str(error.value)
    assert parsed(f"--{flag}={allowed}") == ["command"]
    assert flags.FLAGS[flag].value == flags.FLAGS[flag].default


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--batch_size=many", "--batch_size must be a whole number; got many."),
        ("--fps=1,5", "--fps must be a number; got 1,5."),
        ("--finetune=perhaps", "--finetune must be True or False; got perhaps."),
    ],
)
def test_values_of_another_type_are_named(argument, message):
    with pytest.raises(UserError) as error:
        parsed(argument)
    assert str(error.value) == message


@pytest.mark.parametrize("stray", [["batch_size=3"], ["--fps", "3", "4"], ["images/"]])
def test_a_stray_argument_is_refused(stray):
    with pytest.raises(UserError, match=f"^'{stray[-1]}' is no flag: write --NAME=VALUE"):
        parsed(*stray)


@pytest.mark.parametrize("labels", ["0", "1.5", "-0.1", "nan", "1,0", "half", ""])
def test_fractions_of_labels_have_their_range(labels):
    with pytest.raises(UserError, match="--labels"):
        evaluate._fractions(labels.split(","))
    assert evaluate._fractions(["1", "0.01"]) == [1.0, 0.01]


@pytest.mark.parametrize("image", ["256", "256,256", "256,256,0", "256,-1,3", "a,b,c", "1,2,3,4,5"])
def test_shapes_of_images_have_their_form(image):
    with pytest.raises(UserError, match=f"--image={image} is not a shape; write height, width and"):
        plan._image_shape(image.split(","))
    assert plan._image_shape(["3", "192", "640", "3"]) == (3, 192, 640, 3)
    assert plan._image_shape([]) == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "Give --output=BED to write a test bed, or --predictions=FOLDER --truth=BED to score.",
        ),
        (["--predictions=a"], "Scores take both: give --predictions=FOLDER and --truth=BED."),
        (["--output=a", "--predictions=b", "--truth=c"], "Give --output=BED to write a test bed, "),
        (
            ["--predictions=a", "--truth=b", "--corruptions=all"],
            "--corruptions goes with --output=BED; leave it out.",
        ),
    ],
)
@flagsaver.flagsaver
def test_a_test_bed_is_written_or_scores_are(arguments, message):
    command._parse(["command", *arguments])
    with pytest.raises(UserError, match=f"^{message}"):
        testbed.main([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs="], "--runs= must name two or more runs, each once: --runs=A,B."),
        (["--runs=a"], "--runs=a must name two or more runs"),
        (["--runs=a,b,./a"], "--runs=a,b,./a must name two or more runs, each once"),
        (["--runs=a,b", "--output=page.txt"], "--output=page.txt must end in .html."),
        (["--runs=nowhere,b"], "nowhere holds no run"),
    ],
)
@flagsaver.flagsaver
def test_a_comparison_is_of_several_runs(arguments, message):
    command._parse(["command", *arguments])
    with pytest.raises(UserError, match=f"^{message}"):
        compare.main([])


def test_help_lists_the_flags_that_commands_share():
    """Of this command's only: training reads no particular checkpoint."""
    asked = [sys.executable, "-m", "sslax.main", "--help"]
    text = subprocess.run(asked, capture_output=True, text=True, timeout=120).stdout
    for flag in ("--config:", "--workdir:", "--[no]distributed:", "--profile:"):
        assert f"\n  {flag}" in text
    assert "--checkpoint" not in text
