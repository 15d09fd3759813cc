"""Packed images from their file: the same as from memory, ahead of need, without their copy."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small import RECIPE, STRONG, Small, recipe, small, weights

from ianet import images, reading
from ianet.features import Precision, extract, extract_batches
from ianet.reading import AHEAD, PackedImages, free_memory, place_images, read
from ianet.training.fit import fit

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
ARRAY: NDArray[np.uint8] = np.random.default_rng(0).integers(
    256, size=(30, 16, 8, 3), dtype=np.uint8
)
MASK = np.arange(30) % 3 > 0  # 20 images
LABELS = torch.arange(20) % 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", ARRAY)
    return tmp_path / "images.npy"


def test_rows_of_a_file_are_those_of_the_array(path: Path) -> None:
    file, part = PackedImages(path), PackedImages(path, MASK)
    assert (len(file), file.shape, file.nbytes) == (30, (30, 16, 8, 3), ARRAY.nbytes)
    assert (len(part), part.shape, part.nbytes) == (20, (20, 16, 8, 3), ARRAY.nbytes * 2 // 3)
    rows = np.array([7, 0, 19, 7])
    assert np.array_equal(file[rows].numpy(), ARRAY[rows])
    assert np.array_equal(part[rows].numpy(), ARRAY[MASK][rows])
    assert np.array_equal(part[3:9].numpy(), ARRAY[MASK][3:9])
    assert np.array_equal(images.load(path).numpy(), ARRAY)
    assert np.array_equal(images.load(path, MASK).numpy(), ARRAY[MASK])


def test_a_batch_is_a_copy(path: Path) -> None:
    file = PackedImages(path)
    for rows in (np.array([1, 2]), slice(1, 3)):
        file[rows].zero_()
        assert np.array_equal(file[rows].numpy(), ARRAY[1:3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged: pack the images again"),
        (b"no array", "is damaged: pack the images again"),
        (
            ARRAY[:, :, :, 0],
            r"holds uint8 of shape \(30, 16, 8\): packed images are uint8 of shape",
        ),
        (ARRAY / 255, r"holds float64 of shape \(30, 16, 8, 3\): packed images are uint8"),
        (ARRAY[:20], "holds 20 images, not 30: pack the images again"),
    ],
)
def test_a_file_without_packed_images_is_named(
    content: bytes | NDArray[Any], message: str, path: Path
) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} {message}") as info:
        PackedImages(path, MASK)
    assert "\n" not in str(info.value)


def test_a_file_that_was_cut_off_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"is damaged: pack the images again \(mmap length"):
        PackedImages(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"images\.npy"):
        PackedImages(path)


@pytest.mark.parametrize("batches", [1, AHEAD, AHEAD + 1, 20])
def test_batches_come_in_their_order(batches: int, path: Path) -> None:
    generator = np.random.default_rng(1)
    order = [generator.integers(20, size=4) for _ in range(batches)]
    memory = read(images.load(path, MASK), order)
    for rows, one, other in zip(order, read(PackedImages(path, MASK), order), memory, strict=True):
        assert np.array_equal(one.numpy(), ARRAY[MASK][rows])
        assert torch.equal(one, other)


class Recorder(PackedImages):
    """Notes which thread reads which batch, and fails at a row below 0."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads: list[int] = []
        self.threads: set[int] = set()

    def __getitem__(self, rows: Any) -> torch.Tensor:
        self.threads.add(threading.get_ident())
        if rows[0] < 0:
            raise OSError("the disk is gone")
        self.reads.append(int(rows[0]))
        return super().__getitem__(rows)


def test_a_thread_reads_ahead_and_no_further_than_it_may(path: Path) -> None:
    file = Recorder(path)
    for number, pixels in enumerate(read(file, [np.array([row]) for row in range(30)])):
        assert np.array_equal(pixels[0].numpy(), ARRAY[number])
        assert file.reads == list(range(len(file.reads)))
        assert len(file.reads) <= number + 1 + AHEAD
    assert file.reads == list(range(30))
    assert len(file.threads) == 1
    assert threading.get_ident() not in file.threads


def test_an_error_of_the_disk_reaches_the_reader(path: Path) -> None:
    batches = read(Recorder(path), [np.array([row]) for row in (0, -1, 2)])
    assert np.array_equal(next(batches)[0].numpy(), ARRAY[0])
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_a_reader_that_stops_leaves_no_thread(path: Path) -> None:
    before = threading.active_count()
    batches = read(PackedImages(path), [np.array([row]) for row in range(30)])
    next(batches)
    assert threading.active_count() == before + 1
    assert isinstance(batches, Iterator)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize(("workers", "in_memory"), [(1, True), (2, True), (3, False)])
