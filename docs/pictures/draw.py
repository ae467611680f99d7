"""Draws the pictures: ``python docs/pictures/draw.py`` those of docs/how-it-works.md, with ``demo`` that of the README.

All are SVG without scripts, on a ground of their own, so that they read the same on light and dark pages. The one of
the demo is a recording: the demo is run, and each line shows up when it did, once, in what can show that.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
INK, SOFT, LINE, GROUND = "#22304d", "#56627a", "#7c8aa5", "#ffffff"
NODES = {  # as in cluster.svg: fill, edge, text
    "ada": ("#eef4ff", "#3b6fd4", "#1f3f85"),
    "bob": ("#eefaf0", "#2f9150", "#1d5c33"),
    "carl": ("#fff5ea", "#c97a1d", "#83500f"),
}
PLAIN = ("#f4f6fa", LINE, INK)
Box = tuple[float, float, float, float]


def svg(width: int, height: int, title: str, *parts: str) -> str:
    """A whole picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        ' font-family="ui-sans-serif, system-ui, sans-serif" font-size="14">\n'
        f"<title>{escape(title)}</title>\n"
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" rx="10" fill="{GROUND}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def text(
    x: float, y: float, words: str, *, colour: str = INK, size: float = 14, anchor: str = "start", bold: bool = False
) -> str:
    """One line of words."""
    look = f'fill="{colour}" font-size="{size}" text-anchor="{anchor}"' + (' font-weight="600"' if bold else "")
    return f'<text x="{x}" y="{y}" {look}>{escape(words)}</text>'


def panel(at: Box, look: tuple[str, str, str]) -> str:
    """A box without words."""
    x, y, width, height = at
    fill, edge, _ = look
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{edge}"/>'


def box(at: Box, words: Sequence[str], look: tuple[str, str, str] = PLAIN, size: float = 12) -> str:
    """A box with a bold first line and smaller ones below."""
    x, y, width, height = at
    head, *rest = words
    top, middle = y + (height - 18 * len(rest)) / 2 + 5, x + width / 2
    lines = [
        text(middle, top + 18 * (row + 1), line, colour=SOFT, size=size, anchor="middle")
        for row, line in enumerate(rest)
    ]
    return panel(at, look) + text(middle, top, head, colour=look[2], anchor="middle", bold=True) + "".join(lines)


def line(
    x1: float, y1: float, x2: float, y2: float, *, arrow: bool = False, dashed: bool = False, soft: bool = True
) -> str:
    """A straight line: soft for what is there, else for what is said."""
    look = f'stroke="{LINE if soft else INK}" stroke-width="{2 if soft else 1.5}" fill="none"'
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    end = ' marker-end="url(#end)"' if arrow else ""
    return f'<path d="M{x1} {y1} L{x2} {y2}" {look}{dashes}{end}/>'


# --- what is said in time ---

Said = tuple[str, str, str]
"""From whom, to whom, what. To oneself: a note at this node. From and to nobody: a line across, with what happens."""


def conversation(title: str, words: Sequence[str], said: Sequence[Said]) -> str:
    """Nodes side by side, time from above to below."""
    step, width = 40, 760
    column = {word: 130 + index * (width - 260) / (len(words) - 1) for index, word in enumerate(words)}
    height = 80 + step * len(said)
    parts = [line(x, 60, x, height - 15) for x in column.values()]
    parts += [box((x - 60, 20, 120, 36), [word], NODES[word]) for word, x in column.items()]
    for row, (source, target, what) in enumerate(said):
        y = 60 + step * (row + 1) - 6
        if not source:
            parts.append(f'<rect x="20" y="{y - 17}" width="{width - 40}" height="26" rx="6" fill="#f0f2f6"/>')
            parts.append(text(width / 2, y + 1, what, colour=SOFT, size=13, anchor="middle"))
        elif source == target:
            fill, edge, ink = NODES[source]
            wide = 7.0 * len(what) + 22
            x = min(max(column[source] - wide / 2, 10), width - wide - 10)
            parts.append(
                f'<rect x="{x}" y="{y - 17}" width="{wide}" height="26" rx="6" fill="{fill}" stroke="{edge}"/>'
            )
            parts.append(text(x + wide / 2, y + 1, what, colour=ink, size=13, anchor="middle"))
        else:
            left, right = sorted((column[source], column[target]))
            sign = 1 if column[target] > column[source] else -1
            parts.append(line(column[source], y, column[target] - 3 * sign, y, arrow=True, soft=False))
            wide = 7.4 * len(what)
            middle = (left + right) / 2 if len(words) == 2 or right - left < 300 else left + (right - left) / 4
            parts.append(f'<rect x="{middle - wide / 2}" y="{y - 20}" width="{wide}" height="15" fill="{GROUND}"/>')
            parts.append(text(middle, y - 8, what, size=12, anchor="middle"))
    return svg(width, height, title, *parts)


