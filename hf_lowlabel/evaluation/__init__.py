"""Metrics, probes of frozen features, and pictures. `modules` (evaluate) and `plots` (matplotlib) are imported on demand."""
