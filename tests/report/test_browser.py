"""The pages in a real browser: filters, sorting, search and keys do what they say, nothing is asked of the network.

Needs Chromium (Debian: `apt-get install chromium`); one browser serves all tests.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from minilima.report.sweep_page import write_sweep_report
from tests.report.runs import Prompt, finished_run, plain_prompts

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HUGE = "long " * 20_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


def prompts() -> list[Prompt]:
    """Twenty-six pairs of every kind, one of them hostile."""
    rows = plain_prompts(24, skill=1.0)
    for number, row in enumerate(rows):
        row |= {"category": ("koala", "vicuna")[number % 2], "explanation": f"Reason {number}", "tuned": "short", "base": "a b c"}
    rows[3] |= {"preference": 1.0, "tuned": "one two three four five", "explanation": "A peculiar reason."}
    rows[5] |= {"preference": 1.5, "orders": [1.0, 2.0]}
    rows[7] |= {"preference": 1.0, "tuned": "one two three four"}
    rows[9] |= {"tuned": HUGE}
    hostile = "</script><script>window.caught = 1</script><img src=x onerror='window.caught = 1'>\x1b[31m\u202e\ud800"
    rows.append(
        {
            "instruction": hostile,
            "tuned": hostile,
            "base": hostile,
            "preference": 2.0,
            "explanation": hostile,
            "category": "koala",
        }
    )
    return [*rows, {**rows[0], "instruction": "Unread one", "preference": None}]


def with_cot(rows: list[Prompt], wins: int) -> list[Prompt]:
    """With the verdicts of a second judge, who gives the base model all but the first prompts, fewer the more `wins`."""
    return [
        {**row, "verdicts_by_cot": {"preference": 2.0 if number < 20 - wins // 2 else 1.0}} for number, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    outputs = tmp_path_factory.mktemp("browser")
    sweep = []
    for size in (10, 20, 30):
        rows = [{**row, "explanation": f"closeness {size}"} for row in plain_prompts(20, 0.4 + size / 100)]
        sweep.append(finished_run(outputs, with_cot(rows, size), f"dataset.size={size}", "judges=[reference,cot]"))
    run = finished_run(outputs / "one", prompts())
    split = [{**row, "verdicts_by_cot": {"preference": 1.0, "explanation": f"Cot {n}"}} for n, row in enumerate(prompts()[:6])]
    panel = finished_run(outputs / "panel", split, "judges=[reference,cot]", "eval_set.size=6")
    told = write_sweep_report([summary.folder for summary in sweep], outputs / "sweep.html")
    return {"run": run.folder / "report.html", "sweep": told, "panel": panel.folder / "report.html"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's own sandbox cannot be used by root, which is who runs tests in containers.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        arguments = [*sandbox, "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser, pages: dict[str, Path]) -> Iterator[Page]:
    """A page on which any complaint of the browser's, and any request but for the file itself, is a failure."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url) if request.url != page.url.split("#")[0] else None)
    page.goto(pages["run"].as_uri())
    heard.clear()  # the file itself, before it has an address
    page.reload()
    yield page
    assert heard == []
    page.close()


def shown(page: Page) -> list[str]:
    return [pair.get_attribute("data-id") or "" for pair in page.locator(".pair").all()]


def test_ten_pairs_are_shown_at_a_time_and_buttons_and_keys_turn_the_page(open_page: Page) -> None:
    assert shown(open_page) == [str(number) for number in range(10)]
    open_page.click("#next")
    assert shown(open_page)[0] == "10"
    open_page.keyboard.press("n")
    expect(open_page.locator("#status")).to_have_text("26 of 26 · page 3 of 3")
    expect(open_page.locator("#next")).to_be_disabled()
    open_page.keyboard.press("p")
    assert shown(open_page)[0] == "10"


def test_filters_for_outcome_order_length_and_category_work_together(open_page: Page) -> None:
    open_page.click("#outcomes >> text=lost")
    assert shown(open_page) == ["3", "7"]
    open_page.select_option("#length", "base")
    assert shown(open_page) == []
    expect(open_page.locator("#status")).to_have_text("Nothing matches.")
    open_page.click("#reset")
    open_page.click("#flipped")
    assert shown(open_page) == ["5"]
    open_page.click("#reset")
    open_page.click("#outcomes >> text=unread")
    assert shown(open_page) == ["25"]
    open_page.click("#outcomes >> text=all")
    open_page.select_option("#category", "vicuna")
    assert shown(open_page)[:3] == ["1", "3", "5"]
    expect(open_page.locator("#status")).to_contain_text("12 of 26")


