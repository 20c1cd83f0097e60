"""Computes the scores of the uses of trained models, for docs/results/applications.md, from the runs of one suite.

    python -m genbench suite run applications          # trains the models, in runs/applications
    python benchmarks/scripts/applications.py --data-root DATA

All scores are of MNIST's test images and means over the three seeds of the suite, except for baselines without a seed.
The published numbers are those of the papers' tables.
"""

import argparse
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, report
from scipy.ndimage import median_filter
from sklearn.decomposition import PCA
from sklearn.neighbors import KernelDensity
from sklearn.svm import OneClassSVM
from torch import Tensor

import genbench
from genbench.analysis import anomaly, augmentation, clustering
from genbench.analysis.latents import encode
from genbench.core.batch import from_stored
from genbench.core.noise import Draws
from genbench.data import MNIST
from genbench.metrics import reconstruction
from genbench.objectives.corruption import corrupt

PROJECTED = 300  # test images whose nearest generated image is searched, for each digit and seed
NEIGHBORS = 10
LABELS = (100, 1000, None)


class Images:
    """A split of MNIST in memory: `x` float32 [N, 1, 32, 32] in [-1, 1], `label` int64 [N]."""

    def __init__(self, data: MNIST, split: str) -> None:
        source = data.source(split)
        batch = source.batch(torch.arange(len(source)))
        self.x, self.label = from_stored(batch.image), batch.label


def codes(model, x: Tensor) -> Tensor:
    return torch.cat([encode(model, part) for part in x.split(500)])


def clusters(runs: dict, train: Images, test: Images) -> list[dict]:
    """k-means with ten clusters on the codes of the training images; accuracy by the best assignment."""
    some = train.x[:20000]
    rows = [
        row("cluster accuracy, k-means on pixels", [kmeans(some.flatten(1), train.label[:20000])], 0.5349, "Xie 2016")
    ]
    for name, published in (("autoencoder", 0.8184), ("vae", None)):
        found = [kmeans(codes(model, train.x), train.label) for model in runs[name]]
        rows.append(row(f"cluster accuracy, k-means on codes of {name}", found, published, "Xie 2016"))
        found = [
            clustering.assignment_accuracy(
                clustering.cluster(codes(model, some), 10, "mixture").cluster, train.label[:20000]
            )
            for model in runs[name]
        ]
        rows.append(row(f"cluster accuracy, Gaussian mixture on codes of {name}", found))
    return rows


def kmeans(x: Tensor, label: Tensor) -> float:
    return clustering.assignment_accuracy(clustering.cluster(x, 10).cluster, label)


def neighbors(runs: dict, train: Images, test: Images) -> list[dict]:
    rows = []
    for name in ("autoencoder_2d", "vae_2d"):
        found = [
            clustering.neighbor_accuracy(codes(m, train.x), train.label, codes(m, test.x), test.label, NEIGHBORS)
            for m in runs[name]
        ]
        rows.append(row(f"accuracy of {NEIGHBORS} nearest neighbors in two dimensions, {name}", found))
    return rows


