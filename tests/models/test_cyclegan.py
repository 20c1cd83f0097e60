"""CycleGAN: its loss terms, its image pools, what it refuses, and how translations in both directions are evaluated."""

import pytest
import torch
from PIL import Image

from genbench.core.batch import Batch, DataSpec
from genbench.core.capabilities import Samples, Translates
from genbench.core.errors import UserError
from genbench.core.optim import LinearDecay
from genbench.data import Shapes, UnpairedFolder
from genbench.evaluation import protocol
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.galleries import Gallery
from genbench.models import CycleGAN
from tests.helpers.small import SGD, Turns, run

DOMAINS = DataSpec((3, 16, 16), "domain", source=(3, 16, 16))


def cyclegan(spec=DOMAINS, **more):
    return CycleGAN(spec, **{"width": 2, "blocks": 1, "discriminator_width": 4, "patch_layers": 1} | more)


def test_loss_terms_are_those_of_the_paper():
    torch.manual_seed(0)
    model = cyclegan(pool=0)
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    model.turn, model.draw = (turns := Turns()), lambda kind, *shape: kind(*shape)
    model.training_step(Batch(b, source=a), 0)
    made_b, made_a = model.G_AB(a), model.G_BA(b)

    def l1(x, y):
        return (x - y).abs().mean().item()

    terms = {name: term.item() for name, term in turns.terms["generator"].items()}
    made = ((model.D_B, made_b), (model.D_A, made_a))
    expected = sum((1 - D(x)).square().mean().item() for D, x in made)
    assert terms["adversarial"] == pytest.approx(expected, rel=1e-4)  # section 4, "E(D(G(x)) - 1)²"
    assert terms["cycle"] == pytest.approx(10 * (l1(model.G_BA(made_b), a) + l1(model.G_AB(made_a), b)), rel=1e-4)
    assert terms["identity"] == pytest.approx(5 * (l1(model.G_AB(b), b) + l1(model.G_BA(a), a)), rel=1e-4)
    terms = {name: term.item() for name, term in turns.terms["discriminator"].items()}
    pairs = ((model.D_B, b, made_b), (model.D_A, a, made_a))
    assert terms["real"] == pytest.approx(sum((1 - D(x)).square().mean().item() / 2 for D, x, _ in pairs), rel=1e-4)
    assert terms["fake"] == pytest.approx(sum(D(x).square().mean().item() / 2 for D, _, x in pairs), rel=1e-4)


def test_a_discriminator_sees_past_images_of_its_own_domain():
    torch.manual_seed(0)
    model, seen = cyclegan(pool=1), {"b": [], "a": []}
    model.turn, model.draw = (turns := Turns()), lambda kind, *shape: kind(*shape)
    model.D_B.register_forward_pre_hook(lambda module, given: seen["b"].append(given[0].detach()))
    model.D_A.register_forward_pre_hook(lambda module, given: seen["a"].append(given[0].detach()))
    made = {"b": [], "a": []}
    for _ in range(12):
        a, b = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
        with torch.no_grad():
            made["b"].append(model.G_AB(a))
            made["a"].append(model.G_BA(b))
        model.training_step(Batch(b, source=a), 0)
    assert turns.terms
    for domain in "ab":
        shown = seen[domain][2::3]  # the inputs are: fake (generator's update), real, image of the pool
        ages = [next(k - j for j in range(k, -1, -1) if torch.allclose(shown[k], made[domain][j])) for k in range(12)]
        assert ages[0] == 0 and max(ages) > 0 and 0 in ages[1:]


def test_it_translates_in_both_directions_and_does_not_sample():
    model, x = cyclegan().eval(), torch.rand(1, 3, 16, 20)
    assert isinstance(model, Translates) and not isinstance(model, Samples)
    assert model.domains == ("A", "B") and model.stride == 4
    assert torch.equal(model.translate(x, to="A"), model.G_BA(x)) and torch.equal(model.translate(x), model.G_AB(x))


def test_the_learning_rate_is_constant_and_then_decays_linearly():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=2.0)
    schedule, rates = LinearDecay(optimizer, start=3, end=7), []
    for _ in range(9):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([2, 2, 2, 2, 1.5, 1, 0.5, 0, 0])
    decay = {"class_path": "genbench.core.optim.LinearDecay", "start": 2, "end": 1}
    with pytest.raises(UserError, match="start is 2 and end is 1; end must be larger than start"):
        run(cyclegan(optimizer=SGD, schedule=decay), 8)


