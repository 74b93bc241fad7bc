"""The files of a run that trained for a few lines, without having trained."""

import json


def write(folder, config, metrics, **values):
    """The folder, with the config and some of its values replaced; `a__b` is the key `a.b`."""
    folder.mkdir(parents=True)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in values.items()})
    (folder / "config.json").write_text(config.to_json_best_effort())
    shapes = {"examples": 8000, "image_shape": [28, 28, 1], "classes": 10}
    (folder / "data.json").write_text(json.dumps(shapes))
    (folder / "metrics.jsonl").write_text(metrics)
    return folder
