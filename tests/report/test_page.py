"""The page: complete, alone, and safe with any text."""

import html.parser
import re

import pytest

from sslax.report import page

HOSTILE = "</script><script>alert(1)</script><!-- {{script}} & \u2028 '\" \udcff"


class Tags(html.parser.HTMLParser):
    """The tags of a page, and what refers to something outside of it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]


def test_hostile_text_changes_no_tag(tmp_path):
    plain = page.render("a", [{"id": "a", "type": "facts", "title": "a", "rows": []}])
    sections = [{"id": "a", "type": "facts", "title": HOSTILE, "rows": [[HOSTILE, HOSTILE]]}]
    hostile = page.render(HOSTILE.removesuffix("\udcff"), sections)
    assert Tags(hostile).tags == Tags(plain).tags
    page.write(tmp_path / "a.html", "a", sections)
    assert page.read(tmp_path / "a.html") == sections  # and all of it comes back


def test_a_page_needs_nothing_but_itself():
    text = page.render("a", [])
    assert Tags(text).references == ["data:,"]
    assert "{{" not in re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL)
    outside = set(re.findall(r"https?://[^\"' )]+", text)) - {"http://www.w3.org/2000/svg"}
    assert not outside
    assert "default-src 'none'" in text


def test_a_file_that_is_no_page_has_no_sections(tmp_path):
    (tmp_path / "a.html").write_text("<p>something else</p>")
    assert page.read(tmp_path / "a.html") == []


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError):
        page.as_json([float("nan")])
