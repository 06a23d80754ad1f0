"""Our EXIF tags are ExifTool's, and each difference has its reason in docs/pictures.md."""

from __future__ import annotations

from pathlib import Path

from tests.imaging import agreement


def test_tags_agree_with_exiftool_and_the_page_says_how_far(shared: Path):
    found = agreement.compared()
    assert found.unexplained == []
    assert found.equal / found.told > 0.97
    page = agreement.PAGE.read_text(encoding="utf-8")
    assert page == agreement.renewed(page, agreement.table(found)), (
        "docs/pictures.md is stale: python -m tests.imaging.agreement"
    )
