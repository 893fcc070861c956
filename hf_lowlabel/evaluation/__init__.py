"""Metrics, probes of frozen features, pictures. Only `modules` imports evaluate, and only `plots` matplotlib."""
