"""Tables on the terminal: with `rich` where it is installed, in plain columns elsewhere."""

from __future__ import annotations

from collections.abc import Sequence


def show(head: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print a table; numbers stand to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    right = [all(_number(row[i]) for row in texts) for i in range(len(head))]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(plain(head, texts, right, title), flush=True)
        return
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for name, numbers in zip(head, right, strict=True):
        table.add_column(name, justify="right" if numbers else "left", no_wrap=numbers)
    for row in texts:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:  # a file takes the width that the table needs
        console = Console(width=200)
    console.print(table)


def plain(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool],
          title: str = "") -> str:
    """The table as text in columns."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [title] if title else []
    for row in (head, *rows):
        cells = [cell.rjust(w) if numbers else cell.ljust(w)
                 for cell, w, numbers in zip(row, widths, right, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _number(text: str) -> bool:
    return text.rstrip(" %").replace(".", "", 1).isdigit()
