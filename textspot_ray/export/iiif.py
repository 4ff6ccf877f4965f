"""W3C web annotations in a IIIF Presentation 3 annotation page, one file per image.

Each word is an annotation that supplements its picture: the text as its body, the box as a media
fragment and the corners as SVG for its target. The target is named as the picture is: give
``--image-prefix`` the address of the canvases or pictures on the server.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from textspot_ray.export.formats import TextWriter
from textspot_ray.export.layout import PageLayout
from textspot_ray.query.pages import PageWord


class Writer(TextWriter):
    """Writes an annotation page."""

    suffix: ClassVar[str] = ".json"
    many: ClassVar[bool] = False

    def page(self, layout: PageLayout, number: int) -> str:
        """The page, with a line's words after each other in reading order."""
        name = _uri(layout.name)
        data = {
            "@context": "http://iiif.io/api/presentation/3/context.json",
            "id": f"{name}#words",
            "type": "AnnotationPage",
            "items": [
                _annotation(layout, name, word, n)
                for n, line in enumerate(layout.lines)
                for word in line.words
            ],
        }
        return json.dumps(data, ensure_ascii=False, indent=1) + "\n"


def _uri(name: str) -> str:
    """The name as a relative reference; a URL stays as it is."""
    return name if "://" in name else quote(name)


def _annotation(layout: PageLayout, name: str, word: PageWord, line: int) -> dict[str, Any]:
    x0, y0, x1, y1 = layout.clipped(word.box)
    corners = " ".join(f"{x:.2f},{y:.2f}" for x, y in layout.polygon(word))
    return {
        "id": f"{name}#word{word.word_index}",
        "type": "Annotation",
        "motivation": "supplementing",
        "body": {"type": "TextualBody", "value": word.text, "format": "text/plain"},
        "target": {
            "type": "SpecificResource",
            "source": name,
            "selector": [
                {
                    "type": "FragmentSelector",
                    "conformsTo": "http://www.w3.org/TR/media-frags/",
                    "value": f"xywh=pixel:{x0},{y0},{x1 - x0},{y1 - y0}",
                },
                {
                    "type": "SvgSelector",
                    "value": '<svg xmlns="http://www.w3.org/2000/svg">'
                    f"<polygon points={quoteattr(corners)}/></svg>",
                },
            ],
        },
        "textspot:confidence": round(word.text_confidence, 4),
        "textspot:line": line,
    }
