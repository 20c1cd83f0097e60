"""Builds all extractors by their names."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genbench.core import importing
from genbench.core.arguments import key_of
from genbench.core.errors import UserError, did_you_mean
from genbench.data.points import Gaussians, Grid, Ring
from genbench.evaluation import extractor_weights as stored
from genbench.evaluation.extractor import Extractor, in_channels, state_hash
from genbench.networks.classifier import FactorClassifier, SmallClassifier

SHIPPED = Path(__file__).parent / "weights"

IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1) * 255


def names() -> list[str]:
    return [
        *sorted(p.stem for p in SHIPPED.glob("*.safetensors")),
        *stored.PUBLISHED,
        *READY,
        "torchvision:NAME",
        "my.module:Network",
    ]


def build(name: str, weights: str | os.PathLike | None = None, root: Path | None = None) -> Extractor:
    """Build the extractor of this name.

    Args:
        name: One of `names()`
        weights: File with the weights, for extractors whose weights are not shipped with the package
        root: Data root, to which `fetch` downloads weights

    Raises:
        UserError: the name is unknown, or the weights were not found and cannot be downloaded.
    """
    if weights and ((SHIPPED / f"{name}.safetensors").is_file() or name in READY):
        raise UserError(f"The extractor '{name}' has fixed weights. Remove `--extractor.weights {weights}`.")
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
    at_hand(name, root)  # raises UserError for an unknown name
    return _torchvision(name.partition(":")[2], weights)


def at_hand(name: str, root: Path | None = None) -> bool:
    """Whether everything that the extractor needs is available on this machine, without a download.

    Raises:
        UserError: the name is unknown.
    """
    if (SHIPPED / f"{name}.safetensors").is_file() or name in READY:
        return True
    if name in stored.PUBLISHED:
        return stored.find_weights(name, root) is not None and (name != "dinov2" or find_spec("timm") is not None)
    if name.startswith("torchvision:"):
        return _cached(name.partition(":")[2]).is_file()
    if _is_own(name):
        return True
    raise UserError(f"Unknown extractor '{name}'. Choose from: {', '.join(names())}.{did_you_mean(name, names())}")


def _nhwc(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _shipped(name: str) -> Extractor:
    from safetensors import safe_open

    with safe_open(SHIPPED / f"{name}.safetensors", "pt") as file:
        about = file.metadata()
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is not a dict
    classes = tuple(about["classes"].split("\n"))
    channels = int(about["channels"])
    network: nn.Module
    if "factors" in about:
        network = FactorClassifier(channels, [int(values) for values in about["factors"].split()])
    else:
        network = SmallClassifier(channels, len(classes))
    network.load_state_dict(state)

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        x = in_channels(images, channels).float() / 127.5 - 1
        if x.shape[-2:] != (32, 32):
            x = interpolate(x, (32, 32), mode="bilinear", antialias=True, align_corners=False)
        return network(_nhwc(x))

    return Extractor(name, network, read, "32, bilinear, antialias", classes)


def tensorflow_resize(images: Tensor, size: int) -> Tensor:
    """Bilinear resize of TensorFlow 1, float [B, C, H, W] -> [B, C, size, size]; neither corners nor centers are
    aligned.

    It resizes first along rows and then along columns. The result is bit for bit the same as in torch-fidelity, in a
    tenth of the time.
    """

    def steps(length: int) -> tuple[Tensor, Tensor, Tensor]:
        at = torch.arange(size, dtype=torch.float32) * (torch.tensor(length, dtype=torch.float32) / size)
        low = at.floor().long()
        device = images.device
        return low.to(device), (low + 1).clamp(max=length - 1).to(device), (at - low).to(device)

    low, high, fraction = steps(images.shape[-1])
    left = images[..., low]
    images = left + (images[..., high] - left) * fraction
    low, high, fraction = steps(images.shape[-2])
    top = images[..., low, :]
    return top + (images[..., high, :] - top) * fraction[:, None]


def _inception(weights: str | os.PathLike | None, root: Path | None) -> Extractor:
    """The FID Inception of 2015-12-05 (Heusel et al. 2017) as ported by torch-fidelity, with TensorFlow's resize."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval
    from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3

    state, genuine = stored.published("inception", weights, root)
    safe = io.BytesIO()  # torch-fidelity would unpickle the file, so it gets the safely loaded weights
    torch.save(state, safe)
    safe.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], safe)
    except (RuntimeError, TypeError, AttributeError) as error:
        first = " ".join(str(error).splitlines()[:2])[:300]
        raise UserError(f"The weights do not fit torch-fidelity's 'inception': {first}") from error
    identity = state_hash(network.state_dict())
    for module in network.modules():
        if isinstance(module, BasicConv2d):  # fused: saves one pass over memory per convolution
            module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()

    layers = nn.Sequential(*(layer for name, layer in network.named_children() if name != "fc"))
    network = nn.ModuleDict({"layers": layers, "fc": network.fc})

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        parts = []
        for part in images.split(16):  # activations of larger batches do not fit into the caches of a CPU
            x = tensorflow_resize(in_channels(part, 3).float(), 299)
            parts.append(network["layers"](_nhwc((x - 128) / 128)).flatten(1))
        features = torch.cat(parts)
        return features, features @ network["fc"].weight.T  # logits without bias, as in the original FID code

    # the plain name is reserved for the network with which published scores were computed
    name = "inception" if genuine else f"inception-{identity[:8]}"
    return Extractor(name, network, read, "299, bilinear of TensorFlow 1", hash=identity)


