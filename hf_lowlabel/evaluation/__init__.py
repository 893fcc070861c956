"""Scores, probes of frozen features, pictures.

classification.py, multilabel.py, confusion.py: formulas. modules.py: the same as modules of `evaluate`, which compute a
run's scores. inference.py, segmentation.py: what a network answers. plots.py, sheets.py, overlays.py: pictures.
"""
