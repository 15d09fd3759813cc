"""Interaction-and-Aggregation Network (Hou et al., CVPR 2019) for person re-identification.

- `options`: the options that distinguish one network from another, without torch.
- `network`, `backbones`: a backbone with blocks after chosen stages, its files and its weights.
- `blocks`: the IA block and the blocks that the paper compares it with, one file each.
- `relations`: Eq. 1-5 and 7 of the paper as pure functions.
- `training`: the recipe, the batches, a step and the loop over the epochs.
- `losses`: the loss that torch lacks.
- `datasets`: one file for each data set or layout, which lists its images.
- `packing`, `images`: the images of a data set as one array, and its use as inputs of a network.
- `features`: features of packed images.
- `retrieval`, `single_shot`, `reranking`: scores of features.
- `comparison`: the uncertainty of the difference between two networks.
- `receptive`, `drawing`: what an IA block computes in images, and pictures of results.
- `cost`: parameters and multiply-adds.
- `synthetic`: synthetic people, drawn in the layout of Market-1501.
"""
