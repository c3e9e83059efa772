"""The documentation as a site: ``make docs``.

The pages are the Markdown that GitHub shows.  A link to a file of the repository leads to a page with its source.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml import converter
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.osutil import relative_uri
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).parents[2]

project = "CIFAR-2"
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "docs/*.md"]
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath", "html_image"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = project
html_math_renderer = "mathml"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_use_index = False
html_show_search_summary = False  # its requests fail from disk
linkcheck_ignore = ["source/"]
# The site's first page, for a web server and for a double click.
html_additional_pages = {"index": "redirect.html"}
html_static_path = ["static"]
html_css_files, html_js_files = ["site.css"], ["site.js"]
templates_path = ["templates"]

# The files of the repository with a page of their own.
linked: set[Path] = set()


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Make the documents in README.md's table the contents of the site; GitHub would show a toctree as code."""
    if name == root_doc:
        pages = "\n".join(re.findall(r"^\| \[.*?\]\((.*?)\.md\)", source[0], re.MULTILINE))
        source[0] += f"\n```{{toctree}}\n:hidden:\n{pages}\n```\n"


def link_sources(app: Sphinx, tree: nodes.document) -> None:
    """Lead links to text files of the repository to pages with their source; folders become plain text.

    Links to images and notebooks stay downloads.
    """
    here = Path(app.env.doc2path(app.env.docname)).parent
    for node in [*tree.findall(addnodes.download_reference)]:
        target = (here / node["reftarget"]).resolve().relative_to(ROOT)
        if target.suffix not in (".png", ".ipynb"):
            linked.add(target)
            uri = relative_uri(app.builder.get_target_uri(app.env.docname), f"source/{target}.html")
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))
    for link in [*tree.findall(addnodes.pending_xref)]:
        if (here / link["reftarget"]).is_dir():
            link.replace_self(link.children)


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The pages with the source of the linked files."""
    for path in sorted(linked):
        text = (ROOT / path).read_text()
        try:
            lexer = get_lexer_for_filename(path.name)
        except ClassNotFound:
            lexer = TextLexer()
        body = highlight(text, lexer, HtmlFormatter(wrapcode=True))
        yield f"source/{path}", {"title": str(path), "body": f"<h1>{path}</h1>{body}"}, "page.html"


def visit_math(translator: HTML5Translator, node: nodes.Element) -> None:
    """Write a formula as MathML."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    latex = node.astext().replace("{aligned}", "{split}")  # two names, of which the library knows one
    translator.body.append(converter.convert(latex, display=display))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("source-read", add_contents)
    app.connect("doctree-read", link_sources, priority=400)  # before Sphinx collects downloads
    app.connect("html-collect-pages", source_pages)
