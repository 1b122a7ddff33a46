"""Can people rate in a browser: blind, by keyboard alone, and whatever the replies hold?"""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Dialog, expect, sync_playwright
from playwright.sync_api import Page as Tab

from rating import Page, begun, chromium, database, replied, served, triples, until
from tunediff.rating import app, guard
from tunediff.rating.study import OpenStudy, export


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, page: Page, **options: Any) -> Iterator[Tab]:
    """A tab at the page, in which a fault of the page is a fault of the test."""
    context = browser.new_context(**options)
    tab = context.new_page()
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    tab.goto(page.address)
    yield tab
    context.close()
    assert [line for line in faults if "status of 4" not in line] == []


def join(tab: Tab, name: str) -> None:
    tab.get_by_label("Your name").fill(name)
    tab.keyboard.press("Enter")
    expect(tab.locator("#rate, #finished").locator("visible=true")).to_be_visible()


def press(tab: Tab, a: int, b: int, prefer: str) -> None:
    """One rating, by keyboard."""
    for key in (str(a), f"Shift+Digit{b}", {"tie": "="}.get(prefer, prefer), "Enter"):
        tab.keyboard.press(key)


def at(tab: Tab, place: int, of: int) -> None:
    expect(tab.locator("#progress")).to_have_text(f"{place} of {of}")


# two raters, twenty items


def opinion(rater: str, prompt: str) -> tuple[int, int, str]:
    """What a simulated rater thinks of base's and tuned's reply: noise around a common view."""
    common, own = random.Random(prompt), random.Random(f"{rater} of {prompt}")
    both = [common.randint(1, 5) for _ in range(2)]
    base, tuned = (min(5, max(1, score + own.choice([-1, 0, 0, 0, 1]))) for score in both)
    return base, tuned, "base" if base > tuned else "tuned" if tuned > base else "tie"


def rate_all(tab: Tab, name: str, said: Sequence[tuple[str, str, str]]) -> None:
    """Rate by what is on the page; which side is whose is known to the test by the texts alone."""
    join(tab, name)
    replies = {prompt: (base, tuned) for prompt, base, tuned in said}
    for place in range(1, 23):
        at(tab, place, 22)
        prompt, a = tab.locator("#prompt").inner_text(), tab.locator("#text-a").inner_text()
        base, tuned, preference = opinion(name, prompt)
        if a == replies[prompt][0]:
            press(tab, base, tuned, {"base": "a", "tuned": "b"}.get(preference, "tie"))
        else:
            press(tab, tuned, base, {"base": "b", "tuned": "a"}.get(preference, "tie"))
    expect(tab.get_by_text("All rated")).to_be_visible()


def by_hand(said: Sequence[tuple[str, str, str]], raters: Sequence[str]) -> dict[str, float]:
    """Agreement and averages from the opinions themselves, by the books' formulas."""
    opinions = {r: [opinion(r, prompt) for prompt, *_ in said] for r in raters}
    one, other = (opinions[r] for r in raters)
    wins = [{"base": 0.0, "tie": 0.5, "tuned": 1.0}[o[2]] for r in raters for o in opinions[r]]
    disagree = sum(a[2] != b[2] for a, b in zip(one, other, strict=True))
    words = [o[2] for r in raters for o in opinions[r]]
    n = len(words)
    unlike = sum(a != b for a, b in itertools.permutations(words, 2))
    nominal = 1 - (2 * disagree / n) / (unlike / (n * (n - 1)))
    chance = (
        sum(
            sum(o[2] == word for o in one) * sum(o[2] == word for o in other)
            for word in ("base", "tie", "tuned")
        )
        / len(said) ** 2
    )
    pairs = [(a[k], b[k]) for a, b in zip(one, other, strict=True) for k in (0, 1)]
    scores = [score for pair in pairs for score in pair]
    counts = {v: scores.count(v) for v in range(1, 6)}

    def apart(v: int, w: int) -> float:
        v, w = min(v, w), max(v, w)
        between = sum(counts[g] for g in range(v, w + 1)) - (counts[v] + counts[w]) / 2
        return between**2

    observed = sum(2 * apart(v, w) for v, w in pairs) / len(scores)
    expected = sum(apart(v, w) for v, w in itertools.permutations(scores, 2))
    expected /= len(scores) * (len(scores) - 1)
    return {
        "win_rate": sum(wins) / n,
        "base": float(np.mean([o[0] for r in raters for o in opinions[r]])),
        "tuned": float(np.mean([o[1] for r in raters for o in opinions[r]])),
        "nominal": nominal,
        "kappa": ((len(said) - disagree) / len(said) - chance) / (1 - chance),
        "ordinal": 1 - observed / expected,
    }


