"""MkDocs hooks: pages made from files outside docs/, links that work on GitHub and on the site, figures for both themes."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    import click
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

# Pages of the site whose source lies outside docs/, by the path of that source in the repository.
SOURCES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "src/affekt/assets/default/README.md": "models/card.md",
}

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]*)(#[^)\s]*)?\)")
PICTURE = re.compile(
    r'<picture><source media="\(prefers-color-scheme: dark\)" srcset="(.+?)"><img src="(.+?)" alt="(.*?)"></picture>'
)


# Of the home page, which has no siblings in the navigation.
HOME = "---\nhide: [navigation]\n---\n\n"
TABLE_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
# The spaces in "71.7 ± 0.3", "69.2 to 74.1", "4 %" and "p = 0.5".
FIGURE = re.compile(r"(?<=\d) (?=±|%|to [-+\d])|(?<=±) |(?<=\d to) (?=[-+\d])|(?<=p) (?==)|(?<=p =) ")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for source, page in SOURCES.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=HOME + content if page == "index.md" else content))
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Translate what GitHub and the site write differently, and keep figures such as "71.7 ± 0.3" on one line."""
    page_path = page.file.src_uri
    source = next((path for path, generated in SOURCES.items() if generated == page_path), f"docs/{page_path}")
    markdown = LINK.sub(lambda match: site_link(match, source, page_path), markdown)
    markdown = PICTURE.sub(r"![\3](\2#only-light) ![\3](\1#only-dark)", markdown)
    return TABLE_ROW.sub(lambda match: FIGURE.sub("\u00a0", match[0]), markdown)


def site_link(match: re.Match[str], source: str, page_path: str) -> str:
    """Return a link of `source` as the page at `page_path` must write it; the text alone if the target has no page."""
    text, target, anchor = match[1], match[2], match[3] or ""
    if not target or "://" in target:
        return match[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in SOURCES:
        page = SOURCES[path]
    elif path.startswith("docs/"):
        page = path.removeprefix("docs/")
    elif (ROOT / path).exists():
        return text if text.startswith("`") else f"`{text}`"
    else:
        return match[0]  # a dead link, which mkdocs reports
    return f"[{text}]({posixpath.relpath(page, posixpath.dirname(page_path) or '.')}{anchor})"


def commands_page() -> str:
    """Return the reference of the command line, from its own help texts."""
    import typer.main

    from affekt.cli import app

    lines = ["# Command line", "", "`affekt COMMAND --help` prints the same.", ""]
    for name, command in sorted(leaves("affekt", typer.main.get_command(app))):
        lines += command_lines(name, command)
    return "\n".join(lines)


def leaves(name: str, command: click.Command) -> list[tuple[str, click.Command]]:
    """Return all commands below `command` with their full names."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        return [(name, command)]
    return [leaf for child, below in subcommands.items() for leaf in leaves(f"{name} {child}", below)]


def command_lines(name: str, command: click.Command) -> list[str]:
    import inspect

    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    help_text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    lines = [f"## {name}", "", "```text", usage, "```", "", help_text, ""]
    records = [record for param in command.get_params(context) if (record := param_record(param, context))]
    if records:
        lines += ["| argument | |", "| --- | --- |"]
        lines += [f"| `{usage}` | {' '.join(text.split())} |".replace("\\|", "|") for usage, text in records]
    return [*lines, ""]


def param_record(param: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    record = param.get_help_record(context)
    if record is None:
        return None
    usage, text = record
    return usage.replace("|", "\\|"), text.replace("|", "\\|").replace("<", "&lt;")
