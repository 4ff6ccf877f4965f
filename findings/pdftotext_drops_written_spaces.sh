#!/usr/bin/env bash
# A space written in a PDF does not part two words for poppler; only the gap between them does.
#
# Guess: text drawn as "north " and then "south", with the space as a character of the string, comes
# out of pdftotext as two words, wherever the second is drawn on that line.
# What happens: the written space is thrown away, and words nearer than about a tenth of the letters'
# height are joined: "northsouth" where the second begins at the first's last letter, although a
# space stands between them in the file. With a gap and no written space they are two words. So the
# invisible text of a searchable PDF must end each word short of the next one's box; a space in the
# string is not enough where a detector's boxes touch.
# Versions: poppler-utils 22.12.0 (Debian 12), pikepdf 10.18.0, Python 3.11. November 2026.
#
# Ends with 0 while this is so, with 1 when a written space parts words.
set -euo pipefail
command -v pdftotext >/dev/null || { echo "needs pdftotext (poppler-utils)"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pikepdf==10.18.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import subprocess
import sys

import pikepdf

POINTS = 20
END = 100 + POINTS * 0.6 * len("north")  # a letter of Courier is 0.6 of its size wide


def words(first: str, second_at: float) -> list[str]:
    """What pdftotext makes of two strings on one line, in Courier."""
    path = f"{sys.argv[1]}/words.pdf"
    pdf = pikepdf.new()
    pdf.add_blank_page(page_size=(500, 200))
    page = pdf.pages[0].obj
    courier = pikepdf.Dictionary(
        Type=pikepdf.Name.Font, Subtype=pikepdf.Name.Type1, BaseFont=pikepdf.Name.Courier
    )
    page.Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F=pdf.make_indirect(courier)))
    drawn = f"BT /F {POINTS} Tf 1 0 0 1 100 100 Tm ({first}) Tj 1 0 0 1 {second_at} 100 Tm (south) Tj ET"
    page.Contents = pdf.make_stream(drawn.encode())
    pdf.save(path)
    done = subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True, check=True)
    return done.stdout.split()


assert words("north", END + 0.25 * POINTS) == ["north", "south"], "a gap parts words"
assert words("north ", END + 0.25 * POINTS) == ["north", "south"]
assert words("north", END) == ["northsouth"]
found = words("north ", END)
print(f"with a written space and no gap: {' '.join(found)}")
if found != ["northsouth"]:
    sys.exit(f"changed: {found}")
PYTHON
echo "as described"
