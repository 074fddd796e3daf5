"""How the camera moved, from optical flow, and what moves otherwise.

The camera's movement is taken to be affine, which pans, rolls and zooms are, and what most of the
picture does. It is found by iteratively reweighted least squares with Cauchy's weights, as in
Black and Anandan, "The robust estimation of multiple motions" (1996).
"""

from __future__ import annotations

import cv2
import numpy as np

from streamdream.frame import Flow, Image, Mask, interleaved, planes
from streamdream.masks.keys import WEIGHTS, ramp
from streamdream.motion import Movement

STEP = 8  # px between the places that are looked at
ROUNDS = 12
SCATTER = 1.5  # px, at least, that places may be off and still be the camera's
LEAST = 0.1  # px, mean over the picture; a camera that moves less stands
LEAST_SEEN = 0.4  # px between two frames; of less, flow is not sure
AROUND = 0.01  # of the height, within which texture speaks for its surroundings
PLAIN = 3 / 255  # a pixel; texture that is fainter says little
SLOW, FAST = 0.5, 1.25  # times the speed asked for: below the mask is 0, above 1


def camera_flow(movement: Movement) -> Flow:
    """The flow (2, h, w) that the camera alone would give; nothing where it stands."""
    flow = interleaved(movement.flow)
    h, w = flow.shape[:2]
    y, x = np.mgrid[STEP // 2 : h : STEP, STEP // 2 : w : STEP].astype(np.float64)
    seen = flow[STEP // 2 :: STEP, STEP // 2 :: STEP].reshape(-1, 2).astype(np.float64)
    trust = movement.trust[0, STEP // 2 :: STEP, STEP // 2 :: STEP].cpu().numpy().ravel()
    places = np.stack([np.ones(x.size), x.ravel() / w - 0.5, y.ravel() / h - 0.5], 1)
    found = np.zeros((3, 2))
    found[0] = np.median(seen, axis=0)
    for _ in range(ROUNDS):
        off = np.linalg.norm(seen - places @ found, axis=1)
        scatter = max(SCATTER, 1.4826 * float(np.median(off)))
        weights = (0.05 + trust) / (1 + np.square(off / scatter))
        weighed = places * weights[:, None]
        # A little of nothing keeps what is not seen, as in a plain picture, from running away.
        normal = weighed.T @ places + 1e-6 * weights.sum() * np.eye(3)
        found = np.linalg.solve(normal, weighed.T @ seen)
    columns = (np.arange(w) / w - 0.5).reshape(1, w, 1)
    rows = (np.arange(h) / h - 0.5).reshape(h, 1, 1)
    whole = (found[0] + columns * found[1] + rows * found[2]).astype(np.float32)
    if float(np.linalg.norm(whole, axis=-1).mean()) < LEAST:
        whole = np.zeros_like(whole)
    return planes(whole, movement.flow.device)


def moving(image: Image, movement: Movement, camera: Flow, elapsed: float, speed: float) -> Mask:
    """Where (1, h, w) things of an image move, against the camera, at about this speed or faster.

    `speed` is in percent of the picture's height a second, `elapsed` the seconds between the
    two frames. Flow knows nothing of places without texture: they move as the texture around
    them does, and where there is none they stand.
    """
    grey = interleaved(image) @ WEIGHTS
    across, down = (cv2.Scharr(grey, cv2.CV_32F, *axes, scale=1 / 32) for axes in ((1, 0), (0, 1)))
    texture = np.square(across) + np.square(down)
    pixels = np.sqrt(np.square(interleaved(movement.flow - camera)).sum(-1))
    # Single places that the flow gets wrong are no things.
    pixels = cv2.medianBlur(pixels.astype(np.float32), 5)
    reach = max(1.0, AROUND * pixels.shape[0])
    weighed, weights = (cv2.GaussianBlur(a, (0, 0), reach) for a in (pixels * texture, texture))
    pixels = np.asarray(weighed / (weights + PLAIN**2), np.float32)
    limit = max(LEAST_SEEN, speed / 100 * pixels.shape[0] * elapsed)
    found = ramp(pixels, SLOW * limit, FAST * limit)
    return planes(found[..., None].astype(np.float32), movement.flow.device)