def test_two_raters_rate_twenty_items(browser: Browser, tmp_path: Path) -> None:
    said = triples(20)
    run = replied(tmp_path, said)
    names = ("Ann", "Ben")
    with begun(run) as study, served(study) as page:
        for name in names:
            with opened(browser, page) as tab:
                rate_all(tab, name, said)
        exported = export(study)
    summary, hand = exported["summary"], by_hand(said, names)
    assert summary["win_rate"]["value"] == pytest.approx(hand["win_rate"], abs=1e-12)
    for side in ("base", "tuned"):
        adherence = summary["measures"]["human_adherence"][side]
        assert adherence == pytest.approx(hand[side], abs=1e-12)
    agreement = summary["agreement"]
    assert agreement["preference"]["alpha"] == pytest.approx(hand["nominal"], abs=1e-12)
    assert agreement["adherence"]["alpha"] == pytest.approx(hand["ordinal"], abs=1e-12)
    (pair,) = agreement["kappa"]
    assert pair["preference"] == pytest.approx(hand["kappa"], abs=1e-12)
    assert summary["consistency"] == {
        "items": 4, "same_preference": 4, "mean_score_difference": 0.0,
    }  # fmt: skip
    assert len(exported["ratings"]) == 44
    for line in exported["ratings"]:
        prompt = said[int(line["item"].removeprefix("item-"))][0]
        got = line["base"], line["tuned"], line["preference"]
        assert got == opinion(line["rater"], prompt)


# blind


def test_nothing_in_the_page_knows_the_sides(browser: Browser, tmp_path: Path) -> None:
    """Every byte that the browser receives, sends and holds, with the texts taken out."""
    said = triples(8)
    run = replied(tmp_path, said)
    heard: list[str] = []
    with begun(run) as study, served(study) as page, opened(browser, page) as tab:
        tab.on("response", lambda answer: heard.append(answer.text()))
        tab.on("request", lambda asked: heard.append(asked.post_data or ""))
        tab.goto("about:blank")
        tab.goto(page.address)
        join(tab, "Ann")
        for place in range(1, 10):
            at(tab, place, 9)
            heard.append(tab.content())
            heard.append(
                json.dumps(
                    tab.evaluate(
                        "[{...localStorage}, {...sessionStorage},"
                        " document.cookie, location.href, standing]"
                    )
                )
            )
            press(tab, 4, 2, "a")
        expect(tab.get_by_text("All rated")).to_be_visible()
        planned = database(run)
    assert len(heard) > 30
    everything = "\n".join(heard)
    texts = {text for line in said for text in line}
    for text in sorted(texts, key=len, reverse=True):
        everything = everything.replace(text, "")
    for word in ("base", "tuned", "item-", "recorded"):
        assert word not in everything.lower(), word
    assert sum(row[0] == "showing" for row in planned) == 9


def test_items_ids_and_paths_are_not_on_the_page(browser: Browser, tmp_path: Path) -> None:
    run = replied(tmp_path, triples(6))
    with begun(run) as study, served(study) as page, opened(browser, page) as tab:
        join(tab, "Ann")
        at(tab, 1, 7)
        assert str(tmp_path) not in tab.content()
        assert "item-" not in tab.content()


