"""Style transfer: a painting in place of a dream, in the same stream."""
