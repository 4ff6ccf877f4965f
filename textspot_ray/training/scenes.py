"""Rendered pictures of words and the words' exact places, for training the embedded bundle."""

from __future__ import annotations

from textspot_ray.training.patches import WordPatch, render_word

__all__ = ["WordPatch", "render_word"]
