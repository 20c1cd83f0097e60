"""Small files in the official layout of MedMNIST (https://medmnist.com, Yang et al. 2023): an .npz of uint8 arrays
{train,val,test}_images [N, 28, 28] or [N, 28, 28, 3] and {train,val,test}_labels [N, 1]."""

from pathlib import Path

import numpy as np

CENTER = (12, 9)  # row and column of the lesion in images of 28×28


def scans(n: int, rng: np.random.Generator, lesion: bool = False, size: int = 28) -> np.ndarray:
    """Drawings of two dark lungs in a bright chest, uint8 [n, size, size]; a lesion is a bright disk in a lung."""
    row, column = np.mgrid[:size, :size] * 28 / size
    images = []
    for _ in range(n):
        shift, wide = rng.normal(0, 0.6, 2), rng.normal(5, 0.3)
        image = 170 - 2 * abs(row - 14 - shift[0]) + rng.normal(0, 3)
        for middle in (8, 20):
            inside = ((row - 14 - shift[0]) / 9) ** 2 + ((column - middle - shift[1]) / wide) ** 2 < 1
            image = np.where(inside, 60, image)
        if lesion:
            near = (row - CENTER[0] - shift[0]) ** 2 + (column - CENTER[1] - shift[1]) ** 2 < 9
            image = np.where(near, 200, image)
        images.append(image + rng.normal(0, 4, image.shape))
    return np.stack(images).round().clip(0, 255).astype(np.uint8)


def write(path: Path, counts: dict[str, int], size: int = 28) -> Path:
    """Write `counts` images of each split, of which every second has a lesion (label 1)."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in counts.items():
        label = np.arange(count) % 2
        images = np.empty((count, size, size), np.uint8)
        for kind in (0, 1):
            images[label == kind] = scans(int((label == kind).sum()), rng, kind == 1, size)
        arrays |= {f"{split}_images": images, f"{split}_labels": label.astype(np.uint8)[:, None]}
    np.savez_compressed(path, **arrays)
    return path