def one_class(runs: dict, train: Images, test: Images) -> list[dict]:
    """Mean AUROC over the ten digits, each as the normal class (Ruff et al. 2018)."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    for digit in range(10):
        anomalous = test.label != digit
        normal = train.x[train.label == digit]

        def auroc(values: Tensor, anomalous: Tensor = anomalous) -> float:
            return anomaly.auroc(values, anomalous)

        found["KDE on pixels"].append([auroc(kde(normal, test.x))])
        found["one-class SVM on pixels"].append([auroc(svm(normal, test.x))])
        for name, by in (
            ("autoencoder", "reconstruction"), ("vae", "reconstruction"), ("vae", "latent"), ("gan", "discriminator"),
        ):  # fmt: skip
            training = normal if by == "latent" else None
            models = runs[f"one_class_{name}-only_classes={digit}"]
            found[f"{name}, {by}"].append([auroc(anomaly.scores(m, test.x, by, training=training)) for m in models])
        part = torch.randperm(len(test.x), generator=torch.Generator().manual_seed(digit))[:PROJECTED]
        found["gan, projection"].append(
            [
                auroc(anomaly.scores(m, test.x[part], "projection", steps=100), anomalous[part])
                for m in runs[f"one_class_gan-only_classes={digit}"]
            ]
        )
        print(
            f"digit {digit}:",
            {name: round(float(np.mean(values[-1])), 3) for name, values in found.items()},
            flush=True,
        )
    published = {"KDE on pixels": 0.869, "one-class SVM on pixels": 0.913, "autoencoder, reconstruction": 0.897,
                 "gan, projection": 0.913}  # fmt: skip
    return [
        row(f"mean AUROC, {name}", np.mean(values, 0).tolist(), published.get(name), "Ruff 2018")
        for name, values in found.items()
    ]


def kde(normal: Tensor, x: Tensor) -> Tensor:
    """Negative log density of a kernel density estimate after PCA to 95% of the variance, as in Ruff et al. 2018.

    Pixels are in [0, 1]. The bandwidth, of their grid, has the highest likelihood of a held-out fifth of the images.
    """
    z, rest = reduced(normal, x)
    cut = len(z) * 4 // 5
    widths = 2.0 ** np.arange(0.5, 5.5, 0.5)
    best = max(widths, key=lambda width: KernelDensity(bandwidth=width).fit(z[:cut]).score(z[cut:]))
    return -torch.from_numpy(KernelDensity(bandwidth=best).fit(z).score_samples(rest))


def reduced(normal: Tensor, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Principal coordinates of both sets of images, with 95% of the variance of `normal`, of pixels in [0, 1]."""
    normal, x = normal.flatten(1) / 2 + 0.5, x.flatten(1) / 2 + 0.5
    pca = PCA(0.95, svd_solver="full").fit(normal.numpy())
    return pca.transform(normal.numpy()), pca.transform(x.numpy())


def svm(normal: Tensor, x: Tensor) -> Tensor:
    """Negative decision function of a one-class SVM with a Gaussian kernel and nu 0.1, after PCA to 95% of the
    variance, as in Ruff et al. 2018; gamma is 1 / (dimensions x variance)."""
    z, rest = reduced(normal, x)
    return -torch.from_numpy(OneClassSVM(nu=0.1, gamma="scale").fit(z).decision_function(rest))


def denoising(runs: dict, train: Images, test: Images) -> list[dict]:
    """PSNR of 1,000 test images with Gaussian noise; the filters are tuned on 100 training images."""
    from skimage.restoration import denoise_nl_means

    models = runs["denoising"]
    draws = Draws()
    draws.seed("denoising")
    clean, tuned = test.x[:1000], train.x[:100]
    noisy, noisy_tuned = (corrupt(x, models[0].corruption, models[0].amount, draws) for x in (clean, tuned))

    def median(x: Tensor, size: int) -> Tensor:
        return torch.from_numpy(median_filter(x.numpy(), (1, 1, size, size)))

    def means(x: Tensor, h: float) -> Tensor:
        options = {"patch_size": 5, "patch_distance": 6, "h": h, "sigma": models[0].amount, "fast_mode": True}
        return torch.from_numpy(np.stack([denoise_nl_means(image[0].numpy(), **options)[None] for image in x]))

    def best(filtered: Callable[..., Tensor], values: Iterable) -> float:
        value = max(values, key=lambda value: psnr(filtered(noisy_tuned, value), tuned))
        print(f"denoising: {filtered.__name__} {value}")
        return psnr(filtered(noisy, value), clean)

    rows = [
        row(f"PSNR of noisy images (standard deviation {models[0].amount:g} of 2), dB", [psnr(noisy, clean)]),
        row("PSNR after a median filter, dB", [best(median, (3, 5, 7))]),
        row(
            "PSNR after non-local means, dB", [best(means, models[0].amount * np.array([0.2, 0.4, 0.6, 0.8, 1.0, 1.2]))]
        ),
    ]
    with torch.no_grad():
        found = [psnr(torch.cat([m.reconstruct(part) for part in noisy.split(250)]), clean) for m in models]
    return [*rows, row("PSNR after the denoising autoencoder, dB", found)]


