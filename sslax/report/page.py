"""The page itself: a title and sections in, HTML out, and back."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sslax.data.files.text import write_text

Section = dict[str, Any]
"""What a page shows in one place: `id`, `type`, which says how it is drawn, `title`, and its data.
"""

_STATIC = Path(__file__).parent / "static"
_SCRIPTS = ("core", "tables", "curves", "embedding", "maps", "cloud", "main")  # in this order
_CONTENTS = re.compile(r'<script type="application/json" id="contents">(.*?)</script>', re.DOTALL)


def render(title: str, sections: Sequence[Section], *, live: bool = False) -> str:
    """The page as HTML, with everything that it needs in it.

    Args:
        title: of the page, any text.
        sections: in their order.
        live: ask the server that the page came from for news.

    Example:
        >>> '<title>a &lt;b&gt;</title>' in render("a <b>", [])
        True
    """
    contents = {"title": title, "live": live, "sections": list(sections)}
    parts = {
        "title": html.escape(title),
        "style": (_STATIC / "style.css").read_text(),
        "script": "\n".join((_STATIC / f"{name}.js").read_text() for name in _SCRIPTS),
        "contents": as_json(contents),
    }
    # In one pass, so that nothing inside of a part is taken for another.
    template = (_STATIC / "page.html").read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def as_json(contents: Any) -> str:
    r"""JSON that no HTML parser takes for a tag.

    Example:
        >>> as_json(["</script>"])
        '["\\u003c/script\\u003e"]'
    """
    text = json.dumps(contents, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def write(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Writes the page as a file, in one move."""
    write_text(path, render(title, sections))


def read(path: str | Path) -> list[Section]:
    """The sections of a page that `write` wrote; none where there is no such file.

    Example:
        >>> read("nowhere.html")
        []
    """
    path = Path(path)
    found = _CONTENTS.search(path.read_text()) if path.exists() else None
    return json.loads(found[1])["sections"] if found else []
