"""Token sequences -> one embedding each: the base (transformer or table), token layers, pooling, layers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from hashlib import sha256
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stfit import similarity
from stfit.encoder.backbone import Backbone
from stfit.encoder.folder.model_config import ModelConfig
from stfit.encoder.inputs import list_of_texts, require_type, require_unicode
from stfit.encoder.kernels.dropout import DROPOUT_SETTING, use_fast_dropout
from stfit.encoder.kernels.fused_infer import build_fused, fused_supports
from stfit.encoder.kernels.packing import Forward, Layout
from stfit.encoder.pooling import TokenStates, compute_pooled, without_prompts
from stfit.encoder.prompts import prompt_name, with_built_in
from stfit.errors import ModelError, RecipeError, did_you_mean
from stfit.progress import task

BATCH_TOKENS = {"cpu": 1024}
"""Device type -> tokens that `encode` sends through the model at once. On a CPU their widest activations fit into the
cache, and a call still takes long enough for its overhead not to matter."""
BATCH_TOKENS_ELSEWHERE = 16_384


class Encoder(nn.Module):
    """A sentence-embedding model. Its weights are named `backbone.*`, `token_layers.<i>.*` and `layers.<i>.*`."""

    def __init__(self, base: Backbone, config: ModelConfig, token_layers: nn.ModuleList, layout: Layout) -> None:
        super().__init__()
        self.precision = "float32"
        """Data type of the matrix products in training: bfloat16 and float16 run them under autocast."""
        self.fused = False
        """Whether `encode` may use the fused forward, which gives the same token embeddings."""
        self.threads: int | None = None
        """Cores that `encode` uses, at most; None: as many as torch."""
        self._load_again: tuple[Callable[..., Encoder], tuple[Any, ...]] | None = None
        self._loaded_state: tuple[Any, ...] = ()
        self.base = base
        self.backbone = base.module
        self.tokenizer = base.tokenizer
        self.config = config
        self.layout = layout
        self.token_layers = token_layers
        self.pooled_dim = dim = config.pooled_dim(base.dim)
        self.layers = nn.ModuleList()
        for layer in config.layers:
            self.layers.append(layer.build(dim))
            dim = layer.dim_after(dim)
        self.embedding_dim = dim
        self.to(device=self.device, dtype=self._weight.dtype)

    def pickle_as(self, load: Callable[..., Encoder], arguments: tuple[Any, ...]) -> None:
        """Pickle this encoder as a call of `load`; it has no other form outside of its process."""
        self._load_again, self._loaded_state = (load, arguments), self._state()

    def _state(self) -> tuple[Any, ...]:
        return self.device, self.threads, [weight._version for weight in self.state_dict(keep_vars=True).values()]

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._load_again and self._state() == self._loaded_state:
            return self._load_again
        raise TypeError("this model is not that of a folder, or no longer: another process gets it by its folder alone")

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        copied = type(self).__new__(type(self))  # not by pickling, which may give the encoder that others use
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied

    @property
    def fingerprint(self) -> str:
        config = f"Traits{str(self.config).removeprefix('ModelConfig')}"  # its class name in the first fingerprints
        digest = sha256(json.dumps([self.tokenizer.fingerprint, config]).encode())
        for name, weight in self.state_dict().items():
            if ".pooler." in name:  # unused, and random at each start if the folder has none
                continue
            digest.update(weight.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def output_dim(self) -> int:
        return min(self.config.truncate_dim or self.embedding_dim, self.embedding_dim)

    @property
    def has_dropout(self) -> bool:
        """Whether training mode is random, so that one text can have two embeddings."""
        config = getattr(self.backbone, "config", None)  # a table has no config
        settings = vars(config).items() if config else ()
        rates = [value for name, value in settings if DROPOUT_SETTING.search(name)]
        rates += [module.dropout for module in self.token_layers.modules() if isinstance(module, nn.LSTM)]
        rates += [1.0 for layer in self.layers if isinstance(layer, nn.Dropout)]
        return any(isinstance(rate, float) and rate > 0 for rate in rates)

    def use_fast_dropout(self) -> None:
        use_fast_dropout(self.backbone)

    @property
    def device(self) -> torch.device:
        return self._weight.device

    @property
    def _weight(self) -> Tensor:
        return next(chain(self.backbone.parameters(), self.backbone.buffers()))

    def forward(self, sequences: list[np.ndarray], prompt_lengths: np.ndarray | None = None) -> Tensor:
        """Embeddings [sequences, embedding_dim]; pooling skips the first `prompt_lengths` tokens of each."""
        return self._embed(self.layout.forward, self.precision, sequences, prompt_lengths)

    def _embed(
        self, forward: Forward, precision: str, sequences: list[np.ndarray], prompt_lengths: np.ndarray | None
    ) -> Tensor:
        filled = [row for row, sequence in enumerate(sequences) if len(sequence)]
        skips = None if prompt_lengths is None else prompt_lengths[filled]
        embedding_rd = self._pool(forward, precision, [sequences[row] for row in filled], skips)
        if len(filled) < len(sequences):  # as in sentence-transformers, no tokens give the zero embedding
            rows = torch.tensor(filled, dtype=torch.int64, device=embedding_rd.device)
            embedding_rd = embedding_rd.new_zeros(len(sequences), self.pooled_dim).index_copy(0, rows, embedding_rd)
        for layer in self.layers:
            embedding_rd = layer(embedding_rd)
        return embedding_rd

    def _pool(
        self, forward: Forward, precision: str, sequences: list[np.ndarray], prompt_lengths: np.ndarray | None
    ) -> Tensor:
        """Embeddings [len(sequences), pooled_dim] before the layers; no sequence is empty."""
        if not sequences:  # a loss of such embeddings alone can still call backward
            return self._weight.new_zeros(0, self.pooled_dim, requires_grad=torch.is_grad_enabled())
        with torch.autocast(self.device.type, getattr(torch, precision), enabled=precision != "float32"):
            states_td, order = forward(self.backbone, sequences)
            tokens = TokenStates.from_sequences(states_td, [sequences[i] for i in order])
            for token_layer in self.token_layers:
                tokens = token_layer(tokens)
        if prompt_lengths is not None:
            tokens = without_prompts(tokens, torch.as_tensor(prompt_lengths[order], device=states_td.device))
        pooled_rd = compute_pooled(self.config.pooling, tokens) if self.config.pooling else states_td
        input_order = np.empty_like(order)
        input_order[order] = np.arange(len(order))
        return pooled_rd[torch.from_numpy(input_order).to(pooled_rd.device)]

    def resolve_dim(self, truncate_dim: int | None) -> int:
        """Size of the embeddings to return. Raises RecipeError if they have fewer dimensions."""
        if truncate_dim is None:
            return self.output_dim
        if not 0 < truncate_dim <= self.embedding_dim:
            raise RecipeError(
                f"truncate_dim {truncate_dim}: the model's embeddings have {self.embedding_dim} dimensions"
            )
        return truncate_dim

    def prompt(self, name: str | None) -> str:
        """The text of a prompt, by default of the model's default prompt. Raises ModelError for an unknown name."""
        name = self.config.default_prompt if name is None else name
        if name is None:
            return ""
        prompts = with_built_in(self.config.prompts)
        if name not in prompts:
            raise ModelError(f"the model has no prompt `{name}`: {did_you_mean(name, sorted(prompts))}")
        return prompts[name]

    def role_prompt(self, role: str, chosen: dict[str, str] | None) -> str:
        return self.prompt(prompt_name(role, chosen, self.config.default_prompt))

    def prompt_skip(self, prompt: str) -> int:
        """Number of tokens of this prompt that pooling skips: 0 if prompts are pooled."""
        return 0 if self.config.include_prompt else self.tokenizer.prompt_length(prompt)

    def encode(
        self,
        texts: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize: bool = False,
        truncate_dim: int | None = None,
    ) -> np.ndarray:
        """Embeddings of `texts`, float32 [len(texts), dim], in evaluation mode; of one string, [dim].

        `texts` may also be an array, a pandas Series or a column of a dataset. Equal texts are embedded once.
        `prompt_name` is one of the model's prompts, `prompt` any other text to put before each of `texts`; by default
        the model's default prompt is used. `truncate_dim` keeps a prefix (default: the model's own) before `normalize`
        scales to length 1. Raises TypeError for anything but strings, and DataError for half of a surrogate pair.
        """
        require_type("prompt_name", prompt_name, str | None)
        require_type("prompt", prompt, str | None)
        require_type("normalize", normalize, bool)
        require_type("truncate_dim", truncate_dim, int | None)
        if isinstance(texts, str):
            return self.encode([texts], prompt_name, prompt, normalize, truncate_dim)[0]
        texts = list_of_texts(texts)
        prompt = self.prompt(prompt_name) if prompt is None else prompt
        require_unicode(prompt, "the prompt")
        row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        sequences = self.tokenizer([prompt + text for text in row_of])
        embeddings = self.embed(sequences, self.prompt_skip(prompt), normalize=normalize, truncate_dim=truncate_dim)
        return embeddings if len(row_of) == len(texts) else embeddings[[row_of[text] for text in texts]]

    @torch.inference_mode()
    def embed(
        self,
        sequences: list[np.ndarray],
        skip: int = 0,
        *,
        normalize: bool = False,
        truncate_dim: int | None = None,
        batch_tokens: int | None = None,
        fast: bool = False,
    ) -> np.ndarray:
        """Embeddings as `encode` returns them; pooling skips `skip` tokens.

        `fast`: products in bfloat16. Otherwise, on a CPU, they are in float32, also while the model trains in bfloat16,
        so that evaluators measure what `encode` will give.
        """
        lengths = [len(sequence) for sequence in sequences]
        max_tokens = batch_tokens or BATCH_TOKENS.get(self.device.type, BATCH_TOKENS_ELSEWHERE)
        forward, precision = self.layout.forward, "float32" if self.device.type == "cpu" else self.precision
        precision = "bfloat16" if fast else precision
        dtype = getattr(torch, precision)
        cores = min(self.threads or torch.get_num_threads(), torch.get_num_threads())
        runner: AbstractContextManager[Any] = _map_on(cores)
        if self.fused and fused_supports(dtype):
            forward, precision, runner = build_fused(self.backbone, dtype), "float32", _parallel_map(cores)
            max_tokens = min(max_tokens, sum(lengths) // cores + 1)
        embeddings = torch.empty(len(sequences), self.resolve_dim(truncate_dim))

        @torch.inference_mode()  # which is per thread
        def embed_batch(members: np.ndarray) -> None:
            skips = np.full(len(members), skip) if skip else None
            embedding_rd = self._embed(forward, precision, [sequences[i] for i in members], skips)
            embedding_rd = embedding_rd[:, : embeddings.shape[1]].float()
            unit_rd = similarity.normalize(embedding_rd) if normalize else embedding_rd
            embeddings[torch.from_numpy(members)] = unit_rd.cpu()

        was_training = self.training
        if was_training:  # else nothing is changed that another thread may see
            self.eval()
        batches = token_batches(lengths, max_tokens)
        with runner as run, task(f"embedding {len(sequences):,} texts", sum(lengths)) as embedding:
            for members, _ in zip(batches, run(embed_batch, batches), strict=True):
                embedding.advance(sum(lengths[i] for i in members))
        if was_training:
            self.train()
        return embeddings.numpy()


@contextmanager
def _map_on(cores: int) -> Iterator[Any]:
    """A `map` whose operations use so many cores each. Of this thread: others of the program keep theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        yield map
    finally:
        torch.set_num_threads(before)


@contextmanager
def _parallel_map(cores: int) -> Iterator[Any]:
    """A `map` in parallel, each item on one core, so that no core waits for another within an operation."""
    with _map_on(1), ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool.map


def token_batches(lengths: list[int], max_tokens: int) -> list[np.ndarray]:
    """Indices of sequences, longest first, in batches of at most `max_tokens` tokens (or a single sequence)."""
    batches: list[np.ndarray] = []
    order = np.argsort(-np.array(lengths, dtype=np.int64), kind="stable")
    start = total = 0
    for end, index in enumerate(order):
        if end > start and total + lengths[index] > max_tokens:
            batches.append(order[start:end])
            start, total = end, 0
        total += lengths[index]
    return [*batches, order[start:]] if len(order) else []
