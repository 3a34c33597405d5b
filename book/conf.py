"""How Sphinx turns the executed notebooks into the site.

Everything a page needs lies beside it: the site works from a disk, a stick or a server without internet.
"""

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector

import gankit
from book import captions, first_uses, needs, parts, reference, taught

HERE = Path(__file__).parent
SOURCE = (
    HERE / "_build" / "source"
)  # where `build.py site` gathers the pages, the chapters' notebooks among them
TAUGHT = taught.load(HERE)
NEEDS = needs.read(HERE, TAUGHT)

project = "GAN dynamics"
author = "The GAN dynamics book contributors"
project_copyright = "text CC BY 4.0, code MIT"
release = getattr(gankit, "__version__", "")
html_title = "GAN dynamics: why training fails and what repairs it"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_book_theme",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_exercise",
    "sphinx_proof",
    "sphinx_togglebutton",
    "sphinxcontrib.bibtex",
]

# Chapters come from the executed notebooks; their texts are the same pages without outputs.
exclude_patterns = ["[0-9][0-9]_*.md"]
exclude_patterns += [path.name for path in HERE.glob("[0-9][0-9]_*.ipynb") if not TAUGHT.teaches(path.name)]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # the default loads widgets from another host
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Mathematics: one file, served with the pages. MathJax' menu is off because its accessibility entries
# fetch more files from another host; readers of formulas by ear get MathML from the page itself.
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}
math_numfig = True
math_eqref_format = "({number})"
numfig = True
numfig_secnum_depth = 1

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

# The reference: a page for each module, made from its docstrings.
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "ignore-module-all": True,  # a name that a package passes on is described where it is defined
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a dataclass' fields are described once, in its docstring
smartquotes_action = "qe"  # quotes and ellipses; two hyphens begin a flag
default_role = "code"  # `name` in a docstring means code, as it does in the chapters
# Two classes may have a field of one name, or two packages a class: then that is no link. (One that leads nowhere has
# another kind of warning, which stays an error.)
suppress_warnings = ["ref.python"]
# Types of other packages have no page here; a name of ours that leads nowhere is still an error.
# So are not: private names, and type variables, which have one letter.
nitpick_ignore_regex = [("py:.*", r"(?!gankit\.).*"), ("py:.*", r".*\.(_\w+(\..*)?|[A-Z]|Class)")]


def write(target: Path, text: str) -> None:
    """Write a page where it is new: what stays untouched needs no reading again."""
    if not target.exists() or target.read_text("utf-8") != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")


def write_reference(folder: Path) -> None:
    """Write a page for each module, the list of all by purpose and the flags; remove pages of what is gone."""
    packages = map(importlib.import_module, ("gankit", "toy", "figures"))
    names = [name for package in packages for name in reference.modules(package)]
    for old in {path.stem for path in folder.glob("*.md")} - set(names):
        (folder / f"{old}.md").unlink()
    for name in names:
        write(folder / f"{name}.md", reference.page(importlib.import_module(name)))
    write(folder / "by_purpose.txt", reference.by_purpose(names))
    flags = "There are no commands.\n"
    if "gankit.commands" in names:
        from gankit.commands import _parser

        flags = reference.command_line(_parser())
    write(folder / "flags.txt", flags)


CITATION = """\
```bibtex
@misc{{gan-dynamics,
  title  = {{{title}}},
  author = {{{author}}},
  year   = {{2026}},
  note   = {{Version {version}. Text CC BY 4.0, code MIT}},
}}
```
"""


def write_teaching(folder: Path) -> None:
    """Write what the page on teaching includes: which chapter needs which, and the rows of the assignments' table."""
    caption = f"**{TAUGHT.labels['table']}** The assignments; minutes are what a student is meant to need.\n"
    rows = [caption, "| assignment | chapters | points | minutes |", "|---|---|---|---|"]
    for path in sorted((HERE.parent / "course" / "assignments").glob("[0-9][0-9]_*.md")):
        text = path.read_text("utf-8")
        title, chapters, minutes = (
            re.search(pattern, text, re.MULTILINE)[1]
            for pattern in (r"^# (.+)$", r"^  chapters: \[(.+)\]$", r"^  minutes: (\d+)$")
        )
        points = sum(map(int, re.findall(r"^:points: (\d+)$", text, re.MULTILINE)))
        rows.append(f"| {path.stem[:2]} {title} | {chapters} | {points} | {minutes} |")
    for name, text in (
        ("needs.svg", needs.svg(NEEDS)),
        ("assignments.txt", "\n".join(rows)),
    ):
        write(folder / name, text)


