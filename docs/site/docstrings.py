"""Docstrings as mkdocstrings reads them: "Example" here is its "Examples"."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the section, which would otherwise be text and not code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = text.replace("\nExample:\n", "\nExamples:\n")
