"""The contact sheets can be made anywhere."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def test_without_the_corpus_there_are_sheets_of_our_own_pictures(vips, tmp_path: Path, monkeypatch):
    from tests.imaging import sheets  # noqa: PLC0415 (it needs libvips)

    monkeypatch.setattr(sheets, "FOLDER", tmp_path / "sheets")
    monkeypatch.setattr(sheets, "rows", list)
    sheets.main()
    for group in sheets.GROUPS:
        with Image.open(tmp_path / "sheets" / f"{group}.png") as sheet:
            assert sheet.size > (600, 150)
