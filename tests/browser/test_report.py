"""The report in a real browser: silent, drawn, readable, reachable by keyboard, printable."""

from __future__ import annotations

import re

import pytest

_RUNS = ("eventful", "crowd", "awkward", "no devices")
_WIDTHS = (1280, 400)

#: Every text that is shown: its words, its size in CSS pixels, its contrast with what lies behind it (WCAG 2.2, 1.4.3).
_TEXTS = """() => {
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const luminance = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, words = walker.currentNode.data.trim();
    if (!words || e.closest('.skip') || !e.checkVisibility({contentVisibilityAuto: true})) continue;
    const style = getComputedStyle(e), svg = e.closest('svg');
    const scale = svg ? svg.getScreenCTM().a : 1;
    const [a, b] = [luminance(parse(svg ? style.fill : style.color)), luminance(behind(e))].sort((x, y) => y - x);
    found.push({words, px: parseFloat(style.fontSize) * scale, contrast: (a + 0.05) / (b + 0.05)});
  }
  return found;
}"""
#: Every chart: its size, how many marks it has, and texts that reach out of it.
_CHARTS = """() => [...document.querySelectorAll('svg')].filter(s => s.checkVisibility()).map(svg => {
  const box = svg.getBoundingClientRect();
  const out = [...svg.querySelectorAll('text')].filter(t => {
    const r = t.getBoundingClientRect();
    return r.left < box.left - 2 || r.right > box.right + 2 || r.top < box.top - 2 || r.bottom > box.bottom + 2;
  });
  const marks = svg.querySelectorAll('path, use').length;
  return {width: box.width, height: box.height, marks, out: out.map(t => t.textContent)};
})"""
_OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
_FOCUSABLE = """() => [...document.querySelectorAll('a[href], summary, [tabindex="0"]')]
  .filter(e => e.checkVisibility({contentVisibilityAuto: true})).length"""
_FOCUSED = """() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  window.order = window.order || new Map();
  if (!window.order.has(e)) window.order.set(e, window.order.size);
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  return {number: window.order.get(e), outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
          seen: box.width > 0 && box.height > 0 && box.right > 0, name: e.ariaLabel || e.textContent.trim()};
}"""


@pytest.fixture
def open_report(browser, reports):
    """Opens a report in a new window; fails at the end if the page said anything, or asked for anything but itself."""
    pages, noise = [], []

    def open_(run: str, width: int = 1280, scheme: str = "light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        address = reports[run].as_uri()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("request", lambda request: request.url in (address,) or _own(request.url) or noise.append(request.url))
        page.goto(address)
        return page

    yield open_
    for page in pages:
        page.close()
    assert noise == []


def _own(url: str) -> bool:
    """Thumbnails are in the page itself."""
    return url.startswith("data:image/png;base64,")


def _unfold(page) -> None:
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")


@pytest.mark.parametrize("run", _RUNS)
@pytest.mark.parametrize("width", _WIDTHS)
def test_every_chart_is_drawn_within_its_frame(open_report, run, width):
    page = open_report(run, width)
    _unfold(page)
    charts = page.evaluate(_CHARTS)
    assert len(charts) == page.locator("svg").count() > 0
    for chart in charts:
        assert chart["marks"] > 5
        assert chart["width"] > 300
        assert chart["height"] > 150
        assert chart["out"] == []


@pytest.mark.parametrize("run", _RUNS)
@pytest.mark.parametrize("width", _WIDTHS)
def test_everything_can_be_read(open_report, run, width):
    page = open_report(run, width)
    assert page.evaluate(_OVERFLOW) == 0
    _unfold(page)
    assert page.evaluate(_OVERFLOW) == 0
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        texts = page.evaluate(_TEXTS)
        assert len(texts) > 100
        assert [t for t in texts if t["px"] < 11] == []
        assert [t for t in texts if t["contrast"] < 4.5] == []


def test_the_decision_and_the_alarms_are_seen_without_scrolling(open_report):
    page = open_report("eventful")
    for text in ("DON'T SHIP", "false accepts grow 3.3×"):
        box = page.get_by_text(text).first.bounding_box()
        assert box["y"] + box["height"] < 900


def test_thumbnails_are_shown(open_report):
    page = open_report("eventful")
    widths = page.evaluate("() => [...document.images].map(i => i.complete ? i.naturalWidth : 0)")
    assert widths == [8] * 12


@pytest.mark.parametrize("run", ["eventful", "crowd"])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(open_report, run):
    page = open_report(run)
    expected = page.evaluate(_FOCUSABLE)
    stops = []
    for _ in range(expected + 5):
        page.keyboard.press("Tab")
        if (stop := page.evaluate(_FOCUSED)) is None or stop["number"] < len(stops):
            break
        stops.append(stop)
    assert len(stops) == expected
    assert [stop["name"] for stop in stops if not (stop["outline"] and stop["seen"])] == []


def test_the_first_stop_leads_to_the_decision(open_report):
    page = open_report("eventful")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**#decision")


def test_a_folded_target_unfolds_by_its_link_and_by_key(open_report):
    page = open_report("crowd")
    page.get_by_role("navigation").get_by_role("link", name="board-07").click()
    target = page.locator("details.target", has_text="board-07")
    assert target.get_attribute("open") is not None
    other = page.locator("details.target", has_text="board-08")
    assert other.get_attribute("open") is None
    other.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert other.get_attribute("open") is not None


@pytest.mark.parametrize("run", _RUNS)
def test_paper_holds_everything(open_report, run):
    """An A4 page has 794 CSS pixels, less the margins of 0.4 inches that Chromium leaves."""
    page = open_report(run, 794 - 2 * 38, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(_OVERFLOW) <= 0
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    hidden = "() => [...document.querySelectorAll('table, svg')].filter(e => !e.getBoundingClientRect().height).length"
    assert page.evaluate(hidden) == 0
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4")))
    assert pages >= (10 if run == "crowd" else 2)


def test_it_has_the_landmarks_that_a_screen_reader_jumps_between(open_report):
    page = open_report("eventful")
    for role, name in (
        ("main", None),
        ("banner", None),
        ("navigation", "Sections"),
        ("region", "Gates of every target"),
        ("region", "Read this before you sign"),
    ):
        assert page.get_by_role(role, name=name).count() == 1
    assert page.get_by_role("table").first.locator("caption").count() == 1
    assert page.get_by_role("img", name=re.compile("Pareto front")).count() == 3
