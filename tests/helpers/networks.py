"""What the tests of networks measure."""

from torch import nn


def count(net):
    return sum(p.numel() for p in net.parameters())


def receptive_field(net, x):
    """Height and width of what one output pixel in the middle sees, by its gradient."""
    # a normalization over the image shows a little of everything, and a ReLU may show nothing
    for name, layer in list(net.named_modules()):
        if isinstance(layer, (nn.InstanceNorm2d, nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.Tanh)):
            parent = net.get_submodule(name.rpartition(".")[0])
            parent[int(name.rpartition(".")[2])] = nn.Identity()
    x.requires_grad_()
    made = net(x)
    made[0, :, made.shape[2] // 2, made.shape[3] // 2].sum().backward()
    seen = (x.grad.abs().sum((0, 1)) > 0).nonzero()
    return tuple((seen.max(0).values - seen.min(0).values + 1).tolist())