def _dinov2(weights: str | os.PathLike | None, root: Path | None) -> Extractor:
    """ViT-B/14 of DINOv2 (Oquab et al. 2023), which agrees better with people than Inception does (Stein et al. 2023).

    Images are prepared as in torch-fidelity. The network is built with timm, since torch-fidelity cannot load it
    from a file, but only by running code from a hub.
    """
    try:
        from timm.models import vision_transformer
    except ImportError as error:
        raise UserError("The extractor 'dinov2' needs the package timm: `pip install timm`.") from error
    state = dict(stored.published("dinov2", weights, root)[0])
    network = vision_transformer.vit_base_patch14_dinov2(pretrained=False, img_size=518, num_classes=0,
                                                         dynamic_img_size=True)  # fmt: skip
    state = vision_transformer.checkpoint_filter_fn(state, network)
    network = stored.load_into(network, state, "dinov2")

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, None]:
        x = tensorflow_resize(in_channels(images, 3).float(), 224)
        mean, std = IMAGENET.to(x.device)
        return network(_nhwc((x - mean) / std)), None

    return Extractor("dinov2", network, read, "224, bilinear of TensorFlow 1")


def _vgg_random() -> Extractor:
    """VGG16 with random initial weights and 64 units in its last hidden layer (R64 of Naeem et al. 2020)."""
    from torchvision.models import vgg16

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = vgg16(weights=None, dropout=0.0)
        network.classifier[3] = nn.Linear(4096, 64)
        nn.init.normal_(network.classifier[3].weight, 0, 0.01)  # as torchvision initializes the other linear layers
        network.classifier = network.classifier[:4]

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, None]:
        x = in_channels(images, 3).float()
        if min(x.shape[-2:]) < 32:  # the network halves images five times
            x = interpolate(x, (32, 32), mode="bilinear", antialias=True, align_corners=False)
        mean, std = IMAGENET.to(x.device)
        return network(_nhwc((x - mean) / std)), None

    return Extractor("vgg-random", network, read, "none, at least 32")