# keyboard, undo, resume, note


@pytest.fixture
def study(tmp_path: Path) -> Iterator[OpenStudy]:
    with begun(replied(tmp_path, triples(12)), items=12) as study:
        yield study


def test_keys_alone_rate_correct_and_take_a_note(browser: Browser, study: OpenStudy) -> None:
    with served(study) as page, opened(browser, page) as tab:
        join(tab, "Ann")
        at(tab, 1, 13)
        expect(tab.locator("#asked")).to_be_focused()
        tab.keyboard.press("Enter")
        expect(tab.get_by_role("alert")).to_have_text(
            "Still to say: reply A, reply B, which is better."
        )
        tab.keyboard.press("2")
        tab.keyboard.press("5")  # the later one counts
        tab.keyboard.press("Shift+Digit1")
        tab.keyboard.press("=")
        tab.keyboard.press("n")
        tab.keyboard.type("n1b=z 5 is part of the note")
        tab.keyboard.press("Enter")  # a new line, not a rating
        tab.keyboard.type("more")
        tab.keyboard.press("Control+Enter")
        at(tab, 2, 13)
        (kept,) = study.store.ratings()
        assert kept.note == "n1b=z 5 is part of the note\nmore"
        assert sorted([kept.base, kept.tuned]) == [1, 5]
        assert kept.preference == "tie"
        expect(tab.locator("#asked")).to_be_focused()
        tab.keyboard.press("n")
        tab.keyboard.press("Escape")
        tab.keyboard.press("z")  # undo: what was said is there again
        at(tab, 1, 13)
        assert study.store.ratings() == []
        assert tab.locator("input:checked").evaluate_all("all => all.map(x => x.value)") == [
            "5", "1", "tie", "on",
        ]  # fmt: skip
        expect(tab.locator("#note")).to_have_value("n1b=z 5 is part of the note\nmore")
        tab.keyboard.press("a")
        tab.keyboard.press("Enter")
        at(tab, 2, 13)
        press(tab, 3, 4, "b")
        at(tab, 3, 13)
        for place, values in ((2, ["3", "4", "b"]), (1, ["5", "1", "a"])):
            tab.keyboard.press("z")
            at(tab, place, 13)
            checked = tab.locator("input:checked").evaluate_all("all => all.map(x => x.value)")
            assert checked[:3] == values
        tab.keyboard.press("z")  # nothing left
        at(tab, 1, 13)


def test_keys_can_be_turned_off(browser: Browser, study: OpenStudy) -> None:
    """As WCAG 2.1.4 asks of keys that are single characters."""
    with served(study) as page, opened(browser, page) as tab:
        join(tab, "Ann")
        tab.get_by_label("Keys on").uncheck()
        tab.keyboard.press("5")
        tab.keyboard.press("a")
        assert tab.locator("#rate input:checked").count() == 0


def test_a_phone_is_told_of_no_keys(browser: Browser, study: OpenStudy) -> None:
    phone = {"viewport": {"width": 390, "height": 900}}
    with served(study) as page, opened(browser, page, **phone) as tab:
        join(tab, "Ann")
        expect(tab.get_by_label("Keys on")).to_be_visible()
        expect(tab.get_by_text("the better one")).to_be_hidden()


def test_the_tab_key_reaches_everything(browser: Browser, study: OpenStudy) -> None:
    with served(study) as page, opened(browser, page) as tab:
        join(tab, "Ann")
        at(tab, 1, 13)
        reached = []
        for _ in range(12):
            tab.keyboard.press("Tab")
            reached.append(tab.evaluate("document.activeElement.id || document.activeElement.name"))
        assert reached[:8] == ["prompt", "text-a", "a", "text-b", "b", "prefer", "note", "send"]
        assert "keys" in reached
        for field in tab.locator("#rate input, #rate textarea, #rate button").all():
            assert field.evaluate("e => (e.labels?.length ?? 0) + e.innerText.length") > 0
        expect(tab.get_by_role("radio", name="4, mostly")).to_have_count(2)
        expect(tab.get_by_role("group", name="How well does reply B")).to_be_visible()


