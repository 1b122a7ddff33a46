"""Does the report's page work in a real browser, opened from disk, searched, filtered, read?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from browser import chromium, opened, violations
from comparison import asked, small_comparison
from tunediff.report.html import report
from tunediff.run.store import Run

NARROW, WIDE = 390, 1280


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("report") / "run"
    return small_comparison(folder, suites=asked(30), part_tokens=3000)


@pytest.fixture(scope="module")
def page_of(run: Run) -> Path:
    return report(run)


def rows(page: Page) -> list[str]:
    """The ids of the rows that are shown."""
    return page.locator(".row .who > bdi").all_text_contents()


def chosen(page: Page, label: str) -> Locator:
    """The choice of that name above the list."""
    labels = page.locator(".controls label").filter(has_text=re.compile(f"^{label}"))
    return labels.locator("select")


def counted(page: Page) -> str:
    return page.get_by_role("status").text_content() or ""


def open_all(page: Page) -> None:
    for place in range(3):
        page.locator(".row").nth(place).click()
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, 800, NARROW])
def test_it_opens_from_disk_and_nothing_in_it_is_a_serious_barrier(
    browser: Browser, page_of: Path, width: int, dark: bool
) -> None:
    """``opened`` fails on any request but the file itself and on any word on the console."""
    with opened(browser, page_of, width=width, dark=dark) as watched:
        page = watched.page
        assert page.title().startswith("models/base → ")
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert violations(page) == []


def test_a_barrier_would_be_found(browser: Browser, page_of: Path) -> None:
    with opened(browser, page_of) as watched:
        watched.page.evaluate("document.querySelector('h1').style.color = '#eeeeee'")
        watched.page.evaluate("document.documentElement.lang = ''")
        found = violations(watched.page)
        assert any("color-contrast" in line for line in found)
        assert any("html-has-lang" in line for line in found)


def test_a_request_or_a_word_on_the_console_would_be_found(
    browser: Browser, page_of: Path, tmp_path: Path
) -> None:
    text = page_of.read_text(encoding="utf-8").replace("<main>", "<main><img src=x.png>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError), opened(browser, tmp_path / "page.html") as watched:
        watched.page.wait_for_timeout(100)


def test_search_and_filters_find_what_they_say(browser: Browser, page_of: Path) -> None:
    with opened(browser, page_of) as watched:
        page = watched.page
        assert counted(page) == "120 of 120 items"
        page.keyboard.press("/")
        page.keyboard.type("HARBOUR 27")
        assert rows(page) == ["w27"]
        assert counted(page) == "1 of 120 items"
        page.keyboard.press("Escape")
        assert counted(page) == "120 of 120 items"
        chosen(page, "Axis or suite").select_option("axis:target")
        assert counted(page) == "30 of 120 items"
        chosen(page, "Order").select_option("asked")
        assert rows(page)[:3] == ["s0", "s1", "s2"]
        worse, better, same = (
            (chosen(page, "Change").select_option(way), int(counted(page).split()[0]))[1]
            for way in ("worse", "better", "same")
        )
        assert worse + better + same == 30
        assert worse > 0
        assert better > 0


def test_what_lies_within_the_margin_is_neither_better_nor_worse(
    browser: Browser, page_of: Path
) -> None:
    with opened(browser, page_of) as watched:
        page = watched.page
        measures = page.evaluate(
            "() => JSON.parse(document.getElementById('data').textContent).variants[0].measures"
        )
        small = [
            (m, m["figures"][3])
            for m in measures
            if m["margin"] and m["direction"]
            and any(0 < abs(e) <= m["margin"] for e in m["figures"][3])
        ]  # fmt: skip
        assert small
        for m, effects in small[:3]:
            chosen(page, "Measure").select_option(label=m["label"])
            turned = [m["direction"] * e for e in effects]
            for way, wanted in (
                ("worse", sum(e < -m["margin"] for e in turned)),
                ("better", sum(e > m["margin"] for e in turned)),
                ("same", sum(abs(e) <= m["margin"] for e in turned)),
            ):
                chosen(page, "Change").select_option(way)
                assert counted(page) == f"{wanted} of 120 items"


@pytest.mark.parametrize("width", [WIDE, 800, NARROW])
def test_figures_of_an_axis_do_not_overlap(browser: Browser, page_of: Path, width: int) -> None:
    with opened(browser, page_of, width=width) as watched:
        wide = watched.page.evaluate(
            """() => [...document.querySelectorAll(".axis-figures")].flatMap((figures) => {
                 const cells = figures.querySelectorAll("dd");
                 cells[0].firstChild.textContent = "+0.0001808 ";
                 cells[1].textContent = "0.00456 → 0.00474";
                 return [...cells].map((cell) => cell.scrollWidth - cell.clientWidth);
               })"""
        )
        assert len(wide) >= 6
        assert set(wide) == {0}


def test_on_a_phone_three_verdicts_of_several_models_fit(browser: Browser, tmp_path: Path) -> None:
    suites = (*asked(8)[:2], asked(8)[3])  # target, general, fluency
    for name in ("skill", "forgetful"):
        small_comparison(tmp_path / name, suites=suites, variant=name)
    (tmp_path / "variants.json").write_text('["skill", "forgetful"]', encoding="utf-8")
    with opened(browser, report(tmp_path), width=NARROW) as watched:
        cut = watched.page.evaluate(
            """() => {
                 for (const pill of document.querySelectorAll(".matrix .pill"))
                   pill.textContent = "= preserved";
                 const table = document.querySelector(".matrix").parentElement;
                 return table.scrollWidth - table.clientWidth;
               }"""
        )
        assert watched.page.locator(".matrix thead th").count() == 4
        assert cut <= 0


def test_an_item_that_is_opened_can_be_seen(browser: Browser, page_of: Path) -> None:
    with opened(browser, page_of) as watched:
        page = watched.page
        page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
        row = page.locator(".row").nth(1)
        page.evaluate("(y) => scrollTo(0, y - innerHeight + 60)", row.bounding_box()["y"])
        row.press("Enter")
        found = page.locator(".detail").first.bounding_box()
        assert found is not None
        assert found["y"] < 450  # of 900


def test_the_worst_come_first_by_any_measure(browser: Browser, page_of: Path, run: Run) -> None:
    effects = {
        row.item: (row.effect_sum or 0.0) / row.count
        for row in run.rows()
        if row.measure == "words" and row.effect_sum is not None
    }
    with opened(browser, page_of) as watched:
        page = watched.page
        chosen(page, "Measure").select_option(label="words a reply")
        chosen(page, "Order").select_option("most")
        shown = rows(page)
        sizes = [abs(effects[item]) for item in shown]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] == max(map(abs, effects.values()))


def test_an_item_opens_by_keyboard_with_both_replies_and_their_difference(
    browser: Browser, page_of: Path, run: Run
) -> None:
    with opened(browser, page_of) as watched:
        page = watched.page
        page.get_by_label("Search").fill("s3")
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        detail = page.locator(".detail")
        [line] = [x for x in run.replies() if x["item"] == "s3"]
        assert detail.locator(".said.base").text_content() == line["base"]["text"]
        assert detail.locator(".said.tuned").text_content() == line["tuned"]["text"]
        detail.get_by_role("checkbox").check()
        base = detail.locator(".said.base")
        assert base.text_content() == line["base"]["text"]
        kept, only = ("".join(detail.locator(f".sides {tag}").all_text_contents())
                      for tag in ("del", "ins"))  # fmt: skip
        assert kept in line["base"]["text"] or not kept
        assert kept or only
        page.keyboard.press("Escape")


def test_the_microscope_shows_tokens_and_what_both_expected(
    browser: Browser, page_of: Path
) -> None:
    with opened(browser, page_of) as watched:
        page = watched.page
        chosen(page, "Axis or suite").select_option("axis:target")
        page.locator(".row").first.click()
        lens = page.locator(".lens").first
        lens.get_by_role("button", name="tuned’s reply").click()
        assert lens.get_by_role("button", name="tuned’s reply").get_attribute("aria-pressed") == (
            "true"
        )
        tokens = lens.locator(".tokens")
        tokens.focus()
        assert "KL" in (lens.locator(".read").text_content() or "")
        page.keyboard.press("End")
        last = lens.locator(".tok").last
        assert "now" in (last.get_attribute("class") or "")
        lens.get_by_role("button", name="Δ log-probability").click()
        assert "twice as likely" in (lens.text_content() or "")


def test_top_candidates_are_shown_where_they_are_kept(browser: Browser, page_of: Path) -> None:
    with opened(browser, page_of) as watched:
        page = watched.page
        chosen(page, "Measure").select_option(label="KL(base‖tuned)")
        chosen(page, "Order").select_option("most")
        page.locator(".row").first.click()
        lens = page.locator(".lens").first
        lens.locator(".tok").first.hover()
        assert lens.locator(".read table").count() == 2
        assert lens.locator(".read table").first.locator("tbody tr").count() == 5


def test_light_and_dark_are_toggled_and_drawings_follow(browser: Browser, page_of: Path) -> None:
    with opened(browser, page_of) as watched:
        page = watched.page
        ink = "getComputedStyle(document.querySelector('.axis svg text')).fill"
        paper = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(f"[{ink}, {paper}]")
        page.get_by_role("button", name="Dark").click()
        dark = page.evaluate(f"[{ink}, {paper}]")
        assert light[0] != dark[0]
        assert light[1] != dark[1]
        page.get_by_role("button", name="Light").click()
        assert page.evaluate(f"[{ink}, {paper}]") == light


def test_the_first_minute_needs_no_script(browser: Browser, page_of: Path) -> None:
    with opened(browser, page_of, java_script_enabled=False) as watched:
        page = watched.page
        assert page.locator("h1").is_visible()
        assert page.locator(".axis svg").count() == page.locator(".axis").count() > 0
        assert page.get_by_text("What stands out").is_visible()
        assert "needs JavaScript" in (page.locator("noscript").text_content() or "")
        assert page.locator("#theme").is_hidden()


def test_every_id_is_there_once_and_every_link_leads_somewhere(
    browser: Browser, page_of: Path
) -> None:
    with opened(browser, page_of) as watched:
        page = watched.page
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))
        targets = page.evaluate(
            "[...document.querySelectorAll('a[href^=\"#\"], use')]"
            ".map(e => e.getAttribute('href').slice(1))"
        )
        assert set(targets) <= set(ids)
        named = page.evaluate(
            "[...document.querySelectorAll('svg[aria-labelledby]')]"
            ".flatMap(e => e.getAttribute('aria-labelledby').split(' '))"
        )
        assert set(named) <= set(ids)


def test_on_paper_everything_is_open_and_the_controls_are_gone(
    browser: Browser, page_of: Path
) -> None:
    with opened(browser, page_of, dark=True) as watched:
        page = watched.page
        on_screen = page.evaluate("getComputedStyle(document.body).color")
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).color") != on_screen  # dark ink
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details.fold:not([open])").count() == 0
        assert page.locator(".bar").is_hidden()
        assert page.locator(".controls").is_hidden()
        assert page.locator("h1").is_visible()
