"""Tubelet: large-scale video understanding with transformers."""
