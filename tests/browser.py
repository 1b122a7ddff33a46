"""How does a test open a page of the report in a real browser, and see all that it does?

Chromium is the system's (``tools/browser.sh`` gets it, and axe-core). Without it these tests fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

AXE = Path(__file__).resolve().parent / "axe" / "node_modules" / "axe-core" / "axe.min.js"
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--no-first-run", "--disable-dev-shm-usage"),
)
_GET_IT = "Run tools/browser.sh, or name one: TUNEDIFF_CHROMIUM=/path/to/chrome"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    names = (os.environ.get("TUNEDIFF_CHROMIUM", "chromium"), "chromium-browser")
    path = next((found for name in names if (found := shutil.which(name))), None)
    assert path is not None, f"Chromium is needed for these tests. {_GET_IT}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what it did: requests, complaints on the console, dialogs."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def opened(
    browser: Browser, path: Path, *, width: int = 1280, dark: bool = False, **more: Any
) -> Iterator[Watched]:
    """A file opened from disk; at the end nothing but the file was asked for, and no complaint."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        **more,
    )
    watched = Watched(context.new_page())
    page = watched.page
    page.set_default_timeout(20_000)
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("console", lambda message: watched.complaints.append(message.text))
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))

    def said(dialog: Any) -> None:
        watched.complaints.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", said)
    address = path.resolve().as_uri()
    page.goto(address)
    yield watched
    context.close()
    others = [url for url in watched.requests if url not in (address, "data:,")]
    assert others == [], f"the page asked for {others}"
    assert watched.complaints == []


def violations(page: Page) -> list[str]:
    """What axe-core finds serious or critical, each with the first element."""
    assert AXE.is_file(), f"axe-core is needed for these tests. {_GET_IT}"
    # handed over by the debugger, whose scripts the page's policy does not bind
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{v['impact']} {v['id']}: {v['help']} ({len(v['nodes'])}): {v['nodes'][0]['html'][:200]}"
        f" {v['nodes'][0]['any'][0]['message'] if v['nodes'][0]['any'] else ''}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]
