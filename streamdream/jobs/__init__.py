"""Long renders: films in segments that outlast interruptions."""
