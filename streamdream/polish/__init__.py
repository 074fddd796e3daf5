"""How a dream is finished: its gradient, its picture, its colours, the noise it begins with."""
