"""Dreaming one picture in frequency space.

Source: Olah, Mordvintsev and Schubert, "Feature visualization" (2017): it is a picture's Fourier
coefficients that climb, each scaled by 1 / frequency as photographs are, so that none is
preferred; Kingma and Ba, "Adam" (arXiv:1412.6980) is how.
"""

from __future__ import annotations

import torch

from streamdream.frame import Delta, Image

MOMENTA = 0.9, 0.99  # of the mean gradient and of its square
SLIGHT = 1e-3  # of the RMS of all coefficients; what is fainter is not made as strong


class Spectrum:
    """The ascent of one picture by its Fourier coefficients: turns gradients into steps."""

    def __init__(self, image: Image) -> None:
        """Begin, with a picture (3, h, w) of this size."""
        h, w = image.shape[-2], image.shape[-1]
        rows = torch.fft.fftfreq(h, device=image.device)[:, None]
        columns = torch.fft.rfftfreq(w, device=image.device)[None]
        self._gain = 1 / torch.hypot(rows, columns).clamp_min(1 / max(h, w))
        self._square = torch.zeros(3, h, w // 2 + 1, device=image.device)
        self._mean = self._square.to(torch.complex64)
        self._steps = 0

    def __call__(self, gradient: Delta) -> Delta:
        """The step (3, h, w), of any size, that follows a gradient of the picture."""
        first, second = MOMENTA
        slope = torch.fft.rfft2(gradient) * self._gain
        slope = slope / slope.abs().square().mean().sqrt().clamp_min(1e-12)
        self._steps += 1
        self._mean = self._mean * first + slope * (1 - first)
        self._square = self._square * second + slope.abs().square() * (1 - second)
        mean = self._mean / (1 - first**self._steps)
        square = self._square / (1 - second**self._steps)
        move = mean / (square.sqrt() + SLIGHT) * self._gain
        return torch.fft.irfft2(move, gradient.shape[-2:])
