"""Adds pages to the site that are Markdown files elsewhere in the repository."""

from __future__ import annotations

import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# Files of the repository -> pages of the site. Links to the former become links to the latter.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "MODEL_ZOO.md": "model-zoo.md",
    "benchmarks/README.md": "benchmarks.md",
    "projects/SeqFormer/README.md": "design.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs once it has found the files in docs/."""
    root = posixpath.dirname(config.config_file_path)
    for source, page in PAGES.items():
        with open(posixpath.join(root, source), encoding="utf-8") as file:
            text = file.read()
        files.append(File.generated(config, page, content=relink(text, source, config.repo_url)))
    return files


def relink(text: str, source: str, repo_url: str | None) -> str:
    """Turns links that are relative to a file of the repository into links that are relative to docs/.

    A link to a file that is not on the site goes to the repository; without a ``repo_url`` its text stays.
    """

    def replace(match: re.Match[str]) -> str:
        image, label, target, anchor = match[1], match[2], match[3], match[4] or ""
        if not target or "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in PAGES:
            return f"[{label}]({PAGES[path]}{anchor})"
        if path.startswith("docs/"):
            return f"{image}[{label}]({path.removeprefix('docs/')}{anchor})"
        if repo_url:
            return f"[{label}]({repo_url.rstrip('/')}/blob/main/{path}{anchor})"
        return label

    return LINK.sub(replace, text)
