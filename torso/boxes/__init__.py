"""Geometry of boxes: pure, batched functions and the parts made of them; ``xyxy`` pixels unless a name says else."""
