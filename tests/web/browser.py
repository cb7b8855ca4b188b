"""Debian's Chromium, without a window, driven by Playwright. No browser is ever downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

from playwright.sync_api import BrowserContext, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"desktop": (1280, 860), "phone": (390, 844)}
Size: TypeAlias = Literal["desktop", "phone"]
Scheme: TypeAlias = Literal["light", "dark"]


@contextmanager
def chromium(folder: Path) -> Iterator[BrowserContext]:
    """A browser with a profile of its own."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder, executable_path=CHROMIUM, args=ARGUMENTS, headless=True, timeout=60_000
        )
        context.set_default_timeout(20_000)
        try:
            yield context
        finally:
            context.close()


def as_seen(page: Page, size: Size, scheme: Scheme) -> None:
    """As on such a screen."""
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")


def overflowing(page: Page) -> list[str]:
    """What sticks out at the side, where only the page itself could scroll there."""
    found: list[str] = page.evaluate(
        """() => {
            const wide = [...document.querySelectorAll("body *")].filter((each) => {
                const box = each.getBoundingClientRect();
                return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1) && !each.closest(".skip, thead");
            });
            const scrolls = document.documentElement.scrollWidth > innerWidth ? ["the page"] : [];
            const name = (each) => `${each.tagName}.${each.className}: ${each.textContent.slice(0, 40)}`;
            return [...scrolls, ...wide.map(name)];
        }"""
    )
    return found