def register() -> str:
    """A claim that nobody disputes."""
    said = [
        ("ada", "ada", 'register("db", pid): entry 7'),
        ("ada", "bob", "GLOBAL_REGISTER db, 7"),
        ("ada", "carl", "GLOBAL_REGISTER db, 7"),
        ("bob", "bob", "no other claim known: db is at ada"),
        ("bob", "ada", "ACKNOWLEDGE 7"),
        ("carl", "carl", "the same"),
        ("carl", "ada", "ACKNOWLEDGE 7"),
        ("ada", "ada", "all have: register returns"),
        ("ada", "bob", "CONFIRM 7, as entry 8"),
        ("ada", "carl", "CONFIRM 7, as entry 8"),
    ]
    return conversation("The life of a register: claim, acknowledgements, confirmation", list(NODES), said)


def race() -> str:
    """Two at once."""
    said = [
        ("", "", "ada and bob register db at the same moment; ada's stamp is the earlier"),
        ("bob", "carl", "GLOBAL_REGISTER db"),
        ("carl", "bob", "ACKNOWLEDGE: no other known yet"),
        ("ada", "bob", "GLOBAL_REGISTER db"),
        ("bob", "ada", "GLOBAL_REGISTER db"),
        ("ada", "carl", "GLOBAL_REGISTER db"),
        ("carl", "carl", "knows another: no answer"),
        ("bob", "bob", "ada's is of higher rank: NameTaken"),
        ("bob", "ada", "GLOBAL_UNREGISTER db"),
        ("bob", "ada", "ACKNOWLEDGE ada's"),
        ("bob", "carl", "GLOBAL_UNREGISTER db"),
        ("carl", "ada", "ACKNOWLEDGE ada's: now the only one"),
        ("ada", "ada", "all have: register returns"),
    ]
    return conversation("Two nodes register one name at once: only one gets all acknowledgements", list(NODES), said)


def heal() -> str:
    """Two that could not know of each other."""
    said = [
        ("", "", "the network is split: each side has registered db, and both claims are confirmed"),
        ("", "", "the network heals, and a session opens"),
        ("ada", "bob", "PEER_LIST, GLOBAL_SYNC: db, confirmed, stamp 10:00"),
        ("bob", "ada", "PEER_LIST, GLOBAL_SYNC: db, confirmed, stamp 10:02"),
        ("ada", "ada", "mine is earlier: it stays"),
        ("bob", "bob", "mine is later: withdrawn"),
        ("bob", "bob", "its process is told, once: NameLost"),
        ("bob", "ada", "GLOBAL_UNREGISTER db"),
        ("ada", "bob", "ACKNOWLEDGE"),
        ("", "", "both tables are equal"),
    ]
    return conversation("A partition heals: the earlier claim stays, the loser is told once", ["ada", "bob"], said)


# --- what stands side by side ---


def mesh() -> str:
    """How one address becomes a mesh."""
    captions = [
        ("1. carl dials ada, his seed", [("carl", "ada")], []),
        ("2. her first frame lists bob", [("carl", "ada")], [("carl", "bob")]),
        ("3. carl dials bob as well", [("carl", "ada"), ("carl", "bob")], []),
    ]
    parts: list[str] = []
    for index, (caption, sessions, seen) in enumerate(captions):
        left = 20 + index * 245
        spots = {"ada": (left + 60, 70), "bob": (left + 180, 70), "carl": (left + 120, 170)}
        ends = [(*pair, False) for pair in [("ada", "bob"), *sessions]] + [(*pair, True) for pair in seen]
        for one, other, dashed in ends:
            parts.append(line(*spots[one], *spots[other], dashed=dashed))
        parts += [box((x - 42, y - 18, 84, 36), [word], NODES[word]) for word, (x, y) in spots.items()]
        parts.append(text(left + 120, 225, caption, colour=SOFT, size=13, anchor="middle"))
    return svg(760, 250, "A node dials one seed, learns of the others from its list of peers, and dials them", *parts)