def test_who_comes_back_goes_on(browser: Browser, study: OpenStudy) -> None:
    with served(study) as page:
        with opened(browser, page) as tab:
            join(tab, "Ann")
            press(tab, 1, 2, "b")
            at(tab, 2, 13)
            prompt = tab.locator("#prompt").inner_text()
            tab.reload()  # the address keeps the name
            at(tab, 2, 13)
        with opened(browser, page) as tab:
            join(tab, "ANN")
            at(tab, 2, 13)
            assert tab.locator("#prompt").inner_text() == prompt
            assert tab.locator("#who").inner_text() == "Ann"
    with served(study) as page, opened(browser, page) as tab:  # the server too
        join(tab, "Ann")
        at(tab, 2, 13)
        for place in range(2, 14):
            at(tab, place, 13)
            press(tab, 1, 2, "b")
        expect(tab.get_by_text("All rated")).to_be_visible()
        tab.keyboard.press("z")
        at(tab, 13, 13)


def test_a_server_that_is_gone_is_told(browser: Browser, study: OpenStudy) -> None:
    with served(study) as page:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(page.address)
        join(tab, "Ann")
    press(tab, 1, 2, "b")
    expect(tab.get_by_role("alert")).to_contain_text("The server does not answer.")
    assert tab.locator("#rate input:checked").count() == 3  # and nothing on the page is lost
    context.close()


# how it looks

