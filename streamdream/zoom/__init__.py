"""Zoom movies: falling into the dream; `fall` is to be read first."""
