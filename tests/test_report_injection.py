"""Does anything that a model, a person or a file said ever run in the report's page?

A hundred payloads stand in every place where such a text is shown; every panel is opened. A page
that does not escape them shows that they would have run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from browser import chromium, opened
from comparison import AnsweringPair
from payloads import PAYLOADS
from tunediff.report.html import render, report
from tunediff.report.text import embedded, visible
from tunediff.run.comparing import EVERY, compare
from tunediff.run.ratings import write_ratings
from tunediff.run.store import Run
from tunediff.scoring.sampling import BOTH, Asked
from tunediff.values import (
    Certificate,
    Check,
    Encoded,
    Generation,
    Item,
    Measure,
    Observation,
    Reply,
    Side,
    Suite,
)

_RAN = 80  # of the payloads run in such a frame; others need its parent, or an old browser
AXES = ("target", "general", "safety", "fluency")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def stored(text: str) -> str:
    """Where a lone surrogate cannot be: in what was read from a file."""
    return text.encode("utf-8", "replace").decode()


class HostilePair(AnsweringPair):
    """A pair of which every text is a payload."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Side(PAYLOADS[0], "base", "b" * 64, PAYLOADS[1])
        self.tuned = Side(PAYLOADS[2], "lora", "t" * 64)
        checks = tuple(Check(p, k % 2 == 0, p) for k, p in enumerate(map(stored, PAYLOADS)))
        warnings = tuple(map(stored, PAYLOADS))
        self.certificate = Certificate("lora", checks, weights_equal=False, warnings=warnings)
        self.settings |= {
            "device": PAYLOADS[3],
            "template": PAYLOADS[4],
            "versions": {PAYLOADS[5]: PAYLOADS[6]},
            "threads": PAYLOADS[7],
        }

    def generate(
        self,
        prompts: Sequence[Encoded],
        generation: Generation,
        sample: int = 0,
        sides: Sequence[Asked] = BOTH,
    ) -> Iterator[tuple[Reply | None, Reply | None]]:
        for prompt in prompts:
            k = int(prompt.item_id.partition(" ")[0])
            said = [Reply(PAYLOADS[(k + shift) % len(PAYLOADS)], (65 + shift,)) for shift in (0, 1)]
            yield said[0], said[1]

    def token_text(self, token_id: int) -> str:
        return stored(PAYLOADS[token_id % len(PAYLOADS)])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.token_text(int(i)) for i in ids]


def refused(item: Item, base: Reply, tuned: Reply) -> Observation:
    """A measure of the user's own whose reasons are payloads."""
    return Observation(None, None, None, 0, item.prompt)


def hostile_run(folder: Path) -> Run:
    """A run with a payload wherever a text can stand."""
    texts = [stored(p) for p in PAYLOADS]
    suites = []
    for place, axis in enumerate(AXES):
        items = tuple(
            Item(
                f"{k} {text}",
                prompt=text,
                reply=text,
                axis=axis,
                group=text,
                category=text,
                source=f"{axis}:{k}",
            )
            for k, text in enumerate(texts)
            if k % len(AXES) == place
        )
        suites.append(Suite(texts[place + 8], items, "h" * 64))
    own = Measure(texts[12], texts[13], 1, texts[14], ("replies",), refused)
    compare(
        HostilePair(),
        suites,
        out=folder,
        measures=(*EVERY, own),
        generation=Generation(8, stop=(PAYLOADS[15],)),
        variant=texts[16],
        part_tokens=4000,
    )
    ratings = [
        {"rater": rater, "suite": suites[0].name, "item": item.id, "axis": item.axis,
         "group": item.group, "a": "base", "preference": "tuned", "again": False, "base": 2,
         "tuned": 4, "note": PAYLOADS[k]}
        for k, item in enumerate(suites[0].items)
        for rater in texts[17:19]
    ]  # fmt: skip
    kept = {"schema_version": 1, "variant": texts[16], "study": {"suites": []}, "ratings": ratings}
    write_ratings(folder, kept)
    return Run.open(folder)


OPEN = """() => {
    const each = (selector, act) => { for (const e of document.querySelectorAll(selector)) act(e) }
    while (!document.querySelector(".more").hidden) document.querySelector(".more").click()
    each(".row", (row) => row.click())
    each("details", (fold) => { fold.open = true })
    const text = document.body.textContent
    each("input[type=checkbox]", (box) => box.click())
    each(".lens button, .said button", (button) => button.click())
    each(".tok", (token) => token.dispatchEvent(new MouseEvent("mouseenter")))
    return text
}"""


