"""What is dreamed: layers, channels, classes, neurons, what a guide shows."""
