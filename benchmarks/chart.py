"""Bars as SVG, written by hand: no plotting library for one picture."""

from __future__ import annotations

from html import escape
from typing import Any

COLOURS = {
    "freehold": "#2563eb",
    "llama.cpp": "#9ca3af",
    "openvino": "#d97706",
    "transformers": "#059669",
}
BAR, GAP, HEIGHT, TOP, LEFT = 14, 18, 150, 34, 12


def _panel(
    title: str, groups: list[str], values: dict[str, list[float]], y: int
) -> tuple[str, int]:
    """One row of grouped bars with its figures above them; and its width."""
    highest = max((max(v) for v in values.values()), default=0) or 1
    parts = [f'<text x="{LEFT}" y="{y + 14}" font-weight="600">{escape(title)}</text>']
    x, base = LEFT, y + TOP + HEIGHT
    for i, group in enumerate(groups):
        width = max(len(values) * (BAR * 2), 44)
        for j, (name, column) in enumerate(values.items()):
            height = HEIGHT * column[i] / highest
            bar_x = x + j * BAR * 2
            parts.append(
                f'<rect x="{bar_x}" y="{base - height:.1f}" width="{BAR * 2 - 3}" '
                f'height="{height:.1f}" fill="{COLOURS[name]}"/>'
            )
            if column[i]:
                parts.append(
                    f'<text x="{bar_x + BAR - 1}" y="{base - height - 3:.1f}" font-size="9" '
                    f'text-anchor="middle">{column[i]:.0f}</text>'
                )
        label_x = x + len(values) * BAR
        parts.append(
            f'<text x="{label_x}" y="{base + 14}" text-anchor="middle">{escape(group)}</text>'
        )
        x += width + GAP
    return "".join(parts), x


def engine(record: dict[str, Any]) -> str:
    """A panel a case: tokens a second of prompts, then of all streams together."""
    panels, y, widest = [], 30, 0
    for case, result in record["results"].items():
        engines = result["engines"]
        prompts = list(engines["freehold"]["prompt"])
        streams = list(engines["freehold"]["decode"])
        for kind, keys, unit in (("prompt", prompts, "prompt of"), ("decode", streams, "streams:")):
            values = {name: [c[kind].get(n, 0) for n in keys] for name, c in engines.items()}
            groups = [f"{unit} {n}" for n in keys]
            svg, width = _panel(f"{case}: {kind}, tokens/s", groups, values, y)
            panels.append(svg)
            widest, y = max(widest, width), y + TOP + HEIGHT + 34
    names = dict.fromkeys(name for r in record["results"].values() for name in r["engines"])
    legend = "".join(
        f'<rect x="{LEFT + 110 * i}" y="8" width="10" height="10" fill="{COLOURS[name]}"/>'
        f'<text x="{LEFT + 110 * i + 15}" y="17">{escape(name)}</text>'
        for i, name in enumerate(names)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{max(widest, 460)}" height="{y}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f"{legend}{''.join(panels)}</svg>\n"
    )
