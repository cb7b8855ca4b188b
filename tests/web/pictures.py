"""Makes the pictures of docs/pages/console.md: `python -m tests.web.pictures`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from tests.web.browser import as_seen, chromium
from tests.web.shop import Worker, consoles

PICTURES = Path(__file__).parents[2] / "docs" / "pages" / "img"
VIEWS = {"overview": (1280, 980), "topology": (1280, 1400)}


def main() -> None:
    with (
        consoles([Worker(number) for number in range(3)]) as servers,
        tempfile.TemporaryDirectory() as folder,
        chromium(Path(folder)) as browser,
    ):
        page = browser.new_page()
        as_seen(page, "desktop", "light")
        for view, (width, height) in VIEWS.items():
            page.set_viewport_size({"width": width, "height": height})
            page.goto(f"http://{servers[0].address}/#/{view}")
            expect(page.locator("h2").first).to_be_visible()
            raw = Path(folder) / f"{view}.png"
            page.screenshot(path=raw)
            with Image.open(raw) as picture:
                picture.save(PICTURES / f"console-{view}.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
