"""What a network can dream into one picture: all its layers on one page, all presets on another."""
