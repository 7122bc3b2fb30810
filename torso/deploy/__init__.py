"""Shipping: a trained model as a file that runs without torso, and the proof that it gives the same answers."""
