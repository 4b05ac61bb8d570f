"""The Markdown files of the repository."""

from __future__ import annotations

from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
DOCS = REPO / "docs"
PAGES = sorted([*REPO.glob("*.md"), *DOCS.glob("**/*.md")])
WRITE = "scripts/test tests/docs --write-docs"


def name_of(page: Path) -> str:
    return str(page.relative_to(REPO))
