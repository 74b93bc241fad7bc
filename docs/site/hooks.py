"""What mkdocs does beside its plugins: pages of files outside docs/, the reference, the course.

Pages are written for GitHub, where links lead to files of the repository. Links to what is a page
of the site lead there; others lead to the file on GitHub, if there is such a file.
"""

import importlib
import posixpath
import re
from pathlib import Path, PurePosixPath
from types import ModuleType

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
OUTSIDE = {  # files that are pages, by their path in the repository
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "experiments/README.md": "experiments.md",
}
REFERENCE = {  # modules whose public names are documented, by page
    "losses": ["sslax.losses"],
    "ops": ["sslax.ops"],
    "augment": ["sslax.augment"],
    "measures": [
        *("sslax.measures.knn", "sslax.measures.linear", "sslax.measures.representation"),
        *("sslax.measures.collapse", "sslax.measures.depth", "sslax.measures.flow"),
        *("sslax.measures.pose", "sslax.measures.geometry", "sslax.measures.uncertainty"),
    ],
    "models": ["sslax.models"],
    "inference": ["sslax", "sslax.inference.encoder", "sslax.inference.estimator"],
    "types": ["sslax.types"],
}
LINK = re.compile(r"(\]\()([^)\s]+)(\))|(src=\")([^\"]+)(\")")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of other files, of the reference and of the course's notebooks."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for name, modules in REFERENCE.items():
        content = f"# sslax.{name}\n\n" + "\n".join(map(reference, modules))
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    for notebook in sorted((ROOT / "docs" / "course").glob("*.ipynb")):
        add_notebook(notebook, files, config)
    return files


def reference(module: str) -> str:
    """What mkdocstrings is told to document of a module: its own public names, in their order."""
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", None) or [
        name
        for name, value in vars(loaded).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    ]
    about = (loaded.__doc__ or "").partition("\n\n")[0]
    parts = [f"## `{module}`\n\n{about}\n"]
    for name in names:
        if not isinstance(getattr(loaded, name), ModuleType):
            parts.append(f"::: {module}.{name}\n    options:\n      heading_level: 3\n")
    return "\n".join(parts)


def add_notebook(notebook: Path, files: Files, config: MkDocsConfig) -> None:
    """A notebook with its outputs as a page, its figures as files beside it."""
    body, resources = MarkdownExporter().from_notebook_node(nbformat.read(notebook, as_version=4))
    stem = notebook.stem
    for name, content in resources["outputs"].items():
        body = body.replace(f"]({name})", f"]({stem}_{name})")
        files.append(File.generated(config, f"course/{stem}_{name}", content=content))
    body += f"\n\n[Download this notebook]({notebook.name})\n"
    files.append(File.generated(config, f"course/{stem}.md", content=body))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links of the site."""
    inside = {target: source for source, target in OUTSIDE.items()}
    source = inside.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    if page.file.src_uri.startswith("reference/"):
        return markdown

    def rewritten(match: re.Match) -> str:
        before, link, after = (match[1], match[2], match[3]) if match[1] else match.group(4, 5, 6)
        return before + of_the_site(link, source, page, config, files) + after

    return LINK.sub(rewritten, markdown)


def of_the_site(link: str, source: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The target of a link in a file of the repository, as a link of its page."""
    path, _, anchor = link.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    uri = OUTSIDE.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
    uri = uri.replace(".ipynb", ".md") if page.file.src_uri == "course/README.md" else uri
    suffix = f"#{anchor}" if anchor else ""
    if uri and files.get_file_from_path(uri):
        return posixpath.relpath(uri, PurePosixPath(page.file.src_uri).parent) + suffix
    if not (ROOT / target).exists():
        raise PluginError(f"{source} links to {link}, which does not exist.")
    kind = "tree" if (ROOT / target).is_dir() else "blob"
    return f"{config.repo_url.rstrip('/')}/{kind}/main/{target}{suffix}"
