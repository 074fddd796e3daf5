"""Live: a camera's picture dreamed at the camera's pace; see `stage` for a frame's journey."""
