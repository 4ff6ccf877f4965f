"""The family ``lines``: a text-line detector and a CTC recogniser (PP-OCR's models and their like).

The detector yields a probability map, which becomes rectangles around lines (`db`); each line is
laid upright, 48 pixels high (`strips`), and read at once (`recognizer`); its words are cut out of
it by the positions of its characters (`words`).
"""
