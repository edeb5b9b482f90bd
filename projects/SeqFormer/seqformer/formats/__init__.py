"""Annotation formats that datasets are made from and results are turned into."""