def test_the_search_looks_into_instructions_answers_and_the_judges_words(open_page: Page) -> None:
    open_page.keyboard.press("/")
    open_page.keyboard.type("peculiar")
    assert shown(open_page) == ["3"]
    expect(open_page.locator(".words")).to_contain_text("A peculiar reason.")
    open_page.fill("#words", "three FOUR five")
    assert shown(open_page) == ["3"]
    open_page.fill("#words", "thing 12")
    assert shown(open_page) == ["12"]


def test_pairs_are_sorted_as_asked(open_page: Page) -> None:
    open_page.select_option("#sort", "gain")
    assert shown(open_page)[:3] == ["9", "3", "7"]
    open_page.select_option("#sort", "preference")
    assert shown(open_page)[:3] == ["3", "7", "5"]
    open_page.select_option("#sort", "preference-down")
    assert shown(open_page)[0] == "0"
    open_page.click("#reset")
    assert shown(open_page)[0] == "0"


def test_the_keyboard_goes_from_pair_to_pair(open_page: Page) -> None:
    for key, expected in (("j", "0"), ("j", "1"), ("k", "0"), ("k", "0")):
        open_page.keyboard.press(key)
        assert open_page.evaluate("document.activeElement.dataset.id") == expected
    open_page.focus("#words")
    open_page.keyboard.type("jnp/")
    assert open_page.input_value("#words") == "jnp/"


def test_a_huge_answer_is_shown_in_part_until_it_is_asked_for(open_page: Page) -> None:
    open_page.fill("#words", HUGE[:200].strip())
    assert shown(open_page) == ["9"]
    pair = open_page.locator(".pair")
    assert len(pair.inner_text()) < 3000
    pair.get_by_role("button", name="Show all 100,000 characters").click()
    assert len(pair.inner_text()) > 99_000
    assert open_page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_hostile_text_does_nothing_but_be_read(open_page: Page) -> None:
    open_page.fill("#words", "window.caught")
    assert shown(open_page) == ["24"]
    text = open_page.locator(".pair .tuned .text").inner_text()
    assert text == "</script><script>window.caught = 1</script><img src=x onerror='window.caught = 1'>␛[31m⟨U+202E⟩\ufffd"
    assert open_page.evaluate("window.caught") is None
    assert open_page.locator("img").count() == 0


def test_the_page_forbids_itself_any_other_script_and_any_connection(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["run"].as_uri())
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.caught = 1'}))")
    assert page.evaluate("window.caught") is None
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.name)") == "TypeError"
    page.close()


def test_light_and_dark_follow_the_system_until_one_is_chosen(open_page: Page) -> None:
    def is_dark() -> bool:
        red_of_ink = open_page.evaluate("getComputedStyle(document.body).color.match(/[0-9.]+/)[0]")
        return float(red_of_ink) > 100

    for scheme, dark in (("dark", True), ("light", False)):
        open_page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert is_dark() is dark
    toggle = open_page.locator("#theme")
    toggle.click()
    toggle.click()
    expect(toggle).to_have_text("Theme: dark")
    assert is_dark()
    open_page.reload()
    assert is_dark(), "the choice is remembered"
    open_page.emulate_media(media="print")
    assert not is_dark(), "paper is white"


