"""How convolutions on a GPU round."""

import torch


def round_on_gpu(*, coarsely: bool = False) -> None:
    """Lets cuDNN compute this process' convolutions alike in every run, and as exactly as asked.

    By default PyTorch has it round the factors of float32 products to 10 bits (TF32), by which
    features differ from a CPU's, and with the number of images computed together, by up to a
    hundredth of the largest; and it may add up gradients in any order.

    Args:
        coarsely: whether factors are rounded to 10 bits, which is faster.
    """
    torch.backends.cudnn.allow_tf32 = coarsely
    torch.backends.cudnn.deterministic = True
