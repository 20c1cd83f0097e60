"""Frozen networks whose features scores are computed from, by name and with a hash of their weights.

An extractor is no `nn.Module`: it never lands in a module tree, a checkpoint or an optimizer. It takes uint8 images,
or points, runs in float32 whatever surrounds it, and gives features and, where it classifies, logits.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genbench.core import importing
from genbench.core.errors import UserError, did_you_mean
from genbench.core.precision import without_tf32
from genbench.data.module import data_root
from genbench.data.points import Gaussians, Grid, Ring
from genbench.networks.classifier import SmallClassifier

SHIPPED = Path(__file__).parent / "weights"

# extractors whose weights come from elsewhere: file, where it is published, and the start of its SHA-256
PUBLISHED = {
    "inception": (
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/",
        "6726825d",
    ),
    "dinov2": (
        "dinov2_vitb14_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/",
        None,
    ),
}

IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1) * 255


@dataclass
class Extractor:
    """
    name     what scores are called after
    network  frozen, in eval mode
    read     (network, uint8 images [B, C, H, W]) -> features [B, D], logits [B, K] or None
    resize   how it brings images to its own size, in words, for the protocol
    classes  names of the classes, where they are those of a data set of ours
    hash     of its weights
    points   it takes points, float32 [B, D], and no images
    mixture  modes [K, D] and standard deviation of the Gaussians that these points are drawn from, where known
    """

    name: str
    network: nn.Module
    read: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]]
    resize: str
    classes: tuple[str, ...] = ()
    hash: str = ""
    points: bool = False
    mixture: tuple[Tensor, float] | None = None
    _numbers: dict[str, int] = field(default_factory=dict, repr=False)  # of features and logits, as first seen

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)
        self.hash = self.hash or state_hash(self.network.state_dict())
        self.network.to(memory_format=torch.channels_last)  # twice as fast on a CPU, features equal to 3e-7

    def to(self, device: torch.device | str) -> Extractor:
        self.network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 [B, C, H, W] or points [B, D] -> features [B, D] and logits [B, K] or None, float32.

        Raises:
            UserError: it takes images and was given points, or the other way round; or its output has another shape.
        """
        self.refuse_others(images.shape[1:])
        with full_precision(images.device):
            features, logits = self.read(self.network, images)
        for what, found in (("features", features), ("logits", logits)):
            if found is None:
                continue
            numbers = self._numbers.setdefault(what, found.shape[-1])
            if found.shape != (len(images), numbers):
                raise UserError(
                    f"The extractor '{self.name}' gave {what} of shape {list(found.shape)} for {len(images)} images; "
                    f"[{len(images)}, {numbers}] was expected: one row per image, and equally many numbers each time."
                )
        return features.float(), None if logits is None else logits.float()

    def refuse_others(self, shape: Sequence[int]) -> None:
        """Raise UserError where it looks at images and those of that shape are points, or the other way round."""
        if (len(shape) == 1) != self.points:
            what = ("points", "images") if self.points else ("images", "points")
            raise UserError(
                f"The extractor '{self.name}' looks at {what[0]}, and here are {what[1]}. Leave it out: the data set "
                "has one of its own."
            )

    def score(self, metric: str) -> str:
        """What a score in this feature space is called: only the FID Inception's have the plain names."""
        return metric if self.name == "inception" else f"{metric}-{self.name}"


@contextmanager
def full_precision(device: torch.device):
    """Neither autocast nor TF32, whatever training had set."""
    with without_tf32(), torch.autocast(device.type, enabled=False):
        yield


def state_hash(state: dict[str, Tensor]) -> str:
    """16 hex digits of all names, types, shapes and values: the same however the file was written."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def names() -> list[str]:
    return [
        *sorted(p.stem for p in SHIPPED.glob("*.safetensors")),
        *PUBLISHED,
        *READY,
        "torchvision:NAME",
        "my.module:Network",
    ]


def build(name: str, weights: str | os.PathLike | None = None, root: Path | None = None) -> Extractor:
    """The extractor of that name.

    Args:
        name: One of `names()`
        weights: File of its weights, for those that do not ship with the package
        root: Data root, where `fetch` puts weights

    Raises:
        UserError: there is no such extractor, or its weights are not at hand and cannot be fetched.
    """
    if weights and ((SHIPPED / f"{name}.safetensors").is_file() or name in READY):
        raise UserError(f"The extractor '{name}' has weights of its own: leave `--extractor.weights {weights}` out.")
    if (SHIPPED / f"{name}.safetensors").is_file():
        return _shipped(name)
    if name == "inception":
        return _inception(weights, root)
    if name == "dinov2":
        return _dinov2(weights, root)
    if name in READY:
        return READY[name]()
    if _is_own(name):
        return _own(name, weights)
    at_hand(name, root)  # or there is none of that name
    return _torchvision(name.partition(":")[2], weights)


# ---- where weights are ----------------------------------------------------------------------------------------------


def find_weights(name: str, root: Path | None = None) -> Path | None:
    """The published weights, if they are at hand: below the data root, or in torch's own cache."""
    file = PUBLISHED[name][0]
    places = [Path(torch.hub.get_dir()) / "checkpoints" / file]
    if root is not None:
        places.insert(0, root / "extractors" / file)
    return next((place for place in places if place.is_file()), None)


