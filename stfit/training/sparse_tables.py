"""Gradients of a table of token embeddings that hold only the rows of the batch's tokens.

A batch has some thousand tokens, a multilingual table 250,000 rows: to fill a gradient of all rows with zeros, and to
pass over all rows and their moments, takes as long as the layers. `adamw.py` knows such gradients.
"""

from torch import Tensor, nn

from stfit.distributed import world_size
from stfit.encoder.encoder import Encoder


def use_sparse_gradients(encoder: Encoder) -> None:
    """On a CPU and in one process; elsewhere gradients stay dense, which collective operations and kernels expect."""
    if encoder.device.type != "cpu" or world_size() > 1:
        return
    find_table = getattr(encoder.backbone, "get_input_embeddings", lambda: encoder.backbone)
    table = find_table()
    if isinstance(table, nn.Embedding | nn.EmbeddingBag) and table.weight.requires_grad:
        table.sparse = True
        table.weight.register_post_accumulate_grad_hook(_merge_rows)


def _merge_rows(weight: Tensor) -> None:
    """Add up the rows of one token, so that a gradient of many mini-batches is no larger than the table."""
    if weight.grad is not None and weight.grad.is_sparse:
        weight.grad = weight.grad.coalesce()


def values_of(gradient: Tensor) -> Tensor:
    """The numbers of a gradient that are not zero for lack of a token."""
    return gradient.values() if gradient.is_sparse else gradient
