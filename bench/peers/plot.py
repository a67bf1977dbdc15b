"""Small line plots as one SVG file: panels in a grid, both axes logarithmic, each point labelled with its value. No dependencies."""
import math
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 250, 190, 14, 22, 40, 34


def place(value, low, high, start, end):
    """Where a value stands on a logarithmic axis from start to end."""
    if high <= low:
        return (start + end) / 2
    return start + (end - start) * (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


def text(x, y, words, size=11, anchor="middle", color="#333"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}">{escape(words)}</text>'


def panel(x0, y0, title, name, values):
    """One panel: values are (x, y), both positive."""
    left, right, top, bottom = x0 + LEFT + 12, x0 + WIDTH - RIGHT - 12, y0 + TOP + 14, y0 + HEIGHT - BOTTOM - 8
    xs, ys = [v[0] for v in values], [v[1] for v in values]
    span = max(max(ys) / min(ys), 2) / (max(ys) / min(ys))  # a flat curve must look flat
    low, high = min(ys) / math.sqrt(span), max(ys) * math.sqrt(span)
    points = [(place(x, min(xs), max(xs), left, right), place(y, low, high, bottom, top)) for x, y in values]
    out = [f'<rect x="{x0 + LEFT}" y="{y0 + TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" fill="#fafafa" stroke="#ccc"/>',
           text(x0 + LEFT, y0 + TOP - 8, name, 12, "start", "#000"), text((left + right) / 2, y0 + HEIGHT - 4, title),
           '<polyline fill="none" stroke="#1f5fa8" stroke-width="2" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>']
    for (x, y), (vx, vy) in zip(points, values):
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1f5fa8"/>', text(x, y - 7, f"{vy:.3g}", 10, color="#1f5fa8"),
                text(x, y0 + HEIGHT - BOTTOM + 13, f"{vx:g}", 10)]
    return out


def write(path, panels, across):
    """panels: (title of x, name of y, [(x, y)]), row by row, `across` a row."""
    down = (len(panels) + across - 1) // across
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{across * WIDTH}" height="{down * HEIGHT}" '
           f'viewBox="0 0 {across * WIDTH} {down * HEIGHT}" font-family="sans-serif"><rect width="100%" height="100%" fill="#fff"/>']
    for i, p in enumerate(panels):
        out += panel(i % across * WIDTH, i // across * HEIGHT, *p)
    with open(path, "w") as f:
        print("\n".join(out + ["</svg>"]), file=f)
