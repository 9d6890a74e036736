"""Checks for every page that stfit writes: valid HTML, accessible, self-contained."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "wbr", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Elements and texts of a page. Raises AssertionError if tags are not nested correctly."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        opened = self.open.pop()
        assert opened == tag, f"<{opened}> is closed by </{tag}>"

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def assert_valid_page(text):
    """Check nesting, ids and references, landmarks, text alternatives, and that nothing is loaded or executed."""
    assert text.startswith("<!DOCTYPE html>")
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "duplicate ids"
    named = re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]+)', text)
    assert set(named) <= set(ids)
    assert [len(page.all(tag)) for tag in ("html", "title", "header", "main", "h1")] == [1] * 5
    assert page.all("html")[0]["lang"] == "en"
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 10 for svg in page.all("svg"))
    assert all(attributes.get("scope") for attributes in page.all("th"))
    assert not page.all("script")
    assert not page.all("link")
    for _, attributes in page.elements:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text
    return page
