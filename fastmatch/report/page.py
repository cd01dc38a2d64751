"The page's parts: text made safe, tables, listings with pictures, and the frame with its style."
import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

from ..core import InputError
from ..data.read import read_image

SIDE = 160  # pixels of a picture's longer side: sharp on a phone's screen, about 4 KB each
MARKS = {'right': '✓', 'wrong': '✗', 'missed': '○'}  # beside the word: colour alone tells some readers nothing

STYLE = '''
:root { color-scheme: light dark; --bg: #fff; --card: #f6f7f8; --text: #1b1f23; --soft: #5b636b; --edge: #d9dde1;
  --right: #0067a5; --wrong: #b24400; --missed: #83357d }
@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --card: #1d2125; --text: #e8eaec; --soft: #a3abb3; --edge: #363c42;
  --right: #6cbcf5; --wrong: #ff9a57; --missed: #e59add } }
* { box-sizing: border-box }
body { margin: 0; background: var(--bg); color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  -webkit-text-size-adjust: 100%; overflow-wrap: anywhere }
main { max-width: 1060px; margin: 0 auto; padding: 20px 16px 64px }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .2em 0 .5em; text-wrap: balance }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.4em 0 .5em; padding-top: .7em; border-top: 1px solid var(--edge) }
h3 { font-size: 1rem; margin: 1.8em 0 .6em }
p { max-width: 70ch; margin: .5em 0 } .soft, figcaption { color: var(--soft); font-size: .875rem } .lead { font-size: 1.1rem }
code, pre { font: .85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: .875rem; margin: 1em 0 } a { color: var(--right) }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 1.2em 0 }
.tile { flex: 1 1 150px; background: var(--card); border-radius: 10px; padding: 12px 16px }
.tile b { display: block; font-size: 2rem; line-height: 1.2 }
.tile, .pair, td, th, .chart { font-variant-numeric: tabular-nums }
.scroll { overflow-x: auto; max-width: 100%; margin: .8em 0 } table { border-collapse: collapse; font-size: .9rem }
th, td { padding: 5px 14px 5px 0; text-align: right; border-bottom: 1px solid var(--edge); vertical-align: top }
.scroll :is(th, td) { white-space: nowrap }
@media (max-width: 480px) { .scroll table { font-size: .8rem } .scroll th, .scroll td { padding-right: 7px } }
th:first-child, td:first-child, .words :is(th, td) { text-align: left }
.scroll .words td { white-space: normal; overflow-wrap: normal }
th { font-weight: 600; color: var(--soft) } tr.main td { font-weight: 700 }
td small { color: var(--soft); font-weight: 400 } pre { overflow-x: auto; background: var(--card); border-radius: 10px; padding: 12px 16px }
summary { cursor: pointer } .two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 20px }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 20px }
figure { margin: .6em 0; max-width: 520px; min-width: 0 } .chart { display: block; width: 100%; height: auto }
.chart text { font-size: 12px; fill: var(--soft) } .chart .at { fill: var(--text); font-weight: 600 }
.chart .grid { stroke: var(--edge); stroke-width: .7 } .chart .axis { stroke: var(--soft) }
.chart .cut { stroke: var(--text); stroke-width: 1.5 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round } .area { opacity: .16; stroke: none }
.line.s0 { stroke: var(--right) } .line.s1 { stroke: var(--wrong); stroke-dasharray: 6 3 }
.line.s2 { stroke: var(--missed); stroke-dasharray: 2 3 }
.line.s3 { stroke: var(--right); stroke-dasharray: 8 3 2 3 }
.line.s4 { stroke: var(--wrong) } .line.s5 { stroke: var(--missed); stroke-dasharray: 9 3 }
.line.level { stroke: var(--soft); stroke-dasharray: 1 4; stroke-width: 1.5 }
.dot.s3 { fill: var(--right) } .dot.s4 { fill: var(--wrong) } .dot.s5 { fill: var(--missed) }
.area.s0, .dot.s0 { fill: var(--right) } .area.s1, .dot.s1 { fill: var(--wrong) } .dot.s2 { fill: var(--missed) }
.keys { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: .8rem; color: var(--soft); padding-left: 8%; margin: 2px 0 6px }
.group, .pair { background: var(--card); border-radius: 10px; padding: 12px; margin: 0; min-width: 0 }
.groups { display: flex; flex-wrap: wrap; gap: 12px }
.group header { font-size: .9rem; margin-bottom: 8px } .group header b { margin-right: .4em }
.members { display: flex; flex-wrap: wrap; gap: 12px 8px } .members .listing { width: 96px }
.listing { margin: 0; font-size: .8rem; line-height: 1.35; min-width: 0 }
.listing img { display: block; width: 100%; max-width: 128px; aspect-ratio: 1; object-fit: contain; background: #fff; border-radius: 6px;
  border: 2px solid var(--edge) } .listing p { margin: 3px 0 }
.listing .title { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4; overflow: hidden }
.pair .title { -webkit-line-clamp: 7 } .listing small { color: var(--soft) }
.right { color: var(--right) } .wrong { color: var(--wrong) } .missed { color: var(--missed) } .right, .wrong, .missed { font-weight: 600 }
.listing.is-right img { border-color: var(--right) } .listing.is-wrong img { border-color: var(--wrong) }
.listing.is-missed img { border: 2px dashed var(--missed) }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 12px }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; align-items: start }
.pair table { width: 100%; font-size: .8rem; margin-top: 10px } .pair td { padding: 2px 6px 2px 0; border: 0; vertical-align: middle }
.pair td:last-child { width: 45%; padding-right: 0 } .fused td { font-weight: 700 }
.bar { display: block; position: relative; height: 8px; background: var(--edge); border-radius: 4px }
.bar i { position: absolute; inset: 0 auto 0 0; background: var(--soft); border-radius: 4px } .fused .bar i { background: var(--text) }
.bar b { position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--wrong) }
'''


