"""What the small JSON files of a model say, in the terms of a recipe."""

from collections.abc import Callable
from dataclasses import dataclass, field

from stfit.encoder.layers import Layer
from stfit.encoder.token_layers import TokenLayer
from stfit.encoder.tokenizer import Tokenizer


@dataclass
class ModelConfig:
    """Everything after the backbone: pooling, layers, prompts."""

    pooling: tuple[str, ...]
    """Modes; empty if the backbone gives one embedding per text."""
    token_layers: list[TokenLayer] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    include_prompt: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str = "cosine"
    truncate_dim: int | None = None

    def pooled_dim(self, dim: int) -> int:
        for token_layer in self.token_layers:
            dim = token_layer.dim_after(dim)
        return dim * max(1, len(self.pooling))

    def embedding_dim(self, dim: int) -> int:
        dim = self.pooled_dim(dim)
        for layer in self.layers:
            dim = layer.dim_after(dim)
        return dim

    def modules(self) -> list[str]:
        pooling = [f"Pooling ({', '.join(self.pooling)})"] if self.pooling else []
        before, after = ([layer.aliases[0] for layer in layers] for layers in (self.token_layers, self.layers))
        return [*before, *pooling, *after]


@dataclass(frozen=True)
class ModelInfo:
    """A base as described by its recipe or its small files, without its weights. Empty for an unreachable base."""

    st_name: str = "Transformer"
    is_random: bool = False
    load_tokenizer: Callable[[], Tokenizer] | None = None  # without truncation
    max_seq_length: int | None = None
    positions: int | None = None
    hidden_size: int | None = None
    """Size of a token embedding, or of the embedding of a text if nothing is pooled."""
    num_layers: int | None = None
    parameters: int | None = None
    """Number of weights; None if their files are not on this machine."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Name in the file of each weight -> its shape; empty if there is no file that tells it."""
    model_type: str | None = None
    """Architecture of a transformer, as transformers calls it."""
    num_heads: int | None = None
    config: ModelConfig | None = None
    dropped: str | None = None
    """What of a folder without modules.json is not used, if it was more than a pretrained base."""

    @property
    def output_dim(self) -> int | None:
        if self.hidden_size is None:
            return None
        dim = (self.config or ModelConfig(pooling=("mean",))).embedding_dim(self.hidden_size)
        return min(dim, self.config.truncate_dim or dim) if self.config else dim

    @property
    def prompts(self) -> dict[str, str]:
        return self.config.prompts if self.config else {}

    @property
    def default_prompt(self) -> str | None:
        return self.config.default_prompt if self.config else None
