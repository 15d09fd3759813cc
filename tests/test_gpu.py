"""What differs on a GPU, against the plain form or a CPU. Skipped where there is none: `pytest
tests/test_gpu.py` on a machine that has one needs torch, numpy, pandas, scipy and safetensors only.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import STRONG
from test_relations import GOLDEN, PRECISIONS, compute
from torch import Tensor, distributed, multiprocessing, nn

from ianet import blocks, reading
from ianet.blocks.ia import ChannelIA
from ianet.features import extract
from ianet.network import Network
from ianet.options import NetworkOptions
from ianet.reading import PackedImages
from ianet.reranking import KReciprocal
from ianet.retrieval import per_query
from ianet.training.divergence import DivergenceError
from ianet.training.fit import Epoch, fit
from ianet.training.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
RECIPE = Recipe(height=64, width=32, epochs=2, batch=16, lr=1e-4, weight_decay=5e-4)
IMAGES = 100  # two batches of 15 and five of 14 an epoch: both sizes are recorded and replayed
IA = {"stage2": {"sigma": (10, 20)}, "stage3": {"sigma": (5, 10)}}


@pytest.fixture(autouse=True)
def same_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def network(**options: Any) -> Network:
    torch.manual_seed(5)
    return Network(10, NetworkOptions(backbone="resnet18", **{"after": IA, **options}))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(IMAGES) % 10
    pixels = torch.randint(64, (IMAGES, 64, 32, 3), dtype=torch.uint8, generator=generator)
    pixels[..., 0] += (labels * 15).to(torch.uint8)[:, None, None]  # something to learn
    return pixels, labels


def trained(trains: nn.Module, device: torch.device = GPU, **changes: Any) -> list[Epoch]:
    recipe = Recipe(**{**RECIPE.__dict__, **changes})
    return list(fit(trains, *data(), recipe, seed=1, device=device))


def parameters(of: nn.Module) -> Tensor:
    return torch.cat([each.detach().double().flatten().cpu() for each in of.parameters()])


def weights(trains: nn.Module) -> Tensor:
    return torch.cat([value.double().flatten().cpu() for value in trains.state_dict().values()])


@pytest.mark.parametrize("added", [{}, STRONG], ids=["paper", "strong"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graphs_are_the_plain_steps(precision: str, added: dict[str, Any]) -> None:
    graphs, plain = network(), network()
    changes = {"precision": precision, **added}
    epochs = trained(graphs, **changes)
    expected = trained(plain, cuda_graph=False, **changes)
    for one, other in zip(epochs, expected, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-3)
        assert one.triplet == pytest.approx(other.triplet, rel=1e-3)
        assert one.accuracy == pytest.approx(other.accuracy, abs=0.03)
    before, one, other = (parameters(each) for each in (network(), graphs, plain))
    assert (one - other).norm() < 0.05 * (other - before).norm()


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # the compiler's own
def test_compiled_blocks_train_as_they_do_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = []
    compile_module = nn.Module.compile

    def record(module: nn.Module, **options: Any) -> None:
        modules.append(module)
        compile_module(module, **options)

    monkeypatch.setattr(nn.Module, "compile", record)
    compiled, plain = network(), network()
    for each in (compiled, plain):
        for module in each.blocks.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)  # or a block is the identity
    epochs = trained(compiled, precision="bfloat16", compile="always")
    expected = trained(plain, precision="bfloat16", compile="never")
    assert modules == [block for each in compiled.blocks.children() for block in each.children()]
    for one, other in zip(epochs, expected, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=0.01)
    plain.load_state_dict(compiled.state_dict())
    with torch.compiler.set_stance("force_eager"):
        features = [extract(each, data()[0], device=GPU) for each in (compiled, plain)]
    assert torch.equal(*features)


@pytest.mark.parametrize("size", [(16, 8), (8, 4)])
def test_channel_relations_by_attention(size: tuple[int, int]) -> None:
    block = ChannelIA(64).to(GPU)
    torch.manual_seed(0)
    features = 0.1 * torch.randn(2, 64, *size, device=GPU)  # whose relations are not one-hot
    features = features.to(torch.bfloat16, memory_format=torch.channels_last).requires_grad_()
    plain = features.detach().float().requires_grad_()
    with torch.autocast("cuda", torch.bfloat16):
        aggregate = block.aggregate(features)
    expected = block.aggregate(plain)
    assert aggregate.dtype == torch.bfloat16
    assert block.relation(plain).amax() < 0.9
    for each in (aggregate, expected):
        each.float().square().sum().backward()
    for one, other in ((aggregate, expected), (features.grad, plain.grad)):
        assert (one.float() - other).norm() < 0.02 * other.norm()


def test_training_is_a_cpus() -> None:
    here, there = network(), network()
    for one, other in zip(trained(here), trained(there, CPU), strict=True):
        assert one.loss == pytest.approx(other.loss, rel=0.01)


def test_mixed_precision_learns_as_float32_does() -> None:
    trainings = {
        precision: trained(network(), precision=precision) for precision in ("float32", "auto")
    }
    assert [epochs[-1].bits for epochs in trainings.values()] == [32, 16]
    assert trainings["auto"][-1].loss == pytest.approx(trainings["float32"][-1].loss, rel=0.03)


def test_scoring_between_epochs_changes_nothing() -> None:
    """Graphs read the weights where they were recorded, in whatever mode the network was since."""
    plain, scored = network(), network()
    trained(plain)
    for _ in fit(scored, *data(), RECIPE, seed=1, device=GPU):
        extract(scored, data()[0], device=GPU)
    torch.testing.assert_close(weights(scored), weights(plain), rtol=1e-4, atol=1e-5)


def test_going_on_from_a_checkpoint(tmp_path: Path) -> None:
    reference, resumed = network(), network()
    last = trained(reference)[-1]
    first = next(fit(network(), *data(), RECIPE, seed=1, device=GPU))
    torch.save(first.state, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True)
    rest = list(fit(resumed, *data(), RECIPE, seed=1, device=GPU, state=state))
    assert [epoch.epoch for epoch in rest] == [2]
    assert rest[-1].loss == pytest.approx(last.loss, rel=1e-3)
    before, one, other = (parameters(each) for each in (network(), resumed, reference))
    assert (one - other).norm() < 0.05 * (other - before).norm()


def test_images_that_the_gpu_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = network(), network()
    expected = trained(there)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    assert trained(here)[-1].loss == pytest.approx(expected[-1].loss, rel=1e-4)
    torch.testing.assert_close(weights(here), weights(there), rtol=1e-4, atol=1e-5)


def test_images_of_a_file_move_to_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several pieces, or to be read by the batch where the GPU has no room."""
    pixels, labels = data()
    np.save(tmp_path / "images.npy", pixels.numpy())
    file = PackedImages(tmp_path / "images.npy")
    monkeypatch.setattr(reading, "MOVED", 30)
    placed = reading.place_images(file, GPU, 1)
    assert isinstance(placed, Tensor)
    assert placed.device.type == "cuda"
    assert torch.equal(placed.cpu(), pixels)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    monkeypatch.setattr(reading, "free_memory", lambda: 0)
    there, here = network(), network()
    expected = trained(there)
    epochs = list(fit(here, file, labels, RECIPE, seed=1, device=GPU))
    assert epochs[-1].loss == pytest.approx(expected[-1].loss, rel=1e-4)


