"""One HTML file of a run, a comparison or a recipe, which needs no network."""

from scdr.report.page import Page, Picture, Section, render

__all__ = ["Page", "Picture", "Section", "render"]