def at_hand(name: str, root: Path | None = None) -> bool:
    """Whether `build` will find all that the extractor needs on this machine.

    Raises:
        UserError: there is no such extractor.
    """
    if (SHIPPED / f"{name}.safetensors").is_file() or name in READY:
        return True
    if name in PUBLISHED:
        return find_weights(name, root) is not None and (name != "dinov2" or find_spec("timm") is not None)
    if name.startswith("torchvision:"):
        return _cached(name.partition(":")[2]).is_file()
    if _is_own(name):
        return True
    raise UserError(f"There is no extractor '{name}'; there are {', '.join(names())}.{did_you_mean(name, names())}")


def fetch_weights(name: str, root: Path) -> Path:
    """Bring published weights to the data root; returns the file.

    Raises:
        UserError: they cannot be fetched; names file, source and where to put it.
    """
    file, source, prefix = PUBLISHED[name]
    target = root / "extractors" / file
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(source + file, str(target), hash_prefix=prefix)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"The weights of the extractor '{name}' are not at hand and could not be fetched ({error}). They are the "
            f"file {file}, from {source}{file}. Put it at {target}, or name it with `--extractor.weights PATH`; or "
            "choose another extractor, which makes another protocol: `--extractor vgg-random` needs no weights."
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
    return target


def _published(name: str, weights: str | os.PathLike | None, root: Path | None) -> tuple[dict[str, Tensor], bool]:
    """The weights, and whether their file is the published one, as far as its hash is known."""
    path = Path(weights) if weights else find_weights(name, root) or fetch_weights(name, root or data_root(None))
    state = _safe_load(path, name)
    return state, hashlib.sha256(path.read_bytes()).hexdigest().startswith(PUBLISHED[name][2] or "")


def _safe_load(path: Path, name: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"--extractor.weights {path}: there is no such file.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in the reader
        why = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} does not hold weights of the extractor '{name}' ({why}).") from error
    return state


def _loaded(network: nn.Module, state: dict[str, Tensor], name: str) -> nn.Module:
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = str(error).splitlines()
        raise UserError(f"The weights given for '{name}' are not its own: {' '.join(lines[:2])[:300]}") from error
    return network


# ---- the extractors -------------------------------------------------------------------------------------------------


def in_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 or float [B, 1 or 3, H, W] -> [B, channels, H, W]: gray repeated, or the luminance of RGB (ITU-R 601)."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    gray = (images.float() * weights).sum(1, keepdim=True)
    return gray if images.is_floating_point() else gray.round().to(torch.uint8)


