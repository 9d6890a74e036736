"""Build a model on the device `meta`, where tensors have no values, without torch's compiler."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode


class quick_meta_init(TorchFunctionMode):
    """Within the block, tensors on `meta` are not initialized, and ranges are made on the CPU first.

    The usual way imports modules of torch's compiler, and sympy with them, which takes a second. Rotary models still
    compute with ranges on `meta`, and import them.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.arange and str(kwargs.get("device")) == "meta":
            return func(*args, **kwargs | {"device": "cpu"}).to("meta")
        first = args[0] if args else kwargs.get("tensor")
        if isinstance(first, torch.Tensor) and first.is_meta:
            if getattr(func, "__module__", "") == init.__name__:
                return first
            if func is torch.empty_like and kwargs.keys() == {"device"}:
                return torch.empty(first.shape, dtype=first.dtype, **kwargs)
        return func(*args, **kwargs)
