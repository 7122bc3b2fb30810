"""Training: one loop, what steers it, and checkpoints that survive anything.

`engine.fit` is the loop. `optim`, `schedules` and `tricks` hold the parts a recipe names; `checkpoint` writes and
reads a run's state; `signals`, `seed`, `precision`, `log` and `run_folder` are what their names say.
"""
