"""Interaction-and-Aggregation Network (Hou et al., CVPR 2019) for person re-identification.

`ianet.load(source)` returns a model, see `ianet.model.load`. The modules:

- `model`, `model_description`: a model's folder, and the features that a model gives for pictures.
- `pictures`: pictures of one's own, from files, folders, archives, lists and arrays.
- `feature_table`, `feature_files`: features of pictures and how they were made, also in files.
- `verification`, `open_set`, `calibration`: same person or not, at a known error rate.
- `attention`: where IA blocks gather features from, as maps of people.
- `export`: a model as one file for other runtimes.
- `cli`: the command `ianet`.

- `options`: the options that distinguish one network from another, without torch.
- `network`, `backbones`: a backbone with blocks after chosen stages, its files and its weights.
- `description`: what the user of a trained network needs to know.
- `blocks`: the IA block and the blocks that the paper compares it with, one file each.
- `relations`: Eq. 1-5 and 7 of the paper as pure functions.
- `residual`: the BatchNorm at the end of a residual block.
- `training`: the recipe, the batches, a step and the loop over the epochs.
- `losses`: the loss that torch lacks.
- `datasets`: one file for each data set or layout, which lists its images.
- `decoding`: pictures as a viewer shows them.
- `packing`, `images`: the images of a data set as one array, and its use as inputs of a network.
- `reading`: packed images in their file, in memory or on a GPU.
- `features`: features of images.
- `retrieval`, `single_shot`, `reranking`: scores of features.
- `comparison`: the uncertainty of the difference between two networks.
- `diagnostics`: what the inserted blocks do in images, as numbers.
- `receptive`, `drawing`: what an IA block computes in images, and pictures of results.
- `cost`: parameters and multiply-adds.
- `files`: files and folders that appear whole or not at all.
- `escapes`: texts of others in files that would take signs for commands.
- `numerics`: what processors compute slowly or wrongly.
- `synthetic`: synthetic people, drawn in the layout of Market-1501.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ianet.model import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Return `load`, and import torch not before it is needed."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ianet.model import load

    return load
