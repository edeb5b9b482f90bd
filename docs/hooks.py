"""Makes one site of Markdown files that lie in several folders of the repository.

Links are written as they work in the repository, and are changed here to what they are on the site.
"""

from __future__ import annotations

import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Files outside docs/ -> pages of the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "MODEL_ZOO.md": "model-zoo.md",
    "benchmarks/README.md": "benchmarks.md",
    "datasets/README.md": "guides/dataset-folders.md",
    "projects/SeqFormer/README.md": "design.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs once it has found the files in docs/."""
    root = posixpath.dirname(config.config_file_path)
    for source, page in PAGES.items():
        with open(posixpath.join(root, source), encoding="utf-8") as file:
            files.append(File.generated(config, page, content=file.read()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Called by MkDocs with the text of each page."""
    path = page.file.src_uri
    sources = {page: source for source, page in PAGES.items()}
    return relink(markdown, sources.get(path, f"docs/{path}"), path, config.repo_url)


def relink(text: str, source: str, page: str, repo_url: str | None) -> str:
    """Changes links that are relative to a file of the repository into links that are relative to its page.

    A link to a file that is not on the site goes to the repository; without a ``repo_url`` its text stays.
    """

    def replace(match: re.Match[str]) -> str:
        image, label, target, anchor = match[1], match[2], match[3], match[4] or ""
        if not target or "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        on_site = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if on_site:
            return f"{image}[{label}]({posixpath.relpath(on_site, posixpath.dirname(page) or '.')}{anchor})"
        if repo_url:
            return f"{image}[{label}]({repo_url.rstrip('/')}/blob/main/{path}{anchor})"
        return label

    return LINK.sub(replace, text)