CONTRAST = """
() => {
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const channel = (c) => linear(c / 255);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest(":disabled, noscript")) continue;
    const [a, b] = [rgb(getComputedStyle(e).color), ground(e)].map(light).sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.id || e.textContent.trim().slice(0, 20)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_it_reads_in_the_light_in_the_dark_and_on_a_phone(
    browser: Browser, study: OpenStudy, scheme: Any, width: int
) -> None:
    size: Any = {"width": width, "height": 800}
    with (
        served(study) as page,
        opened(browser, page, color_scheme=scheme, viewport=size, reduced_motion="reduce") as tab,
    ):
        for step in ("joining", "rating", "missing"):
            if step == "rating":
                join(tab, "Ann")
                tab.keyboard.press("3")
                tab.keyboard.press("a")
            if step == "missing":
                tab.keyboard.press("Enter")
                expect(tab.get_by_role("alert")).to_have_text("Still to say: reply B.")
            found = tab.evaluate(CONTRAST)
            assert len(found) > 4
            assert found[0][0] >= 4.5, found[:3]  # WCAG AA
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        small = [
            box for button in tab.locator("#rate button, .choices span").all()
            if (box := button.bounding_box()) and min(box["width"], box["height"]) < 40
        ]  # fmt: skip
        assert small == []
        grounds = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (grounds == "rgb(20, 23, 28)") == (scheme == "dark")


# whatever the replies hold

AUTOMATIC = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<body onload=alert(1)>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<iframe src='javascript:parent.alert(1)'></iframe>",
    "<iframe onload=alert(1)></iframe>",
    "<details open ontoggle=alert(1)>x</details>",
    "<input autofocus onfocus=alert(1)>",
    "<textarea autofocus onfocus=alert(1)></textarea>",
    "<audio src=x onerror=alert(1)></audio>",
    "<video><source onerror=alert(1) src=x></video>",
    "<style onload=alert(1)>a{}</style>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s></svg>",
    "<svg><image href=x onerror=alert(1)></svg>",
    "<link rel=stylesheet href='data:text/css,' onload=alert(1)>",
    "<script src='data:text/javascript,alert(1)'></script>",
    "<object data=x onerror=alert(1)></object>",
    "<img srcset=x onerror=&#97;lert(1)>",
)
BEFORE = ("", '">', "'>", "</textarea>", "</title>")
PAYLOADS = [before + payload for before in BEFORE for payload in AUTOMATIC]


def alarmed(tab: Tab) -> list[str]:
    """The alerts of a page, as they come."""
    alerts: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        alerts.append(dialog.message)
        dialog.dismiss()

    tab.on("dialog", dismiss)
    return alerts


def test_there_are_a_hundred_payloads_and_unescaped_each_of_them_runs(browser: Browser) -> None:
    assert len(set(PAYLOADS)) == 100
    tab = browser.new_page()
    alerts = alarmed(tab)
    harmless = []
    for payload in PAYLOADS:
        before = len(alerts)
        tab.goto("about:blank")
        tab.set_content(f"<!doctype html><div>{payload}</div>")
        for _ in range(40):
            if len(alerts) > before:
                break
            tab.wait_for_timeout(25)
        else:
            harmless.append(payload)
    tab.close()
    assert harmless == []


def test_none_of_a_hundred_payloads_runs_in_prompt_reply_or_note(
    browser: Browser, tmp_path: Path
) -> None:
    """Twenty items, of which each text holds five of them."""
    some = [" x ".join(PAYLOADS[k : k + 5]) for k in range(0, 100, 5)]
    said = [(f"{k} {text}", f"{text} {k}", text) for k, text in enumerate(some)]
    shown: set[str] = set()
    with begun(replied(tmp_path, said)) as study, served(study) as page:
        with opened(browser, page) as tab:
            alerts = alarmed(tab)
            join(tab, "Ann")
            for place in range(1, 23):
                at(tab, place, 22)
                prompt = tab.locator("#prompt").inner_text()
                shown.add(prompt)
                text = some[int(prompt.split(" ", 1)[0])]
                tab.locator("#note").fill(text)
                tab.keyboard.press("Escape")
                press(tab, 1, 2, "b")
                if place < 22:  # the note is shown again
                    at(tab, place + 1, 22)
                    tab.keyboard.press("z")
                    at(tab, place, 22)
                    expect(tab.locator("#note")).to_have_value(text)
                    tab.keyboard.press("Enter")
                assert tab.locator("#rate :is(iframe, img, svg, script, object)").count() == 0
            expect(tab.get_by_text("All rated")).to_be_visible()
            tab.wait_for_timeout(300)
            assert alerts == []
        assert shown == {prompt for prompt, *_ in said}
        assert {rated.note for rated in study.store.ratings()} == set(some)


def test_none_of_a_hundred_payloads_runs_as_a_name(browser: Browser, tmp_path: Path) -> None:
    """Typed or in the address; and what is too long is refused in words."""
    with begun(replied(tmp_path, triples(2))) as study, served(study) as page:
        with opened(browser, page) as tab:
            alerts = alarmed(tab)
            for k, payload in enumerate(PAYLOADS):
                if k < 20:  # from the address
                    tab.evaluate("name => history.replaceState(null, '', '#' + name)", payload)
                    tab.reload()
                else:  # as the form does it
                    tab.evaluate("join", payload)
                # else the answer to the one before could be taken for this one's
                expect(tab.locator("body")).not_to_have_attribute("aria-busy", "true")
                if len(payload) <= 60:
                    expect(tab.locator("#who")).to_have_text(payload)
                else:
                    expect(tab.get_by_role("alert")).to_contain_text("at most 60 characters")
            tab.wait_for_timeout(300)
            assert alerts == []
        names = {standing.rater for standing in study.store.raters()}
    assert names == {payload for payload in PAYLOADS if len(payload) <= 60}


def test_a_page_that_escaped_nothing_would_be_seen(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the two tests above: the same page, with texts as HTML and no policy."""
    folder = tmp_path / "page"
    shutil.copytree(app._PAGE, folder)
    script = (folder / "page.js").read_text(encoding="utf-8")
    (folder / "page.js").write_text(script.replace("textContent", "innerHTML"), encoding="utf-8")
    monkeypatch.setattr(app, "_PAGE", folder)
    monkeypatch.setattr(guard, "_HEADERS", {})
    payload = PAYLOADS[1]
    with begun(replied(tmp_path, [(payload, payload, payload)])) as study, served(study) as page:
        tab = browser.new_page()
        alerts = alarmed(tab)
        tab.goto(page.address)
        tab.get_by_label("Your name").fill(payload)
        tab.keyboard.press("Enter")
        until(lambda: tab.wait_for_timeout(20) or len(alerts) >= 4)  # name, prompt, both replies
        tab.close()


