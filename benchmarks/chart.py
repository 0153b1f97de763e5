"""Draws the cost of the list and of a synchronization over the number of instances, as SVG with logarithmic axes."""

import math
from collections.abc import Callable, Mapping
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 340, 70, 40, 190, 50
COLOURS = ("#2563eb", "#0d9488", "#b45309", "#7c3aed")

# The name of a line → the number of instances → milliseconds.
Lines = Mapping[str, Mapping[int, float]]


def draw(lines: Lines) -> str:
    sizes = sorted({size for points in lines.values() for size in points})
    values = [value for points in lines.values() for value in points.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])

    def place(size: int, value: float) -> tuple[float, float]:
        x = LEFT + (math.log10(size) - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (math.log10(value) - low) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" '
        'font-size="12" fill="#57606a" role="img">',
        f"<title>{escape('Milliseconds over the number of instances: ' + ', '.join(lines))}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" font-weight="600" fill="#1f2328">Cost over the number of instances '
        "(milliseconds, logarithmic)</text>",
    ]
    for power in range(low, high + 1):
        _, y = place(sizes[0], 10.0**power)
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{10.0**power:,g}</text>')
    for size in sizes:
        x, _ = place(size, 10.0**low)
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{size:,}</text>')
    parts += _draw_lines(lines, place)
    return "\n".join([*parts, "</svg>", ""])


def _draw_lines(lines: Lines, place: Callable[[int, float], tuple[float, float]]) -> list[str]:
    parts = []
    ends = sorted((place(max(points), points[max(points)])[1], name) for name, points in lines.items())
    label_y = float("-inf")
    labels = {}
    for y, name in ends:
        labels[name] = label_y = max(y, label_y + 16)
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        spots = [place(size, points[size]) for size in sorted(points)]
        path = "L".join(f"{x} {y}" for x, y in spots)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in spots]
        end_x = spots[-1][0]
        parts.append(f'<text x="{end_x + 10}" y="{labels[name] + 4}" fill="{colour}">{escape(name)}</text>')
    return parts
