"""Texts that others wrote (Markdown, notebook outputs, streams) as safe, well-formed HTML."""

import html
import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

SCROLL = '<div class="scroll" role="group" tabindex="0" aria-label="{label}">'  # a wide table scrolls by itself
KEPT = {"table", "thead", "tbody", "tr", "th", "td", "p", "b", "i", "em", "strong", "code", "sub", "sup"}
DROPPED = {"style", "script", "title"}  # with all that is in them
SPANS = {"rowspan", "colspan"}
ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[@-Z\\-_])")
ANCHOR = re.compile(r'<a id="[^"]*"></a>')


def prose(text: str, *, below: int = 0, label: str = "table") -> Markup:
    """Markdown with tables as HTML; raw HTML in it is shown as text, links to files of the project as their words.

    Args:
        text: Markdown.
        below: so many levels are added to its headings, so that they stand below those of the page.
        label: what a screen reader calls its tables.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(ANCHOR.sub("", text))
    for token in tokens:
        if token.type.startswith("heading"):
            token.tag = f"h{min(6, int(token.tag[1]) + below)}"
        elif token.type == "th_open":
            token.attrSet("scope", "col")
        if token.children:
            token.children = _without_dead_links(token.children)
    made = parser.renderer.render(tokens, parser.options, {})
    return Markup(_scrolling(made, label))


def sanitised(markup: str, label: str = "table") -> Markup:
    """HTML that a notebook displayed, such as a data frame, without styles, scripts, links and attributes."""
    parser = _Sanitiser()
    parser.feed(markup)
    parser.close()
    parser.made += [f"</{tag}>" for tag in reversed(parser.open)]
    return Markup(_scrolling("".join(parser.made), label))


def plain(text: str) -> str:
    """A stream as a terminal would have left it: no escape codes, of a progress bar its last state alone."""
    lines = ANSI.sub("", text).replace("\r\n", "\n").split("\n")
    last = [next((part for part in reversed(line.split("\r")) if part.strip()), "").rstrip() for line in lines]
    return "\n".join(last).strip("\n")


def _without_dead_links(tokens: list[Token]) -> list[Token]:
    """Links to other sites and within the page stay; from one file alone no other can be reached."""
    kept, closing = [], []
    for token in tokens:
        if token.type == "link_open":
            closing.append(re.match("https?://|#", str(token.attrGet("href"))) is not None)
        if token.type in ("link_open", "link_close"):
            if closing[-1]:
                kept.append(token)
            if token.type == "link_close":
                closing.pop()
        elif token.type == "image":  # would be loaded from elsewhere
            kept.append(Token("text", "", 0, content=token.content))
        else:
            kept.append(token)
    return kept


def _scrolling(made: str, label: str) -> str:
    made = made.replace("<table>", SCROLL.format(label=html.escape(label)) + "<table>")
    made = re.sub(r"<th[^>]*></th>", "<td></td>", made)  # an empty header names nothing
    return made.replace("</table>", "</table></div>")


class _Sanitiser(HTMLParser):
    """Keeps :data:`KEPT` and the text; whatever was left open is closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.made: list[str] = []
        self.open: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in DROPPED
        if tag in ("td", "th") and self.open[-1:] in (["td"], ["th"]):  # HTML lets a cell end where the next begins
            self.handle_endtag(self.open[-1])
        if tag in KEPT:
            kept = [f' {name}="{value}"' for name, value in attrs if name in SPANS and (value or "").isdecimal()]
            if tag == "th":
                kept.append(f' scope="{"col" if "thead" in self.open else "row"}"')
            self.open.append(tag)
            self.made.append(f"<{tag}{''.join(kept)}>")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in DROPPED and self._silent > 0
        if tag in self.open:
            while True:
                last = self.open.pop()
                self.made.append(f"</{last}>")
                if last == tag:
                    return

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.made.append(html.escape(data))