def sync() -> str:
    """A ledger, its mirror, and what brings one to the other."""
    ledger = ["1  claim db", "2  confirm 1", "3  claim web", "4  withdraw 3"]
    mirror = ["db: claimed at 1, confirmed", "", "web: gone with entry 4", ""]
    parts = [
        text(20, 32, "ada's ledger", colour=NODES["ada"][2], bold=True),
        text(20, 50, "her own facts, in order; only she writes it", colour=SOFT, size=12),
        text(500, 32, "bob's mirror of ada", colour=NODES["bob"][2], bold=True),
        text(500, 50, "what she has told him, and nobody else", colour=SOFT, size=12),
        panel((20, 64, 220, 130), NODES["ada"]),
        panel((500, 64, 240, 130), NODES["bob"]),
    ]
    parts += [text(36, 92 + 28 * row, words) for row, words in enumerate(ledger)]
    parts += [text(516, 92 + 28 * row, words) for row, words in enumerate(mirror) if words]
    for y, what in (
        (88, "first: all that lives, in parts"),
        (128, "then: each new entry, numbered"),
        (168, "after a break: only what is new"),
    ):
        parts += [line(250, y, 490, y, arrow=True, soft=False), text(370, y - 8, what, size=12, anchor="middle")]
    view = (
        "bob's view of all names is computed from his mirrors of all peers and his own ledger. He tells nobody of ada."
    )
    parts.append(text(20, 224, view, colour=SOFT, size=13))
    return svg(760, 244, "A ledger, its mirror at a peer, and what is said between them", *parts)


def layers() -> str:
    """Who may import whom."""
    columns = [
        ("ids, errors", ["values", "that all use"]),
        ("core/", ["the rules", "of names, links,", "restarts"]),
        ("wire/", ["frames, sessions,", "handshake,", "message bodies"]),
        ("kernel", ["one node's mind:", "an input goes in,", "effects come out"]),
        ("process", ["messages,", "mailbox,", "what users write"]),
        ("shell/", ["sockets, tasks,", "timers, threads;", "registries/ too"]),
        ("node, cli", ["what users", "touch"]),
    ]
    parts = []
    for index, (head, rest) in enumerate(columns):
        x = 16 + index * 105
        look = NODES["ada"] if 1 <= index <= 3 else NODES["carl"] if index == 5 else PLAIN
        parts.append(box((x, 60, 99, 100), [head, *rest], look, 10.5))
    parts += [
        text(16, 36, "Each imports only what stands to its left.", bold=True),
        text(
            277,
            190,
            "pure: no clock, no chance, no sockets, no asyncio",
            colour=NODES["ada"][2],
            size=13,
            anchor="middle",
        ),
        text(590, 190, "the only one that touches the world", colour=NODES["carl"][2], size=13, anchor="middle"),
    ]
    return svg(760, 210, "The layers of the code", *parts)


# --- the demo, as it went ---


def demo() -> str:
    """Run the demo, and write down when each line came."""
    command = [sys.executable, "-m", "kinfolk", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        begun = time.monotonic()
        lines = [(time.monotonic() - begun, each.rstrip()) for each in process.stdout]
    if process.returncode:
        raise SystemExit("the demo has failed: nothing was drawn")
    while lines and not lines[-1][1]:
        lines.pop()
    height, top, high = 66 + 19 * len(lines), 58, 19
    parts = [
        "<style>",
        "text { white-space: pre; font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #d6deeb }",
        ".ok { fill: #7fd88f } .cmd { fill: #8fb7ff }",
        "@keyframes show { from { opacity: 0 } to { opacity: 1 } }",
        "g.line { animation: show 0.1s linear backwards }",
        "@media (prefers-reduced-motion: reduce) { g.line { animation: none } }",
        "</style>",
        f'<rect width="820" height="{height}" rx="10" fill="#141b2d"/>',
        *(f'<circle cx="{x}" cy="18" r="5" fill="#3b4664"/>' for x in (20, 38, 56)),
        '<text x="16" y="44" class="cmd">$ make demo</text>',
    ]
    for row, (when, words) in enumerate(lines):
        if words:
            kind = ' class="ok"' if "✓" in words or words.startswith("All as") else ""
            shown = f'<text x="16" y="{top + high * (row + 0.5):g}"{kind} xml:space="preserve">{escape(words)}</text>'
            parts.append(f'<g class="line" style="animation-delay: {when:.2f}s">{shown}</g>')
    title = "What make demo prints: three nodes find each other, share names, die, and return"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 {height}" width="820">\n<title>{title}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


PICTURES = {"mesh": mesh, "sync": sync, "register": register, "race": race, "heal": heal, "layers": layers}

if __name__ == "__main__":
    for name, draw in ({"demo": demo} if sys.argv[1:] == ["demo"] else PICTURES).items():
        (HERE / f"{name}.svg").write_text(draw())
        print(HERE / f"{name}.svg")
