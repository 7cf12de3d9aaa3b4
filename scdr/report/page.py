"""A report as data, and as one HTML file with everything inside it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import orjson
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from scdr.experiments.table import Table

FAILED = "Failed:"
"""What a line of the summary on a model that could not be measured begins with."""


@dataclass(frozen=True)
class Picture:
    """A picture of a section.

    Attributes:
        data: of the file.
        kind: "svg+xml" or "png".
        alt: what it shows, for those who do not see it.
    """

    data: bytes
    kind: str
    alt: str

    @property
    def address(self) -> str:
        """The picture as a data URL."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of a report under a heading of its own.

    Attributes:
        name: of its anchor.
        title: its heading.
        about: how to read it.
        findings: what it says, a sentence or two each.
        warnings: what should not be so.
        picture: its figure.
        tables: its tables.
        surfaces: landscapes to rotate: `label`, `zeta`, `gamma`, `mae`.
        preformatted: a text in a fixed-width font, by its heading.
    """

    name: str
    title: str
    about: str = ""
    findings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    picture: Picture | None = None
    tables: tuple[Table, ...] = ()
    surfaces: tuple[dict[str, Any], ...] = ()
    preformatted: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: of the page.
        summary: its first paragraphs.
        sections: in order.
    """

    title: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]


def render(page: Page) -> bytes:
    """The page as HTML; the same page gives the same bytes.

    The plotting library, 4.8 MB, is inside where a section has landscapes to rotate.
    """
    here = files("scdr") / "report"
    surfaces = {section.name: section.surfaces for section in page.sections if section.surfaces}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((here / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        page=page,
        # Markup of our own files and of JSON whose "<" can't end a script.
        style=Markup((here / "page.css").read_text(encoding="utf-8")),
        script=Markup((here / "page.js").read_text(encoding="utf-8")),
        surfaces=Markup(orjson.dumps(surfaces).decode().replace("<", "\\u003c")),
        plotly=Markup(_plotly()) if surfaces else None,
    ).encode()


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.replace("</script", "<\\/script")
