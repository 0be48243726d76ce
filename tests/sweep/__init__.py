"""Killing a create or a destroy at every point, and looking at what is left. See ``make sweep``."""
