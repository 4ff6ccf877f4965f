"""From encoded bytes to upright BGR pixels: formats, headers, decoders, TIFF pages."""