def open_everything(page: Page) -> str:
    """Every fold, item, button and choice; says all text that there was."""
    text = page.evaluate(OPEN)
    for select in page.locator(".controls select").all():
        for value in select.evaluate("s => [...s.options].map(o => o.value)"):
            select.select_option(value)
        select.select_option(index=0)
    page.wait_for_timeout(300)
    return text


def ran(page: Page) -> Any:
    return page.evaluate("window.__xss ?? null")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return hostile_run(tmp_path_factory.mktemp("hostile") / "run")


def test_a_hundred_payloads_everywhere_and_none_runs(
    run: Run, tmp_path: Path, browser: Browser
) -> None:
    assert len(set(PAYLOADS)) >= 100
    page = report(run, tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert visible(text) == text  # nothing hides in any of it
    with opened(browser, page) as watched:
        shown = open_everything(watched.page)
        assert watched.page.locator(".row").count() > 0
        assert ran(watched.page) is None
        assert watched.page.evaluate("document.scripts.length") == 2
    assert "What people say" in shown
    assert "Prompts of highest concern" not in shown
    for text in PAYLOADS:  # they were really there, as text
        assert visible(text) in shown


def test_the_same_payloads_do_run_where_a_page_does_not_escape(
    tmp_path: Path, browser: Browser
) -> None:
    """In the body, in an attribute, in a script's string: as the page would have had them."""
    context = browser.new_context()
    context.add_init_script(
        "Object.defineProperty(window, '__xss', {set() { console.log('ran ' + window.name) }})"
    )
    page = context.new_page()
    said: set[str] = set()
    page.on("console", lambda message: said.add(message.text))
    clicks = (
        "<script>setTimeout(() => { for (const e of document.querySelectorAll('body *')) {"
        "for (const name of ['mouseover', 'focus', 'start']) e.dispatchEvent(new Event(name));"
        "if (e.matches('a, button')) e.click() } }, 200)</script>"
    )
    frames = []
    for place, text in enumerate(PAYLOADS):
        body = (
            f"<!doctype html><meta charset=utf-8><body>{clicks}<p>{text}</p>"
            f'<a id=a href="{text}">x</a><i title="{text}"></i><i title=\'{text}\'></i>'
            f'<script type=application/json>{{"x":"{text}"}}</script><script>\'{text}\'</script>'
        )
        (tmp_path / f"{place}.html").write_bytes(body.encode("utf-8", "replace"))
        frames.append(f"<iframe name={place} sandbox=allow-scripts src={place}.html></iframe>")
    (tmp_path / "all.html").write_text("".join(frames), encoding="utf-8")
    page.goto((tmp_path / "all.html").as_uri(), wait_until="commit")
    wanted = {f"ran {place}" for place in range(len(PAYLOADS))}
    for _ in range(50):
        if len(said & wanted) >= _RAN:
            break
        page.wait_for_timeout(200)
    context.close()
    assert len(said & wanted) >= _RAN, [PAYLOADS[int(w[4:])] for w in wanted - said]


def test_a_page_without_its_escaping_is_found_out(
    run: Run, tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: no policy, and the items' JSON as it is."""
    monkeypatch.setattr(
        "tunediff.report.html.embedded", lambda value: json.dumps(value, ensure_ascii=True)
    )
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render(run))
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert ran(page) == 1
    page.close()


def test_the_policy_alone_stops_what_escaping_would_let_through(
    run: Run, tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunediff.report.html.embedded", json.dumps)
    (tmp_path / "page.html").write_text(render(run), encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert ran(page) is None
    page.close()


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "&amp;", "\u2028\u2029"])
def test_nothing_in_the_embedded_json_ends_its_element(text: str) -> None:
    made = embedded({"a": [text]})
    assert not set(made) & set("<>&\u2028\u2029")
    assert json.loads(made)["a"] == [visible(text)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a␛[31mb"),
        ("\x00\x7f\x9b", "␀␡⟨U+009B⟩"),
        ("\u202eabc\u2069", "⟨U+202E⟩abc⟨U+2069⟩"),
        ("\ud800x\udfff", "⟨U+D800⟩x⟨U+DFFF⟩"),
        ("\ufeff\u200b", "⟨U+FEFF⟩⟨U+200B⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("a\r\nb\rc\td\n", "a\nb␍c\td\n"),
        ("مرحبا 👩‍💻 é", "مرحبا 👩‍💻 é"),
    ],
)
def test_what_hides_is_spelt_out_and_what_is_text_stays(text: str, shown: str) -> None:
    assert visible(text) == shown
