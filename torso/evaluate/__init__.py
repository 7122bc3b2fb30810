"""Judging: predictions against the truth, in numbers, figures, pictures and one page.

``predictions.collect`` gathers what a model says in pixels of the original pictures; ``detection.evaluate``,
``voc.evaluate`` and ``classification.evaluate`` compare it with the data index; ``plots`` and ``pictures`` show it;
``report.write`` puts everything on one self-contained page.
"""