write_reference(SOURCE / "reference")
write(SOURCE / "reference" / "map.txt", parts.landing(HERE, TAUGHT))
write(SOURCE / "reference" / "contents.txt", parts.contents(HERE, TAUGHT))
write(
    SOURCE / "reference" / "citation.txt",
    CITATION.format(title=html_title, author=author, version=release),
)
write_teaching(SOURCE / "reference")

html_theme = "sphinx_book_theme"
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
}
# One address, `Repository` in pyproject.toml, makes edit links and launch buttons; without it there are none.
PYPROJECT = HERE.parent / "pyproject.toml"
URLS = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"].get("urls", {}) if PYPROJECT.exists() else {}
if "Repository" in URLS:
    # Not Colab: chapters as they are stored have no cell that installs the book there; `make course` adds one.
    hosts = {"binderhub_url": "https://mybinder.org"}
    hosts |= {"jupyterhub_url": URLS["JupyterHub"]} if "JupyterHub" in URLS else {}
    html_theme_options |= {
        "repository_url": URLS["Repository"],
        "repository_branch": "main",
        "path_to_docs": "book",
    }
    html_theme_options |= {
        "use_edit_page_button": True,
        "use_repository_button": True,
        "launch_buttons": hosts,
    }
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_context = {"default_mode": "auto"}  # light or dark, as the reader has it


# In a docstring: code in backticks with the letter that follows it, or a bar that opens |x|.
PLAIN = re.compile(r"(``[^`]+``|`[^`]+`)([A-Za-z]?)|\|(?=\S(?:[^|]*\S)?\|)")


def read_plainly(_app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Let docstrings write |x| for a norm and `Ensemble`s for many: reStructuredText would stumble over both."""

    def mend(found: re.Match[str]) -> str:
        code, letter = found.groups()
        return "\\|" if code is None else f"{code}\\ {letter}" if letter else code

    lines[:] = [PLAIN.sub(mend, line) for line in lines]


def number_by_file(collector: TocTreeCollector, env: BuildEnvironment) -> list[str]:
    """Number a chapter, its equations and its figures by its file's name: 04_dirac_gan is chapter 4.

    Sphinx would count the chapters that exist, so that each new one would renumber those after it.
    """
    changed = assign_section_numbers(collector, env)
    for docname, numbers in env.toc_secnumbers.items():
        if found := re.match(r"(\d\d)_", docname):
            for anchor, number in numbers.items():
                if number:  # sections below a chapter have none
                    numbers[anchor] = (int(found[1]), *number[1:])
            env.titles[docname]["secnumber"] = numbers[""]
            for entry in env.tocs[docname].findall(
                lambda node: "secnumber" in getattr(node, "attributes", {})
            ):
                entry["secnumber"] = numbers[entry["anchorname"]]
    return changed


assign_section_numbers = TocTreeCollector.assign_section_numbers
TocTreeCollector.assign_section_numbers = number_by_file


def keep_links(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """A chapter that is not taught, or not there, is linked on the public site or named only."""
    source[0] = taught.without_absent(source[0], lambda name: TAUGHT.linked(name, HERE), TAUGHT.site)


def finish_tables(_app: Sphinx, page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """A head cell says whether it is its column's or its row's, and a chapter's tables have its number."""
    if "body" in context:
        context["body"] = captions.say_scopes(context["body"])
    if found := re.match(r"(\d\d)_", page):
        name = TAUGHT.labels["table"].rstrip(".")
        context["body"] = captions.number(context["body"], f"{name} {int(found[1])}")


def take_captions(_app: Sphinx, tree: Any) -> None:
    """The paragraph `**Table.** ...` above a table becomes its caption."""
    captions.take(tree, TAUGHT.labels["table"])


def link_first_uses(app: Sphinx, tree: Any) -> None:
    """Words of the glossary lead to it where a chapter first uses them."""
    docname = app.env.docname if hasattr(app.env, "docname") else app.env.current_document.docname
    if docname == "glossary":
        first_uses.name_entries(tree)
    elif re.match(r"\d\d_", docname):
        app.env.note_dependency(str(SOURCE / "reference" / "needs.svg"))  # what follows has one source
        later = needs.following(NEEDS, docname)
        first_uses.complete_card(tree, {f"{name}.html": title for name, title in later.items()})
        first_uses.link(tree, first_uses.words(first_uses.GLOSSARY.read_text("utf-8")))


def setup(app: Sphinx) -> None:
    app.add_node(captions.table_caption, html=(captions.visit, captions.depart))
    app.connect("doctree-read", take_captions)
    app.connect("doctree-read", link_first_uses)
    app.connect("html-page-context", finish_tables)
    app.connect("source-read", keep_links)
    app.connect("autodoc-process-docstring", read_plainly)