def test_one_domain_and_sizes_that_do_not_halve_twice_are_rejected():
    with pytest.raises(UserError, match="CycleGAN needs images of two domains, but this data has one"):
        cyclegan(DataSpec((3, 16, 16)))
    with pytest.raises(
        UserError, match="CycleGAN needs images whose sides are multiples of 4, but the data has 18 .*size`.$"
    ):
        cyclegan(DataSpec((3, 18, 18), "domain", source=(3, 18, 18)))


def test_domains_of_different_channels_have_no_identity_loss():
    spec = DataSpec((3, 16, 16), "image", source=(1, 16, 16))
    with pytest.raises(UserError, match="needs equal channels, but the domains have 1 and 3. Set `--model.identity 0`"):
        cyclegan(spec)
    assert cyclegan(spec, identity=0).translate(torch.rand(1, 1, 16, 16)).shape == (1, 3, 16, 16)


class Copies(CycleGAN):
    """Returns its input, a little darker."""

    def translate(self, x, *, to="B"):
        return x - 0.1


def test_translations_in_both_directions_are_compared_with_known_targets():
    data = Shapes(size=32, target="domain", train_images=8, val_images=30, test_images=8)
    few, kept = protocol.load("quick").changed(real=20), Gallery()
    spec = data.spec
    found = evaluate(Copies(spec, width=2, blocks=1, patch_layers=1), data, few, pictures=kept).metrics
    rows = torch.randperm(30, generator=torch.Generator().manual_seed(0))[:20].sort().values
    a, b = (torch.cat([getattr(x, name) for x in data.val_dataloader()])[rows] for name in ("source", "image"))
    both = {"translation_mse": ((a - 0.1).clamp(-1, 1), b), "translation_a_mse": ((b - 0.1).clamp(-1, 1), a)}
    for name, (made, true) in both.items():
        assert found[name]["value"] == pytest.approx((made - true).square().mean().item(), rel=0.02)
    assert {"translation_fid-shapesnet", "translation_a_fid-shapesnet"} <= found.keys()
    # darker by 0.1 twice, except near black
    assert found["cycle_l1"]["value"] == pytest.approx(0.2, abs=0.03)
    assert kept.found["translations"].shape == kept.found["translations_a"].shape == (3 * 20, 3, 32, 32)


def test_data_of_a_different_size_is_resized_to_the_models_size():
    small = Shapes(size=16, target="domain", train_images=8, val_images=20, test_images=8)
    model = CycleGAN(DataSpec((3, 32, 32), "domain", source=(3, 32, 32)), width=2, blocks=1, patch_layers=1)
    found = evaluate(model, small, protocol.load("quick")).metrics
    assert found["translation_psnr"]["value"] > 0 and found["cycle_l1"]["value"] > 0


def test_domains_without_known_targets_are_compared_as_sets(tmp_path):
    for k in range(12):
        for domain, level in (("A", 40), ("B", 200)):
            path = tmp_path / f"test{domain}" / f"{k}.png"
            path.parent.mkdir(exist_ok=True)
            if domain == "A" or k < 9:
                Image.effect_noise((16, 16), 20 + k).point(lambda v, level=level: v // 2 + level // 2).save(path)
    for domain in "AB":
        (tmp_path / f"train{domain}").mkdir()
        for k in range(2):
            Image.new("L", (16, 16)).save(tmp_path / f"train{domain}" / f"{k}.png")
    data = UnpairedFolder(str(tmp_path), size=16, workers=0, memory="yes")
    kept = Gallery()
    few = protocol.load("fid10k-test").changed(extractor="digitsnet", metrics=("reconstruction",))
    found = evaluate(Copies(data.spec, width=2, blocks=1, patch_layers=1), data, few, pictures=kept).metrics
    assert set(found) == {"translation_fid-digitsnet", "translation_a_fid-digitsnet", "cycle_l1"}
    assert (found["translation_fid-digitsnet"]["n"], found["translation_a_fid-digitsnet"]["n"]) == (12, 9)
    assert found["translation_fid-digitsnet"]["value"] > 0
    assert found["cycle_l1"]["value"] == pytest.approx(0.2, abs=0.02)
    assert kept.found["translations"].shape == (36, 3, 16, 16) and kept.found["translations_a"].shape == (27, 3, 16, 16)