def test_an_escape_that_is_left_out_would_be_stopped_and_seen(
    browser: Browser, study: OpenStudy
) -> None:
    """Even a page that wrote a reply as HTML could not: the browser refuses it."""
    with served(study) as page:
        tab = browser.new_page()
        alerts = alarmed(tab)
        tab.goto(page.address)
        for way in (
            "document.body.innerHTML = '<img src=x onerror=alert(1)>'",
            "document.createElement('script').text = 'alert(1)'",
            "document.body.setAttribute('onclick', 'alert(1)')",
        ):
            with pytest.raises(Exception, match="This document requires 'Trusted"):
                tab.evaluate(way)
        assert alerts == []
        tab.close()


ODD = {
    "right to left": "\u202edesrever\u202c and \u2067isolate\u2069 \u05e9\u05dc\u05d5\u05dd",
    "an open mark": "\u202e\u2066\u202b never closed",
    "terminal escapes": "\x1b[2J\x1b]0;title\x07\x9b31m",
    "controls": "a\x01b\x08c\x7f",
    "half a surrogate": "\ud83d half, \udc00 the other",
    "many marks": "z" + "\u0301" * 500,
    "long": "word " * 20_000,
    "one word": "x" * 100_000,
    "lines": "line\n" * 5_000,
    "nothing": "",
    "blank": " \n\t ",
    "json": '{"a": "</script>", "__proto__": {"x": 1}}',
    "markdown": "# title\n[link](javascript:alert(1))\n![i](x)\n```html\n<b>\n```",
    "null": "a\0b",
}


def test_odd_replies_are_shown_and_can_be_rated(browser: Browser, tmp_path: Path) -> None:
    said = [(f"{name}:", "to be odd", f"plain {name}") for name in ODD]
    size: Any = {"width": 900, "height": 700}
    with begun(replied(tmp_path, said)) as study:
        odd = {
            key: replace(exchange, base=ODD[exchange.prompt.removesuffix(":")])
            for key, exchange in study.said.items()
        }
        _rate_odd(browser, replace(study, said=odd), size)
        json.dumps(export(study), allow_nan=False).encode()


def _rate_odd(browser: Browser, study: OpenStudy, size: Any) -> None:
    with served(study) as page:
        with opened(browser, page, viewport=size) as tab:
            join(tab, "Ann")
            count = len(ODD) + 1
            for place in range(1, count + 1):
                at(tab, place, count)
                name = tab.locator("#prompt").inner_text().removesuffix(":")
                texts = [tab.locator(f"#text-{side}").text_content() for side in "ab"]
                (odd,) = [text for text in texts if text != f"plain {name}"]
                if name in ("nothing", "blank"):
                    assert odd == "(empty)"
                elif name != "half a surrogate":  # which has no character of its own
                    assert odd == ODD[name]
                assert tab.evaluate("document.documentElement.scrollWidth") <= 900, name
                # what turns the writing round ends with its text: the questions stand as ever
                boxes = [tab.get_by_text(f"Reply {s}", exact=True).bounding_box() for s in "AB"]
                assert boxes[0]["x"] < boxes[1]["x"]  # type: ignore[index]
                press(tab, 1, 2, "b")
            expect(tab.get_by_text("All rated")).to_be_visible()
