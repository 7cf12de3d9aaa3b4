"""The report as one file, and in a headless browser where there is one."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scdr.experiments.table import Cell, Row, Table
from scdr.report import Page, Picture, Section, render

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
EXPECTED = ("willReadFrequently", "GPU stall due to ReadPixels")
"""What plotly's own code makes Chromium remark on."""
VOID = {"meta", "link", "img", "br", "hr", "input"}
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 2"><rect width="4" height="2"/></svg>'
)

HARNESS = """<!DOCTYPE html><body>
<iframe src="report.html" width="WIDTH" height="1500"></iframe>
<script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
addEventListener("load", async () => {
  await wait(500);
  const found = Array.from(document.querySelectorAll("iframe"), (frame) => {
    const inside = frame.contentDocument, root = inside.documentElement;
    const rows = () => Array.from(inside.querySelectorAll("tbody tr"));
    const column = (k) => rows().map((row) => row.cells[k].textContent);
    const click = (k) => inside.querySelectorAll("thead button")[k].click();
    const orders = {};
    click(1); orders.up = column(0);
    click(1); orders.down = column(0);
    orders.marked = inside.querySelector("th[aria-sort=descending]").cellIndex;
    click(0); orders.names = column(0);
    const style = frame.contentWindow.getComputedStyle(inside.body);
    return {
      orders, wide: root.scrollWidth, given: root.clientWidth,
      colours: [style.backgroundColor, style.color],
      canvases: inside.querySelectorAll(".plot canvas").length,
      image: inside.querySelector("figure img").naturalWidth,
    };
  });
  document.body.innerHTML = "<pre></pre>";
  document.querySelector("pre").textContent = JSON.stringify(found);
});
</script></body>"""


@pytest.fixture(scope="module")
def page() -> Page:
    values = {"b": "0.9 ± 0.1", "a & <i>": "10.5", "c": "2.25", "none": ""}
    rows = tuple(Row(name, (Cell(value, bold=name == "b"),)) for name, value in values.items())
    plane = [[1.0, 2.0], [2.0, 3.0]]
    surface = {"label": "</script><b>", "zeta": [-1, 1], "gamma": [-1, 1], "mae": plane}
    return Page(
        title="A <title>",
        summary=("One & all.",),
        sections=(
            Section(
                name="one",
                title="One",
                findings=("found",),
                warnings=("warned",),
                picture=Picture(SVG, "svg+xml", 'a "picture"'),
                tables=(Table("Table", ("", "MAE"), rows, ("note",)),),
                surfaces=(surface,),
            ),
            Section(name="two", title="Two", preformatted={"TOML": "a = '<x>'"}),
        ),
    )


class Balanced(html.parser.HTMLParser):
    """Every element that is opened is closed, in turn; ids are used once."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_its_texts_are_texts(page: Page) -> None:
    data = render(page)
    assert data == render(page)
    text = data.decode()
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert len(set(parser.ids)) == len(parser.ids)
    assert "<title>A &lt;title&gt;</title>" in text
    assert "a &amp; &lt;i&gt;" in text
    surfaces = re.search(r'id="surfaces">(.*?)</script>', text)
    assert surfaces
    assert json.loads(surfaces[1])["one"][0]["label"] == "</script><b>"


def test_the_plotting_library_is_inside_only_where_it_is_used(page: Page) -> None:
    flat = Page(page.title, page.summary, page.sections[1:])
    assert len(render(flat)) < 20_000
    assert 4_000_000 < len(render(page)) < 5_000_000


@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the report in")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 400)])
def test_in_a_browser(page: Page, scheme: str, width: int, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(render(page))
    (tmp_path / "harness.html").write_text(HARNESS.replace("WIDTH", str(width)))
    command = [
        *(str(BROWSER), "--headless=new", "--no-sandbox", "--enable-logging=stderr"),
        *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
        *("--allow-file-access-from-files", "--host-resolver-rules=MAP * ~NOTFOUND"),
        *("--virtual-time-budget=3000", "--window-size=1900,1200", "--dump-dom"),
        *(f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",),
        f"--user-data-dir={tmp_path / 'profile'}",
        (tmp_path / "harness.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert [line for line in console if not any(known in line for known in EXPECTED)] == []
    result = re.search(r"<pre>(.*)</pre>", done.stdout)
    assert result, done.stdout[-500:]
    for found in json.loads(html.unescape(result[1])):
        assert found["wide"] <= found["given"]
        assert found["canvases"] > 0
        assert found["image"] > 0
        assert found["orders"]["up"] == ["b", "c", "a & <i>", "none"]
        assert found["orders"]["down"] == ["a & <i>", "c", "b", "none"]
        assert found["orders"]["marked"] == 1
        assert found["orders"]["names"] == ["a & <i>", "b", "c", "none"]
        bright = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in found["colours"]]
        assert (bright[0] > bright[1]) == (scheme == "light")