def esc(o) -> str:
    "`o` as text that is safe in html, also in an attribute."
    # half an emoji, as a title cut by another program may hold, can't be written as UTF-8
    return escape(str(o).encode('utf-8', 'replace').decode('utf-8'))


def plural(n, what, many=None) -> str: return f'{n:,} {what if n == 1 else many or what + "s"}'


def and_(names) -> str:
    "'a, b and c'."
    *most, last = names
    return f'{", ".join(most)} and {last}' if most else last


def number(
    x,  # None or NaN: there is none
    digits: int = 3,
) -> str:
    "`x` to so many places, or a dash."
    return '–' if x is None or x != x else f'{x:.{digits}f}'


def table(
    rows,  # Rows of cells, html
    head=None,  # Cells of the head
    main: str | None = None,  # First cell of the row to stress
    words: bool = False,  # Cells hold words: all to the left
) -> str:
    "A table that scrolls inside its own box where the screen is narrow."
    top = '' if head is None else f'<thead><tr>{"".join(f"<th>{o}</th>" for o in head)}</tr></thead>'
    body = ''.join(f'<tr{" class=main" if r[0] == main else ""}>{"".join(f"<td>{o}</td>" for o in r)}</tr>' for r in rows)
    return f'<div class="scroll" tabindex="0"><table{" class=words" if words else ""}>{top}<tbody>{body}</tbody></table></div>'


class Cards:
    "Listings as html: picture, mark, title, id. A picture that is shown again isn't read again."
    def __init__(
        self,
        emb,  # `Embeddings`: ids, titles, groups
        images=None,  # (n,) files or PIL images, or a function from a row number to one; None: no pictures
    ):
        if images is not None and not callable(images) and len(images) != len(emb):
            raise InputError(f'images: {len(images)} for {len(emb)} listings')
        self.emb, self.images, self._read = emb, images, {}

    def picture(
        self,
        i: int,  # Row
    ) -> str:
        "The listing's picture as a data address."
        if i not in self._read:
            image = self.images(i) if callable(self.images) else self.images[i]
            self._read[i] = data_uri(image, f'row {i} ({self.emb.ids[i]})')
        return self._read[i]

    def __call__(
        self,
        i: int,  # Row
        mark: str | None = None,  # One of `MARKS`
        group: bool = True,  # Name its group
    ) -> str:
        "One listing."
        i, e = int(i), self.emb
        img = '' if self.images is None else f'<img src="{self.picture(i)}" alt="Picture of {esc(e.ids[i])}">'
        word = '' if mark is None else f'<p class="{mark}">{MARKS[mark]} {mark}</p>'
        title = '' if e.titles is None else f'<p class="title" dir="auto">{esc(e.titles[i])}</p>'
        product = f'<br>product <bdi>{esc(e.groups[i])}</bdi>' if group else ''
        return (f'<div class="listing{f" is-{mark}" if mark else ""}">{img}{word}{title}'
                f'<small><bdi class="id">{esc(e.ids[i])}</bdi>{product}</small></div>')


def data_uri(
    image,  # File or PIL image
    where: str,  # Whose it is, for the message
) -> str:
    "A small WebP as a data address."
    try: im = read_image(image, (SIDE, SIDE)) if isinstance(image, (str, Path)) else image.convert('RGB')
    except OSError as e: raise InputError(f'{where}: {image} can not be read: {e}') from e
    if max(im.size) > SIDE: im.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    im.save(out, 'WEBP', quality=75)
    return f'data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}'


def page(
    title: str,
    top: str,  # html above the first section
    sections: list[tuple[str, str]],  # (heading, html); those without html are left out
) -> str:
    "The whole page. Its policy lets it load nothing and run nothing, whatever a title holds."
    sections = [o for o in sections if o[1]]
    links = ''.join(f'<a href="#s{i}">{h}</a>' for i, (h, _) in enumerate(sections, 1))
    body = ''.join(f'<section id="s{i}"><h2>{h}</h2>{o}</section>' for i, (h, o) in enumerate(sections, 1))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{esc(title)}</title>'
            f'<style>{STYLE}</style></head>\n'
            f'<body><main><h1>{esc(title)}</h1>{top}<nav aria-label="Sections">{links}</nav>{body}</main></body></html>\n')