def test_a_loss_that_is_not_finite() -> None:
    with pytest.raises(DivergenceError, match=r"epoch 1, step 2, at a learning rate of 1e\+20: "):
        trained(network(), lr=1e20)


def share(rank: int, workers: int, folder: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=workers
    )
    shared = network()
    losses = [epoch.loss for epoch in trained(shared, batch_norm="synchronised")]
    if rank == 0:
        torch.save({"losses": losses}, folder / "shared.pt")
    distributed.destroy_process_group()


def test_synchronised_batch_norm_of_two_workers_is_that_of_one(tmp_path: Path) -> None:
    """Both on one GPU, hence by gloo."""
    multiprocessing.spawn(share, args=(2, tmp_path), nprocs=2)
    alone = [epoch.loss for epoch in trained(network())]
    losses = torch.load(tmp_path / "shared.pt", weights_only=True)["losses"]
    assert losses == pytest.approx(alone, rel=0.01)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("key", [key for key in GOLDEN.files if not key.endswith("features")])
def test_golden(key: str, dtype: torch.dtype, tolerance: float) -> None:
    features = torch.tensor(GOLDEN[f"{key.split('/')[0]}/features"], dtype=dtype, device=GPU)[None]
    computed = compute(key, features).double().cpu().numpy()
    np.testing.assert_allclose(computed, GOLDEN[key], rtol=0, atol=tolerance)


@pytest.mark.parametrize("file", [module.name for module in pkgutil.iter_modules(blocks.__path__)])
def test_blocks_and_their_gradients_are_a_cpus(file: str) -> None:
    torch.manual_seed(0)
    block = importlib.import_module(f"ianet.blocks.{file}").Block(32).double()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    features = torch.randn(3, 32, 16, 8, dtype=torch.float64)
    results = []
    for device in (CPU, GPU):
        inputs = features.to(device, memory_format=torch.channels_last).detach().requires_grad_()
        computed = block.to(device)(inputs)
        computed.square().sum().backward()
        assert inputs.grad is not None
        results.append((computed.detach().cpu(), inputs.grad.cpu()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-8, atol=1e-8)


def test_features_are_a_cpus() -> None:
    with torch.no_grad():
        model = network()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1)
        images, _ = data()
        here, there = (extract(model, images, device=device).cpu() for device in (CPU, GPU))
    torch.testing.assert_close(there, here, rtol=0.02, atol=0.02 * float(here.abs().max()))


@pytest.mark.parametrize("reranking", [None, KReciprocal(k1=6, k2=3)])
@pytest.mark.parametrize("tied", [False, True])
def test_scores_are_a_cpus(tied: bool, reranking: KReciprocal | None) -> None:
    """Tied features are +-1 in 16 dimensions: distances are exact, and often equal."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(number, 16, generator=generator) for number in (60, 500)]
    if tied and reranking is None:  # which of equally near neighbours are k: by the device
        features = [each.sign() for each in features]
    labels = [
        torch.randint(high, (number,), generator=generator)
        for high in (40, 5)
        for number in (60, 500)
    ]
    if reranking:  # in float64: which of two neighbours is nearer must not be by rounding
        features = [each.double() for each in features]
    here, there = (
        per_query(*(each.to(device) for each in [*features, *labels]), reranking=reranking)
        for device in (CPU, GPU)
    )
    assert here.index.equals(there.index)
    np.testing.assert_allclose(there, here, rtol=1e-6)


class Waits(nn.Module):
    """A network that asks the device for a number in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = images.mean((2, 3))
        assert embeddings.sum().item() is not None
        return self.classifier(embeddings), embeddings


def test_a_block_that_waits_for_the_device() -> None:
    assert len(trained(Waits().to(GPU), cuda_graph=False)) == 2
    with pytest.raises(ValueError, match=r"no CUDA graph can be made .* set cuda_graph: f"):
        trained(Waits())
