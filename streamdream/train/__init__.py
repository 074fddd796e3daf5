"""Training small networks that paint or dream a frame in one pass."""
