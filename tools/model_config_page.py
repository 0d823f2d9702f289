"""Writes the tables of docs/model-config.md from the server's own: `python tools/model_config_page.py`."""

from __future__ import annotations

from pathlib import Path

from server.models.config_fields import FIELDS, PARAMETERS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "model-config.md"
START, END = "<!-- {} -->\n\n", "\n<!-- end of {} -->"


def tables() -> dict[str, str]:
    """Name of a table -> its text."""
    fields = ["| field | | what it does |", "|---|---|---|"]
    for field in FIELDS:
        if field.text:
            fields.append(f"| `{field.path}` | {'taken' if field.taken else 'refused'} | {field.text} |")
    parameters = ["| key | what it does |", "|---|---|"]
    parameters += [f"| `{key}` | {text} |" for key, text in PARAMETERS.items()]
    return {"fields": "\n".join(fields) + "\n", "parameters": "\n".join(parameters) + "\n"}


def filled(page: str) -> str:
    """The page with its tables anew."""
    for name, text in tables().items():
        start, end = START.format(name), END.format(name)
        before, _, rest = page.partition(start)
        _, _, after = rest.partition(end)
        page = before + start + text + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