def psnr(x: Tensor, clean: Tensor) -> float:
    """Mean over images, in dB, of values clipped to [-1, 1]."""
    return float(reconstruction.psnr(x.clamp(-1, 1), clean).mean())


def classifiers(runs: dict, data: MNIST, images: int, n: int) -> list[dict]:
    """Classification accuracy score at each number of labels; one classifier for each of the three models."""
    rows = []
    for name, labels in (("conditional_gan", LABELS), ("semi_supervised_gan", (100,))):
        found = defaultdict(list)
        for seed, model in enumerate(runs[name]):
            drawn = augmentation.synthesize(model, n, least_probability=0.0)
            for one in augmentation.classification_accuracy(data, drawn, labels, images=images, seeds=[seed]):
                count = "all" if one.labels is None else f"{one.labels:,}"
                what = (
                    "synthetic images"
                    if one.on == "synthetic"
                    else f"{count} real labels" + (f" and synthetic images of {name}" if one.on == "both" else "")
                )
                if one.on == "synthetic":
                    what += f" of {name}"
                found[f"classifier trained on {what}"] += one.accuracy
            if name == "semi_supervised_gan":
                found["the semi-supervised GAN's own classifier, 100 labels"].append(
                    augmentation.own_accuracy(model, data)
                )
            print(name, seed, {key: round(value[-1], 4) for key, value in found.items()}, flush=True)
        rows += [row(f"accuracy, {what}", values) for what, values in found.items()]
    return rows


def row(what: str, values: list[float], published: float | None = None, source: str = "") -> dict:
    """A row of the table, printed. The standard deviation is that of the sample (n - 1)."""
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
    print(f"{what}: {mean:.4f}" + ("" if std is None else f" ± {std:.4f}"), flush=True)
    return {
        "what": what, "mean": round(mean, 4), "std": "" if std is None else round(std, 4),
        "published": published or "", "source": source if published else "", "values": [round(v, 5) for v in values],
    }  # fmt: skip


def models_of(folder: Path) -> dict[str, list]:
    """Experiment -> its models of all seeds, from the last checkpoints of a suite."""
    found = defaultdict(list)
    for run in sorted(folder.glob("*-seed*/")):
        name = re.sub(r"-seed\d+$", "", run.name).replace("-MNIST", "")
        name = re.sub(r"only_classes=-?(\d).*", r"only_classes=\1", name)
        name = re.sub(r"-labeled=.*", "", name)
        found[name].append(genbench.load(run))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/applications"), help="folder of the suite")
    parser.add_argument("--data-root", help="folder with MNIST")
    parser.add_argument("--out", type=Path, default=RESULTS / "applications.json")
    parser.add_argument("--classifier-images", type=int, default=32000, help="training images of each classifier")
    parser.add_argument("--synthetic", type=int, default=20000, help="synthetic images of each model")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    began = time.process_time()
    data = MNIST(root=arguments.data_root)
    data.prepare_data()
    runs, train, test = models_of(arguments.runs), Images(data, "train"), Images(data, "test")
    rows = [
        *clusters(runs, train, test),
        *neighbors(runs, train, test),
        *one_class(runs, train, test),
        *denoising(runs, train, test),
        *classifiers(runs, data, arguments.classifier_images, arguments.synthetic),
    ]
    seconds = round(time.process_time() - began)
    report("uses of trained models, MNIST", rows, arguments.out, processor_seconds=seconds)


if __name__ == "__main__":
    main()