def _nhwc(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _shipped(name: str) -> Extractor:
    from safetensors import safe_open

    with safe_open(SHIPPED / f"{name}.safetensors", "pt") as file:
        about = file.metadata()
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dict
    classes = tuple(about["classes"].split("\n"))
    channels = int(about["channels"])
    network = SmallClassifier(channels, len(classes))
    network.load_state_dict(state)

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        x = in_channels(images, channels).float() / 127.5 - 1
        if x.shape[-2:] != (32, 32):
            x = interpolate(x, (32, 32), mode="bilinear", antialias=True, align_corners=False)
        return network(_nhwc(x))

    return Extractor(name, network, read, "32, bilinear, antialias", classes)


def tensorflow_resize(images: Tensor, size: int) -> Tensor:
    """TensorFlow 1's bilinear resize, float [B, C, H, W] -> [B, C, size, size]: corners not aligned, centers ignored.

    Bit for bit as in torch-fidelity, in a tenth of the time: first along rows, then along columns.
    """

    def steps(length: int) -> tuple[Tensor, Tensor, Tensor]:
        at = torch.arange(size, dtype=torch.float32) * (torch.tensor(length, dtype=torch.float32) / size)
        low = at.floor().long()
        device = images.device
        return low.to(device), (low + 1).clamp(max=length - 1).to(device), (at - low).to(device)

    low, high, share = steps(images.shape[-1])
    left = images[..., low]
    images = left + (images[..., high] - left) * share
    low, high, share = steps(images.shape[-2])
    top = images[..., low, :]
    return top + (images[..., high, :] - top) * share[:, None]


def _inception(weights: str | os.PathLike | None, root: Path | None) -> Extractor:
    """The FID Inception of 2015-12-05 (Heusel et al. 2017) in torch-fidelity's port, TensorFlow's resize included."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval
    from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3

    state, genuine = _published("inception", weights, root)
    safe = io.BytesIO()  # torch-fidelity would unpickle the file itself; it is given what a safe load has read
    torch.save(state, safe)
    safe.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], safe)
    except (RuntimeError, TypeError, AttributeError) as error:
        first = " ".join(str(error).splitlines()[:2])[:300]
        raise UserError(f"The weights given for 'inception' are not those of torch-fidelity: {first}") from error
    identity = state_hash(network.state_dict())
    for module in network.modules():
        if isinstance(module, BasicConv2d):  # one pass over memory less for each convolution
            module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()

    layers = nn.Sequential(*(layer for name, layer in network.named_children() if name != "fc"))
    network = nn.ModuleDict({"layers": layers, "fc": network.fc})

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        parts = []
        for part in images.split(16):  # activations of more images leave a CPU's caches
            x = tensorflow_resize(in_channels(part, 3).float(), 299)
            parts.append(network["layers"](_nhwc((x - 128) / 128)).flatten(1))
        features = torch.cat(parts)
        return features, features @ network["fc"].weight.T  # logits without their bias, as the first FID code has them

    # plain names are for the one network that published scores are of
    name = "inception" if genuine else f"inception-{identity[:8]}"
    return Extractor(name, network, read, "299, bilinear of TensorFlow 1", hash=identity)


def _dinov2(weights: str | os.PathLike | None, root: Path | None) -> Extractor:
    """ViT-B/14 of DINOv2 (Oquab et al. 2023), a better judge than Inception (Stein et al. 2023), prepared as in
    torch-fidelity. The network is timm's: torch-fidelity takes no file and would run code from a hub."""
    try:
        from timm.models import vision_transformer
    except ImportError as error:
        raise UserError("The extractor 'dinov2' needs the package timm: `pip install timm`.") from error
    state = dict(_published("dinov2", weights, root)[0])
    network = vision_transformer.vit_base_patch14_dinov2(pretrained=False, img_size=518, num_classes=0,
                                                         dynamic_img_size=True)  # fmt: skip
    state = vision_transformer.checkpoint_filter_fn(state, network)
    network = _loaded(network, state, "dinov2")

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, None]:
        x = tensorflow_resize(in_channels(images, 3).float(), 224)
        mean, std = IMAGENET.to(x.device)
        return network(_nhwc((x - mean) / std)), None

    return Extractor("dinov2", network, read, "224, bilinear of TensorFlow 1")


def _vgg_random() -> Extractor:
    """VGG16 as it is initialized, with 64 units in its last hidden layer (R64 of Naeem et al. 2020)."""
    from torchvision.models import vgg16

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = vgg16(weights=None, dropout=0.0)
        network.classifier[3] = nn.Linear(4096, 64)
        nn.init.normal_(network.classifier[3].weight, 0, 0.01)  # as torchvision initializes its neighbors
        network.classifier = network.classifier[:4]

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, None]:
        x = in_channels(images, 3).float()
        if min(x.shape[-2:]) < 32:  # five halvings need so many
            x = interpolate(x, (32, 32), mode="bilinear", antialias=True, align_corners=False)
        mean, std = IMAGENET.to(x.device)
        return network(_nhwc((x - mean) / std)), None

    return Extractor("vgg-random", network, read, "none, at least 32")


def _cached(model: str) -> Path:
    """Where torch keeps the weights of a classifier of torchvision. Raises UserError where there is none."""
    from torchvision import models

    known = [name for name in models.list_models(module=models) if "quantized" not in name]
    if model not in known:
        raise UserError(f"torchvision has no classifier '{model}'; it has {', '.join(known)}.")
    published = models.get_model_weights(model).DEFAULT
    return Path(torch.hub.get_dir()) / "checkpoints" / published.url.rpartition("/")[2]


def _torchvision(model: str, weights: str | os.PathLike | None) -> Extractor:
    from torchvision import models

    cached = _cached(model)
    published = models.get_model_weights(model).DEFAULT
    if weights is None and not cached.is_file():
        try:
            published.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"The weights of torchvision's {model} are not at hand and could not be fetched ({error}). They are "
                f"{published.url}. Put the file at {cached}, or name it with `--extractor.weights PATH`."
            ) from error
    network = models.get_model(model, weights=None)
    network = _loaded(network, _safe_load(Path(weights) if weights else cached, model), model)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"torchvision's {model} has no linear layer whose input could be its features.")
    last = linear[-1]
    size = published.transforms().crop_size[0]
    kept: list[Tensor] = []
    last.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0].flatten(1)))

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        x = in_channels(images, 3).float()
        x = interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
        mean, std = IMAGENET.to(x.device)
        logits = network(_nhwc((x - mean) / std))
        return kept.pop(), logits

    return Extractor(model, network, read, f"{size}, bilinear, antialias")