def _cached(model: str) -> Path:
    """Path in torch's cache for the weights of a torchvision classifier. Raises UserError if the name is unknown."""
    from torchvision import models

    known = [name for name in models.list_models(module=models) if "quantized" not in name]
    if model not in known:
        raise UserError(f"torchvision has no classifier '{model}'. Choose from: {', '.join(known)}.")
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
                f"The weights of torchvision's {model} were not found and could not be downloaded ({error}). Download "
                f"{published.url}, and save it as {cached} or pass its path with `--extractor.weights`."
            ) from error
    network = models.get_model(model, weights=None)
    network = stored.load_into(network, stored.safe_load(Path(weights) if weights else cached, model), model)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"torchvision's {model} has no linear layer, so it cannot be used as an extractor.")
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
    """`mnistnet` applied to each of three channels: the features of all three, and log-probabilities of digit triples.

    The literature computes scores of Stacked MNIST in the same way (Metz et al. 2017, section 3.3.1).
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
    """Returns points as features, and the log-density of each mode, up to a constant, as logits."""

    modes: Tensor
    std: Tensor

    def __init__(self, modes: Tensor, std: float) -> None:
        super().__init__()
        self.register_buffer("modes", modes)
        self.register_buffer("std", torch.tensor(std))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D] -> the same points, and logits [B, K]"""
        squared = torch.stack([(points - mode).square().sum(1) for mode in self.modes], 1)
        return points, -squared / (2 * self.std**2)


def _points() -> Extractor:
    return Extractor("points", nn.Identity(), lambda network, points: (network(points), None), "none", points=True)


def _mixture(data: type[Gaussians]) -> Extractor:
    modes = torch.tensor(data.modes)

    def read(network: nn.Module, points: Tensor) -> tuple[Tensor, Tensor]:
        if points.shape[1] != modes.shape[1]:
            raise UserError(
                f"{data.__name__} has points of {modes.shape[1]} numbers, but got points of {points.shape[1]} numbers."
            )
        return network(points)

    return Extractor(
        data.extractor, _Points(modes, data.std), read, "none", tuple(map(str, range(len(modes)))), points=True,
        mixture=(modes, data.std),
    )  # fmt: skip


def _is_own(name: str) -> bool:
    return ":" in name and not name.startswith("torchvision:")


def _own(name: str, weights: str | os.PathLike | None) -> Extractor:
    """A user's own network, `my.module:Network`: an `nn.Module` class without required arguments.

    `forward` takes uint8 images [B, C, H, W] and returns features [B, D], or features and logits [B, K]. The class may
    have the attributes `classes` (names of the K classes) and `points` (True if it takes points, float32 [B, D]). The
    global random generators are seeded before the network is built. Its hash covers its weights and its source file.
    """
    module_name, _, class_name = name.partition(":")
    cls = getattr(importing.import_module(module_name, "--extractor"), class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise UserError(f"--extractor {name}: {module_name} has no nn.Module class '{class_name}'.")
    if needed := importing.required_arguments(cls):
        raise UserError(
            f"--extractor {name}: {class_name} requires {', '.join(needed)}. Give defaults to its arguments."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            network = cls()
        except Exception as error:  # it is the user's code
            traceback = importing.own_traceback(error, cls)
            raise UserError(f"--extractor {name}: {class_name} failed while it was made.\n{traceback}") from error
    if weights is not None:
        stored.load_into(network, stored.safe_load(Path(weights), name), name)
    identity = key_of([state_hash(network.state_dict()), importing.source_hash(cls)])

    def read(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        try:
            found = network(images)
        except Exception as error:  # it is the user's code
            traceback = importing.own_traceback(error, cls)
            raise UserError(f"The extractor '{class_name}' failed.\n{traceback}") from error
        if isinstance(found, tuple) and len(found) != 2:
            raise UserError(
                f"The extractor '{class_name}' returned a tuple of {len(found)}. Return features, or features and "
                "logits."
            )
        return found if isinstance(found, tuple) else (found, None)

    classes, points = tuple(getattr(cls, "classes", ())), getattr(cls, "points", False)
    return Extractor(class_name, network, read, "its own", classes, identity, points, own=True)


POINTS = ("points", "ring", "grid")  # extractors that take points
# extractors that need no weights file
READY: dict[str, Callable[[], Extractor]] = {
    "vgg-random": _vgg_random,
    "stackedmnistnet": _stacked,
    "points": _points,
    "ring": lambda: _mixture(Ring),
    "grid": lambda: _mixture(Grid),
}
