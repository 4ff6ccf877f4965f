"""Tables in the formats of other tools: hOCR, ALTO, COCO, TSV, JSON lines, ICDAR, text."""