def _stacked() -> Extractor:
    """`mnistnet` on each channel: three times its features, and the log-probabilities of all triples of digits.

    Scores of Stacked MNIST are of such a classifier in the literature too (Metz et al. 2017, section 3.3.1).
    """
    digit = _shipped("mnistnet")

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        single = in_channels(images, 3).flatten(0, 1)[:, None]  # [3B, 1, H, W]
        features, logits = (values.unflatten(0, (-1, 3)) for values in digit.read(network, single))
        a, b, c = logits.log_softmax(2).unbind(1)  # [B, 10] each
        triples = a[:, :, None, None] + b[:, None, :, None] + c[:, None, None, :]
        return features.flatten(1), triples.flatten(1)

    classes = tuple(a + b + c for a in digit.classes for b in digit.classes for c in digit.classes)
    return Extractor("stackedmnistnet", digit.network, read, f"{digit.resize}, by channel", classes, digit.hash)


class _Points(nn.Module):
    """Points as their own features; their logits are the log-densities of the modes, up to a constant."""

    modes: Tensor
    std: Tensor

    def __init__(self, modes: Tensor, std: float) -> None:
        super().__init__()
        self.register_buffer("modes", modes)
        self.register_buffer("std", torch.tensor(std))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D] -> the same, and logits [B, K]"""
        squared = torch.stack([(points - mode).square().sum(1) for mode in self.modes], 1)
        return points, -squared / (2 * self.std**2)


def _points() -> Extractor:
    return Extractor("points", nn.Identity(), lambda network, points: (network(points), None), "none", points=True)


def _mixture(data: type[Gaussians]) -> Extractor:
    modes = torch.tensor(data.modes)

    def read(network: nn.Module, points: Tensor) -> tuple[Tensor, Tensor]:
        if points.shape[1] != modes.shape[1]:
            raise UserError(
                f"{data.__name__} has points of {modes.shape[1]} numbers, and here are some of {points.shape[1]}."
            )
        return network(points)

    return Extractor(
        data.extractor, _Points(modes, data.std), read, "none", tuple(map(str, range(len(modes)))), points=True,
        mixture=(modes, data.std),
    )  # fmt: skip


def _is_own(name: str) -> bool:
    return ":" in name and not name.startswith("torchvision:")


def _own(name: str, weights: str | os.PathLike | None) -> Extractor:
    """A network of the user's, `my.module:Network`: an `nn.Module` class without required arguments.

    `forward` takes uint8 images [B, C, H, W] and returns features [B, D], or features and logits [B, K]. The class may
    have the attributes `classes`, names of the K classes, and `points`: if True, it takes points, float32 [B, D]. The
    global random numbers are seeded while it is made. Its hash is that of its weights and of its source file.
    """
    module_name, _, class_name = name.partition(":")
    cls = getattr(importing.import_module(module_name, "--extractor"), class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise UserError(f"--extractor {name}: {module_name} has no nn.Module class '{class_name}'.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            network = cls()
        except TypeError as error:
            raise UserError(
                f"--extractor {name}: it cannot be made without arguments ({error}). Give them defaults."
            ) from error
    if weights is not None:
        _loaded(network, _safe_load(Path(weights), name), name)
    digest = hashlib.sha256(state_hash(network.state_dict()).encode())
    digest.update(Path(inspect.getfile(cls)).read_bytes())

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        found = network(images)
        features, logits = found if isinstance(found, tuple) else (found, None)
        if features.ndim != 2:
            raise UserError(
                f"The extractor '{class_name}' gave features of shape {list(features.shape)}; [B, D] was expected."
            )
        return features, logits

    return Extractor(
        class_name, network, read, "its own", tuple(getattr(cls, "classes", ())), hash=digest.hexdigest()[:16],
        points=getattr(cls, "points", False),
    )  # fmt: skip


POINTS = ("points", "ring", "grid")  # what looks at points
# extractors that need no file
READY: dict[str, Callable[[], Extractor]] = {
    "vgg-random": _vgg_random,
    "stackedmnistnet": _stacked,
    "points": _points,
    "ring": lambda: _mixture(Ring),
    "grid": lambda: _mixture(Grid),
}
