"""hOCR 1.2: XHTML with boxes and confidences in titles; corners of turned words as ``poly``."""

from __future__ import annotations

from collections.abc import Iterable

from textspot_ray._version import __version__
from textspot_ray.export.xml_text import points, xml_text
from textspot_ray.query.pages import Page, PageWord
from textspot_ray.reading_order import bounds, text_lines


class Writer:
    """Writes hOCR."""

    suffix = ".hocr"
    prefix = ""
    many = True

    def head(self) -> str:
        """Declaration and capabilities."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"'
            ' "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
            '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="und" lang="und">\n<head>\n'
            "<title>textspot-ray</title>\n"
            '<meta http-equiv="Content-Type" content="text/html;charset=utf-8"/>\n'
            f'<meta name="ocr-system" content="textspot-ray {xml_text(__version__)}"/>\n'
            '<meta name="ocr-capabilities"'
            ' content="ocr_page ocr_carea ocr_par ocr_line ocrx_word ocrp_poly ocrp_wconf"/>\n'
            "</head>\n<body>\n"
        )

    def page(self, page: Page, number: int) -> str:
        """One ``ocr_page``; each line is in an area of its own."""
        size = f"{page.width or 0} {page.height or 0}"
        image = xml_text(page.image_id.replace('"', "%22"))  # hOCR knows no escapes
        parts = [
            f'<div class="ocr_page" id="page_{number}"'
            f" title='image &quot;{image}&quot;; bbox 0 0 {size}; ppageno {number - 1}'>\n"
        ]
        for n, line in enumerate(text_lines(page.words), start=1):
            name = f"{number}_{n}"
            box = _box(bounds(line))
            # hOCR counts angles counter-clockwise
            angle = -round(line[0].angle_deg, 2) or 0.0
            parts.append(
                f'<div class="ocr_carea" id="block_{name}" title="bbox {box}">\n'
                f'<p class="ocr_par" id="par_{name}" title="bbox {box}">\n'
                f'<span class="ocr_line" id="line_{name}"'
                f' title="bbox {box}; textangle {angle:g}">\n'
                + "".join(_word(word, f"{name}_{k}") for k, word in enumerate(line, start=1))
                + "</span>\n</p>\n</div>\n"
            )
        parts.append("</div>\n")
        return "".join(parts)

    def foot(self) -> Iterable[str]:
        """End of the document."""
        return ("</body>\n</html>\n",)


def _word(word: PageWord, name: str) -> str:
    title = (
        f"bbox {_box(word.box)}; poly {points(word.polygon)};"
        f" x_wconf {round(100 * word.text_confidence)}"
    )
    text = xml_text(word.text)
    return f'<span class="ocrx_word" id="word_{name}" title="{title}">{text}</span>\n'


def _box(box: tuple[float, float, float, float]) -> str:
    return " ".join(str(round(value)) for value in box)