def test_a_narrow_screen_needs_no_scrolling_sideways(open_page: Page, pages: dict[str, Path]) -> None:
    open_page.set_viewport_size({"width": 380, "height": 800})
    assert open_page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_table_of_a_sweep_is_sorted_by_its_headings(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(pages["sweep"].as_uri())

    def column() -> list[str]:
        return page.locator("table.sortable tbody td:nth-child(2)").all_inner_texts()

    assert column() == ["30", "20", "10"], "the best comes first"
    heading = page.get_by_role("button", name="dataset.size")
    heading.click()
    assert column() == ["10", "20", "30"]
    heading.click()
    assert column() == ["30", "20", "10"]
    expect(page.locator("th", has=heading)).to_have_attribute("aria-sort", "descending")
    written = page.locator("table.sortable tbody").inner_text()
    page.select_option("#against", label="size 10")
    rows = [row.locator("td.difference").all_inner_texts() for row in page.locator("tr[data-row]").all()]
    assert rows[2] == ["compared with"] * 3, "by the run's own judge, by the other one and by the majority"
    assert [[text[0] for text in row[:2]] for row in rows[:2]] == [["+", "-"]] * 2, "the second judge sees it the other way round"
    expect(page.locator("h3 .against")).to_have_text("size 10")
    page.select_option("#against", label="size 30")
    assert page.locator("table.sortable tbody").inner_text() == written, "the script and the page write the same"
    assert page.locator("figure svg").count() == page.locator("figure").count() > 1
    assert len(heard) == 1, "the page itself and nothing else"
    page.close()


def test_prompts_on_which_judges_disagree_are_filtered_and_every_judge_is_heard(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900}, reduced_motion="reduce")
    page.goto(pages["panel"].as_uri())
    page.click("#split")
    assert shown(page) == ["0", "1", "2", "4", "5"]  # both prefer the base model's answer to prompt 3
    assert page.url.endswith("#answers?split=true")
    assert [text.split()[0] for text in page.locator(".pair .words b").all_inner_texts()[:2]] == ["reference", "cot"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_filters_stay_in_the_address_and_come_back_with_it(open_page: Page) -> None:
    open_page.click('#outcomes [data-outcome="lost"]')
    open_page.select_option("#category", "vicuna")
    assert open_page.evaluate("location.hash") == "#answers?outcome=lost&category=vicuna"
    before = shown(open_page)
    open_page.reload()
    assert shown(open_page) == before == ["3", "7"]
    assert open_page.input_value("#category") == "vicuna"
    open_page.click("#reset")
    assert open_page.evaluate("location.hash") == "#answers" and len(shown(open_page)) == 10


def test_an_address_that_names_no_filter_filters_nothing(open_page: Page) -> None:
    open_page.evaluate("location.hash = '#answers?outcome=x&sort=toString&__proto__=1&category=none&cut=true'")
    expect(open_page.locator(".pair")).to_have_count(10)


def test_all_pairs_are_printed_whole(open_page: Page) -> None:
    open_page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(shown(open_page)) == 26 and HUGE in open_page.inner_text('[data-id="9"]')
    open_page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(shown(open_page)) == 10


def test_a_wide_table_says_that_it_scrolls_and_only_where_it_does(open_page: Page) -> None:
    scrolls = "[...document.querySelectorAll('.scroll')].map((box) => [box.scrollWidth > box.clientWidth + 1, "
    said = scrolls + "box.querySelector('.sideways') !== null])"
    for width in (3000, 390, 1280):
        open_page.set_viewport_size({"width": width, "height": 800})
        open_page.wait_for_function("document.body.clientWidth <= innerWidth")
        open_page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        boxes = open_page.evaluate(said)
        assert boxes and all(wide == told for wide, told in boxes)
        assert width != 390 or any(wide for wide, _ in boxes)


def test_the_widest_table_fits_on_paper(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 718, "height": 900})  # A4 between its margins
    page.goto(pages["sweep"].as_uri())
    page.locator("table.sortable td").first.evaluate("cell => { cell.textContent = 'a_setting_or_a_name'.repeat(9) }")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def test_answers_of_several_runs_stand_beside_each_other_and_the_address_keeps_the_choice(
    browser: Browser, pages: dict[str, Path]
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto(pages["sweep"].as_uri())
    expect(page.locator("#status")).to_have_text("20 of 20 · page 1 of 2")
    first = page.locator(".pair").first
    headings = first.locator(".answers h3").all_inner_texts()
    assert first.locator(".said").all_inner_texts() == ["closeness 30", "closeness 20", "closeness 10"]
    assert [heading[:7] for heading in headings[:3]] == ["size 30", "size 20", "size 10"] and headings[3].startswith("base")
    page.click("#runs-shown >> text=size 20")
    assert first.locator(".answers .tuned").count() == 2 and first.locator(".answers .base").count() == 1
    page.select_option("#only", "differ")
    assert page.evaluate("location.hash") == "#answers?only=differ&runs=0%2C2"
    for pair in page.locator(".pair").all():
        assert len(set(pair.locator(".tuned .tag").all_inner_texts())) == 2
    chosen = page.locator("#status").inner_text()
    page.reload()
    expect(page.locator("#status")).to_have_text(chosen)
    page.click("#reset")
    page.fill("#words", "thing 12")
    expect(page.locator(".pair")).to_have_count(1)
    page.click("#reset")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator(".pair")).to_have_count(20)
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.goto(pages["sweep"].as_uri() + "#answers?runs=7&only=toString&__proto__=1")
    page.reload()
    expect(page.locator("#status")).to_have_text("20 of 20 · page 1 of 2")
    assert heard == []
    page.close()