def test_images_are_in_memory_where_workers_leave_three_quarters_free(
    workers: int, in_memory: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = PackedImages(path, MASK)
    monkeypatch.setattr(reading, "free_memory", lambda: 8 * file.nbytes)
    placed = place_images(file, CPU, workers)
    assert (placed is file) is not in_memory
    if in_memory:
        assert isinstance(placed, torch.Tensor)
        assert np.array_equal(placed.numpy(), ARRAY[MASK])
    tensor = images.load(path)
    assert place_images(tensor, CPU, workers) is tensor


def test_free_memory_of_the_machine_and_of_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = 1024 * int(re.findall(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())[0])
    assert 0 < free_memory() < total
    meminfo, cgroup, groups = tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "groups"
    meminfo.write_text("MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:   8000 kB\n")
    cgroup.write_text("4:memory:/x\n0::/pod/container\n")
    for name, path in {"MEMINFO": meminfo, "CGROUP": cgroup, "CGROUPS": groups}.items():
        monkeypatch.setattr(reading, name, path)
    assert free_memory() == 8_192_000

    def limit(group: str, most: str) -> None:
        (groups / group).mkdir(parents=True, exist_ok=True)
        (groups / group / "memory.max").write_text(f"{most}\n")
        (groups / group / "memory.current").write_text("3000000\n")
        (groups / group / "memory.stat").write_text("file 900000\ninactive_file 700000\n")

    limit("pod/container", "max")
    assert free_memory() == 8_192_000
    limit("pod", "5000000")
    assert free_memory() == 2_700_000
    limit("pod/container", "4000000")
    assert free_memory() == 1_700_000


@pytest.mark.parametrize("added", [{}, STRONG], ids=["paper", "strong"])
def test_a_training_from_the_file_ends_with_the_weights_of_one_from_memory(
    added: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for free, source in (
        (0, PackedImages(path, MASK)),
        (2**40, PackedImages(path, MASK)),
        (0, torch.from_numpy(ARRAY[MASK])),
    ):
        monkeypatch.setattr(reading, "free_memory", lambda free=free: free)
        network = small()
        reports = list(fit(network, source, LABELS, recipe(**added), seed=1, device=CPU))
        results.append((weights(network), [report.loss for report in reports]))
    for state, losses in results[1:]:
        assert torch.equal(state, results[0][0])
        assert losses == results[0][1]


def test_the_workers_of_a_node_share_its_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variable that torchrun and Ray Train set."""
    monkeypatch.setattr(reading, "free_memory", lambda: 8 * ARRAY.nbytes)
    for workers, copies in ((2, 1), (3, 0)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(workers))
        file = CopyCounter(path)
        next(fit(small(), file, torch.arange(30) % 5, RECIPE, seed=1, device=CPU))
        assert file.copies == copies


class CopyCounter(PackedImages):
    copies = 0

    def __getitem__(self, rows: Any) -> torch.Tensor:
        self.copies += rows == slice(None) if isinstance(rows, slice) else 0
        return super().__getitem__(rows)


class Means(Small):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return pixels.mean((2, 3))


@pytest.mark.parametrize("batch", [7, 20, 128])
def test_features_of_a_file_are_those_of_the_array(batch: int, path: Path) -> None:
    expected = images.normalize(torch.from_numpy(ARRAY[MASK])).mean((2, 3))
    for source in (PackedImages(path, MASK), images.load(path, MASK)):
        assert torch.equal(extract(Means(), source, device=CPU, batch=batch), expected)


def test_features_of_narrow_images_are_not_computed_in_bfloat16_on_a_cpu() -> None:
    def extract_width(width: int, precision: Precision) -> torch.Tensor:
        pixels = torch.full((2, 16, width, 3), 255, dtype=torch.uint8)
        [features] = extract_batches(Means(), [pixels], device=CPU, precision=precision)
        return features

    white = (1 - torch.tensor(images.MEAN)) / torch.tensor(images.DEVIATION)
    assert torch.allclose(extract_width(16, "float32"), white.expand(2, 3))
    assert torch.allclose(extract_width(17, "bfloat16"), white.expand(2, 3))
    message = "precision is 'bfloat16', in which a CPU cannot compute images 16 pixels wide: take"
    with pytest.raises(ValueError, match=message):
        extract_width(16, "bfloat16")


def test_no_images_have_no_features() -> None:
    nothing = torch.zeros(0, 16, 8, 3, dtype=torch.uint8)
    assert extract(Means(), nothing, device=CPU).shape == (0, 3)


MEMORY = """
import re, sys
from pathlib import Path
from ianet.reading import PackedImages, read

def anonymous():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"RssAnon:\\s+(\\d+)", status)[0])

packed = PackedImages(Path(sys.argv[1]))
before = most = anonymous()
for _ in read(packed, [slice(row, row + 64) for row in range(0, len(packed), 64)]):
    most = max(most, anonymous())
loaded = anonymous()
memory = packed[:]
print(most - before, anonymous() - loaded)
"""
"""Prints the bytes beside pages of files that batches take, and that all images at once take."""


@pytest.mark.slow
def test_images_that_are_read_take_no_memory_of_their_own(tmp_path: Path) -> None:
    """In a process of its own, as earlier tests leave memory that is taken first."""
    path, size = tmp_path / "large.npy", 2**28
    shape = (size // (64 * 32 * 3), 64, 32, 3)
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)  # without content
    command = [sys.executable, "-c", MEMORY, str(path)]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    batches, all_at_once = map(int, output.split())
    assert batches < size / 8
    assert all_at_once > 0.9 * size
